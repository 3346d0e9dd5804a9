"""Which device a process computes on."""

import pytest
import torch

from metarun.engine.device import Device
from metarun.engine.ranks import share_the_machine
from metarun.errors import SettingError


def test_jobs_take_gpus_by_turns(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for name in ("OMP_NUM_THREADS", "METARUN_JOB"):
        monkeypatch.delenv(name, raising=False)
    assert Device().torch_device == torch.device("cuda:0")
    beside = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"}
    for job, gpu in ((0, 0), (1, 1), (4, 1), (5, 2)):
        share_the_machine(job, beside)
        assert Device("cuda").torch_device == torch.device(f"cuda:{gpu}")
    share_the_machine(7, {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"})
    assert Device().torch_device == torch.device("cuda:2"), "jobs in a row change nothing"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Device().torch_device == torch.device("cuda:1")


def test_tf32_is_for_gpus():
    with pytest.raises(SettingError, match="tf32"):
        Device("cpu", tf32=True)
