"""A sweep outlives jobs that Slurm ends, puts back into the queue, or never begins; on a Slurm of this machine."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from helpers.runs import ROOT, result

from metarun.commands.lost_jobs import read_queue
from metarun.storage.rundir import RunDir

# Seconds long; no checkpoint before the last step, unless a signal asks for one.
LONG = ("meta_steps=1000", "val_every=1000", "val_tasks=4", "test_tasks=6", "model.hidden=[40,40]", "log_every=10")


def test_a_job_is_over_where_squeue_says_so_or_does_not_know_it():
    """A job between two attempts, or that ends just now, is not: submitit would give it up."""
    text = "7_0|COMPLETED\n7_1|COMPLETING\n7_2|REQUEUED\n7_3|OUT_OF_MEMORY\n7_4|CONFIGURING\n7_5|PENDING\n8|TIMEOUT\n"
    states = read_queue(text, {"8", *(f"7_{number}" for number in range(7))})
    going = {job for job, facts in states.items() if facts["State"] == "RUNNING"}
    assert going == {"7_1", "7_2", "7_4", "7_5"}
    assert states["7_3"]["State"] == "OUT_OF_MEMORY"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Starts a Slurm of two cores or more, and ends it."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    if os.getuid() or not all(map(shutil.which, ("munged", "slurmctld", "slurmd", "sbatch"))):
        pytest.skip("needs root, and the packages of scripts/slurm.sh install")
    folder = tmp_path / "slurm"
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("SLURM_PORT", str(free.getsockname()[1]))
    script = str(ROOT / "scripts/slurm.sh")
    try:
        subprocess.run([script, "start", folder], check=True, timeout=120, stdout=subprocess.DEVNULL)
        yield
    finally:
        subprocess.run([script, "stop", folder], timeout=120)


def wait_until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_sweep_on_slurm_outlives_its_jobs(slurm, tmp_path, metarun):
    words = ["-m", *LONG, "seed=0,1,2,3", "hydra.sweep.dir=sweep", "hydra/launcher=submitit_slurm"]
    sweep = [sys.executable, "-m", "metarun", *words, "hydra.launcher.array_parallelism=2"]
    runs = [RunDir(tmp_path / f"sweep/seed={seed}") for seed in range(4)]

    def is_training(run):
        return run.path.exists() and (status := run.status()) and status.status == "running" and run.metrics.exists()

    def call(*command):
        return subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout

    with subprocess.Popen(sweep, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: is_training(runs[0]) and is_training(runs[1]))
            array = call("squeue", "--noheader", "--format=%F").split()[0]
            call("scancel", f"{array}_3")  # it waits
            call("scontrol", "requeue", f"{array}_0")
            os.kill(runs[1].status().pid, signal.SIGUSR2)  # as Slurm sends it before it preempts
            wait_until(lambda: is_training(runs[2]))
            os.kill(runs[2].status().pid, signal.SIGKILL)
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == 1, err
    assert "2 jobs failed" in err.splitlines()[-1]
    lines = out.splitlines()
    assert ["test mse" in line for line in lines] == [True, True, False, False]
    assert lines[2].startswith("seed=2  failed: FAILED")
    assert lines[3].startswith("seed=3  failed: ")
    for number in (0, 1):
        log = next((tmp_path / "sweep/.submitit").glob(f"{array}_{number}/*.err")).read_text()
        assert "going on after outer step" in log, "a job that was put back into the queue does not begin anew"
    done = subprocess.run(sweep, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test mse") == 4
    for seed, run in enumerate(runs[:3]):
        alone = tmp_path / f"alone-{seed}"
        assert metarun(*LONG, f"seed={seed}", "device.threads=1", f"hydra.run.dir={alone}")[0] == 0
        assert result(run.path)[0] == result(alone)[0]
        assert result(run.path)[2] == result(alone)[2]
