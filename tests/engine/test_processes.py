"""Several processes give what one gives, to the last digits of a sum; and a run of several is as unbreakable."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist
from helpers.runs import ROOT, result
from helpers.several_ranks import train_and_test

from metarun.engine.processes import Processes
from metarun.errors import ProcessEndedError

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
QUICK = ("val_every=10", "log_every=5", "checkpoint_every=5", "val_tasks=7", "test_tasks=9", "device.threads=1")


@pytest.mark.parametrize(
    ("error", "of_another"),
    [
        (RuntimeError("[pair.cc:547] Connection closed by peer [127.0.0.1]:2131"), True),
        (RuntimeError("[pair.cc:598] Connection reset by peer"), True),
        (RuntimeError("[unbound_buffer.cc:78] Timed out waiting 1800000ms for recv operation to complete"), True),
        (dist.DistBackendError("NCCL communicator was aborted on rank 1"), True),
        (dist.DistNetworkError("The client socket has failed to connect"), True),
        (dist.DistNetworkError("The server socket has failed to listen: EADDRINUSE, address already in use"), False),
        (RuntimeError("Invalid scalar type"), False),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (ValueError("Connection closed by peer"), False),
    ],
)
def test_only_a_connection_that_is_gone_is_another_processs_end(monkeypatch, error, of_another):
    def all_reduce(_):
        raise error

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    processes = Processes()
    processes.size = 2
    with pytest.raises(ProcessEndedError if of_another else type(error)) as raised:
        processes.sum({"w": torch.zeros(3)})
    assert of_another or raised.value is error


def test_the_number_of_processes_changes_nothing(tmp_path):
    """11 tasks in shares of 6 and 5; and every process ends with the same."""
    words = [*TORCHRUN, "--nproc-per-node=2", ROOT / "tests/helpers/several_ranks.py", "rank"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt") for rank in (0, 1))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, train_and_test(), rtol=1e-12, atol=1e-13)


def _start(cwd, size, *words):
    return subprocess.Popen(
        [*TORCHRUN, f"--nproc-per-node={size}", "-m", "metarun", *words],
        cwd=cwd,
        stdout=open(cwd / "stdout", "w"),
        stderr=open(cwd / "stderr", "w"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["maml", "reptile"])  # reptile has meta-parameters of two precisions
def test_one_process_writes(metarun, tmp_path, algo):
    words = (*QUICK, f"algo={algo}", "meta_steps=20", "model.hidden=[8]")
    assert _start(tmp_path, 2, *words, "hydra.run.dir=two").wait() == 0, (tmp_path / "stderr").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"two", "stdout", "stderr"}
    assert (tmp_path / "stdout").read_text().count("95% interval") == 1
    assert (tmp_path / "stderr").read_text().count("20 outer steps of 25 tasks, 2 processes on cpu") == 1
    assert json.loads((tmp_path / "two/environment.json").read_text())["processes"] == 2
    assert metarun(*words, "hydra.run.dir=one")[0] == 0
    pairs = [(tmp_path / run / "metrics.jsonl").read_text().splitlines() for run in ("one", "two")]
    for a, b in zip(*(map(json.loads, lines) for lines in pairs), strict=True):
        assert (a["step"], a["split"]) == (b["step"], b["split"])
        assert a["mse"] == pytest.approx(b["mse"], rel=1e-5)
    tasks = [json.loads((tmp_path / run / "test_tasks.json").read_text()) for run in ("one", "two")]
    assert tasks[0]["digest"] == tasks[1]["digest"]
    assert tasks[0]["each"] == pytest.approx(tasks[1]["each"], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "seed=1,2"], "a sweep (torchrun)"),
        (["eval", "run"], "eval (torchrun)"),
        (["reproduce", "run"], "reproduce (torchrun)"),
        (["meta_batch=1"], "1 (meta_batch)"),
    ],
)
def test_what_several_processes_cannot_do_is_said_by_rank_zero(metarun, finished, monkeypatch, words, said):
    shutil.copytree(finished, "run")
    monkeypatch.setattr("metarun.cli.PATIENCE", 0)
    monkeypatch.setattr("metarun.run.train_and_test.joined", lambda device: nullcontext())
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        code, _, err = metarun(*words)
        assert code == 2
        errors = [line for line in err.splitlines() if line.startswith("metarun: error")]
        assert len(errors) == (rank == 0), err
        assert rank or said in errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["the first process is killed", "torchrun is stopped"])
def test_a_run_of_several_processes_goes_on(tmp_path, how):
    words = (*QUICK, "meta_steps=200", "data.shots=2", "data.queries=2")
    assert _start(tmp_path, 2, *words, "hydra.run.dir=whole").wait() == 0
    process = _start(tmp_path, 2, *words, "hydra.run.dir=run")
    status = tmp_path / "run/status.json"
    for _ in range(1200):
        if status.exists() and json.loads(status.read_text())["step"] >= 50:
            break
        time.sleep(0.02)
    first = json.loads(status.read_text())["pid"]
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    if how == "torchrun is stopped":
        process.send_signal(signal.SIGTERM)
    else:
        os.kill(next(int(c) for c in children if (int(c) == first) == how.startswith("the first")), signal.SIGKILL)
    assert process.wait(timeout=60) != 0
    said = [line for line in (tmp_path / "stderr").read_text().splitlines() if line.startswith("metarun: error")]
    assert len(said) <= 1
    assert not (tmp_path / "run/summary.json").exists()
    assert _start(tmp_path, 2, "resume", "run").wait() == 0, (tmp_path / "stderr").read_text()
    assert result(tmp_path / "run") == result(tmp_path / "whole")
