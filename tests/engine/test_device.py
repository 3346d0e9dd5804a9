"""Which device a process computes on."""

import pytest
import torch

from metarun.engine.device import Device, put_back
from metarun.engine.ranks import is_rank_zero, share_the_machine
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


def test_a_rank_without_a_number_of_processes_is_nobodys(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert is_rank_zero()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_rank_zero()


def test_torch_is_put_back_as_it_was():
    put_back()  # what another test may have borrowed, or turned off
    torch.backends.cuda.enable_flash_sdp(True)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        torch.set_num_threads(2)
        torch.use_deterministic_algorithms(False)
        Device("cpu", threads=3).set_up()
        torch.backends.cuda.enable_flash_sdp(False)
        Device("cpu", threads=4).set_up()
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (4, True)
        put_back()
        assert torch.backends.cuda.flash_sdp_enabled()
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (2, False)
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def test_tf32_is_for_gpus():
    with pytest.raises(SettingError, match="tf32"):
        Device("cpu", tf32=True)
