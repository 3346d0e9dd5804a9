"""Several processes give what one gives, to the last digits of a sum; and a run of several is as unbreakable."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist
from helpers.runs import result

from metarun.engine.processes import Processes
from metarun.errors import ProcessEndedError

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
QUICK = ("val_every=10", "log_every=5", "checkpoint_every=5", "val_tasks=7", "test_tasks=9", "device.threads=1")

FLOAT64 = """
import os, sys, torch
from metarun import seeds
from metarun.engine import loop
from metarun.algos.maml import MAML
from metarun.data.sinusoid import Sinusoid
from metarun.engine.engine import Engine
from metarun.models import MLP
from metarun.engine.processes import Processes, joined


class Double:
    def __init__(self, source):
        self.source = source

    def __getattr__(self, name):
        return getattr(self.source, name)

    def sample(self, *address):
        return self.source.sample(*address).to(torch.float64)


with joined(torch.device("cpu")):
    with seeds.forked(0, "init"):
        model = MLP((1,), 1, hidden=[16, 16]).double()
    source = Double(Sinusoid(shots=5, queries=5))
    source.prepare(torch.device("cpu"))
    engine = Engine(chunk=3, eval_chunk=4)
    experiment = loop.Experiment(MAML(model, inner_lr=0.05, inner_steps=2), source, engine, torch.device("cpu"), 3)
    state = loop.start(experiment)
    reports = [(float(r.loss), float(r.score)) for r in loop.meta_train(experiment, state, 5, 11)]
    curve = loop.meta_test(experiment, state.meta, "test", 13, batch=5)
    everyone = {"meta": {k: v.detach() for k, v in state.meta.items()}, "reports": reports, "curve": list(curve)}
    torch.save(everyone, f"{sys.argv[1]}-{Processes().rank}.pt")
os._exit(0)  # torch's threads have now and then aborted a bare script at the interpreter's end; this is about numbers
"""


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


def _flat(saved):
    meta = torch.cat([value.flatten() for value in saved["meta"].values()])
    rest = [torch.tensor(saved["reports"]).flatten(), *map(torch.tensor, saved["curve"][:2])]
    return torch.cat([meta, *rest])


def test_the_number_of_processes_changes_nothing(tmp_path):
    """11 tasks in 1 and 2 shares, not even ones; and every process ends with the same."""
    script = tmp_path / "script.py"
    script.write_text(FLOAT64)
    for size in (1, 2):
        words = [*TORCHRUN, f"--nproc-per-node={size}", str(script), f"of {size}"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    alone = _flat(torch.load(tmp_path / "of 1-0.pt", weights_only=True))
    for size in (2,):
        results = [_flat(torch.load(tmp_path / f"of {size}-{rank}.pt", weights_only=True)) for rank in range(size)]
        assert all(torch.equal(results[0], other) for other in results[1:])
        torch.testing.assert_close(results[0], alone, rtol=1e-12, atol=1e-13)


def _start(cwd, size, *words):
    return subprocess.Popen(
        [*TORCHRUN, f"--nproc-per-node={size}", "-m", "metarun", *words],
        cwd=cwd,
        stdout=open(cwd / "stdout", "w"),
        stderr=open(cwd / "stderr", "w"),
    )


def _one(cwd, *words):
    return subprocess.run([sys.executable, "-m", "metarun", *words], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize(
    "algo", [pytest.param("maml", marks=pytest.mark.slow), "reptile"]
)  # reptile has meta-parameters of two precisions
def test_one_process_writes(tmp_path, algo):
    words = (*QUICK, f"algo={algo}", "meta_steps=20")
    assert _start(tmp_path, 2, *words, "hydra.run.dir=two").wait() == 0, (tmp_path / "stderr").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"two", "stdout", "stderr"}
    assert (tmp_path / "stdout").read_text().count("95% interval") == 1
    assert (tmp_path / "stderr").read_text().count("step 20/20") == 1
    assert json.loads((tmp_path / "two/environment.json").read_text())["processes"] == 2
    assert _one(tmp_path, *words, "hydra.run.dir=one").returncode == 0
    pairs = [(tmp_path / run / "metrics.jsonl").read_text().splitlines() for run in ("one", "two")]
    for a, b in zip(*(map(json.loads, lines) for lines in pairs), strict=True):
        assert (a["step"], a["split"]) == (b["step"], b["split"])
        assert a["mse"] == pytest.approx(b["mse"], rel=1e-5)
    tasks = [json.loads((tmp_path / run / "test_tasks.json").read_text()) for run in ("one", "two")]
    assert tasks[0]["digest"] == tasks[1]["digest"]
    assert tasks[0]["each"] == pytest.approx(tasks[1]["each"], rel=1e-4)
    _start(tmp_path, 2, *words, "hydra.run.dir=two").wait()
    assert "two is finished" in (tmp_path / "stderr").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["-m", "seed=1,2"], "a sweep (torchrun)", marks=pytest.mark.slow),
        (["eval", "run"], "eval (torchrun)"),
        pytest.param(["meta_batch=1"], "1 (meta_batch)", marks=pytest.mark.slow),
    ],
)
def test_what_several_processes_cannot_do_is_said_once(tmp_path, finished, words, said):
    (tmp_path / "run").symlink_to(finished)
    assert _start(tmp_path, 2, *words).wait() == 1
    lines = [line for line in (tmp_path / "stderr").read_text().splitlines() if line.startswith("metarun: error")]
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["a worker is killed", "the first process is killed", "torchrun is stopped"])
def test_a_run_of_several_processes_goes_on(tmp_path, how):
    words = (*QUICK, "meta_steps=400", "data.shots=2", "data.queries=2")
    assert _start(tmp_path, 2, *words, "hydra.run.dir=whole").wait() == 0
    process = _start(tmp_path, 2, *words, "hydra.run.dir=run")
    status = tmp_path / "run/status.json"
    for _ in range(1200):
        if status.exists() and json.loads(status.read_text())["step"] >= 100:
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
