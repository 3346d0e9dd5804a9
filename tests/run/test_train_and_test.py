"""A run and its directory: the same twice, interrupted and resumed, evaluated again, reproduced, swept."""

import copy
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.disk import PowerCut
from PIL import Image

from metarun.config.compose import compose
from metarun.data.sinusoid import Sinusoid
from metarun.engine import loop
from metarun.engine.processes import Processes
from metarun.errors import DivergedError
from metarun.run.session import Session
from metarun.run.train_and_test import execute
from metarun.storage import checkpoint
from metarun.storage.rundir import RunDir

QUICK = ("meta_steps=12", "val_every=4", "val_tasks=6", "test_tasks=20", "log_every=3", "checkpoint_every=5")


def cut_power():
    raise PowerCut


def _weights(run):
    return checkpoint.newest(Path(run) / "checkpoints")["meta"]


def test_a_run_directory_is_complete_and_strict_json(metarun, pictures):
    code, out, err = metarun(*QUICK, "hydra.run.dir=run")
    assert code == 0, err
    run = Path("run")
    names = {
        ".hydra",
        "status.json",
        "environment.json",
        "metrics.jsonl",
        "timing.jsonl",
        "summary.json",
        "test_tasks.json",
        "checkpoints",
        "metarun.log",
        "curve.png",
        "examples.png",
    }
    assert {path.name for path in run.iterdir()} == names
    assert {path.name for path in (run / ".hydra").iterdir()} == {
        f"{name}.yaml" for name in ("config", "overrides", "choices", "hydra")
    }
    rows = [json.loads(line, parse_constant=pytest.fail) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["split"]) for row in rows] == [
        (3, "train"), (4, "val"), (6, "train"), (8, "val"), (9, "train"), (12, "train"), (12, "val"),
        (json.loads((run / "summary.json").read_text())["val"]["mse"]["step"], "test"),
    ]  # fmt: skip
    summary = json.loads((run / "summary.json").read_text(), parse_constant=pytest.fail)
    test = summary["test"]["mse"]
    assert len(test["by_step"]) == 11
    assert test["tasks"] == 20
    assert test["by_step"][-1]["mean"] == test["mean"] == rows[-1]["mse"]
    assert (
        summary["objective"]
        == summary["val"]["mse"]["mean"]
        == min(row["mse"] for row in rows if row["split"] == "val")
    )
    assert summary["training"] == {
        "steps": 12, "outer_steps": 12, "meta_batch": 25, "meta_steps": 12, "budget": 1.0, "trains": True,
    }  # fmt: skip
    assert summary["choices"]["algo"] == "maml"
    assert summary["checkpoint"]["step"] == summary["val"]["mse"]["step"]
    tasks = json.loads((run / "test_tasks.json").read_text(), parse_constant=pytest.fail)
    assert statistics.fmean(tasks["each"]) == pytest.approx(test["mean"], rel=1e-12)
    assert 2.09302 * statistics.stdev(tasks["each"]) / 20**0.5 == pytest.approx(test["ci95"], rel=1e-5), (
        "t of 19 degrees of freedom"
    )
    assert summary["wall_seconds"] > 0
    environment = json.loads((run / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert environment["chunk"] == 25
    assert json.loads((run / "status.json").read_text())["status"] == "done"
    image = Image.open(run / "curve.png")
    assert image.size[0] > 800
    assert len(image.convert("RGB").getcolors(1 << 24)) > 50, "something is drawn"
    assert "metarun reproduce run" in out


def test_the_same_command_twice_gives_the_same_bytes(metarun):
    for run in ("a", "b"):
        assert metarun(*QUICK, f"hydra.run.dir={run}", "algo.inner_steps=2")[0] == 0
    assert Path("a/metrics.jsonl").read_bytes() == Path("b/metrics.jsonl").read_bytes()
    assert all(torch.equal(value, _weights("b")[name]) for name, value in _weights("a").items())
    assert metarun(*QUICK, "hydra.run.dir=c", "algo.inner_steps=2", "seed=1")[0] == 0
    assert Path("a/metrics.jsonl").read_bytes() != Path("c/metrics.jsonl").read_bytes()


@pytest.mark.slow  # tests/engine/test_engine.py compares single steps
def test_loop_and_vmap_runs_agree(metarun):
    rows = {}
    for engine in ("loop", "vmap"):
        assert metarun(*QUICK, f"hydra.run.dir={engine}", f"engine={engine}")[0] == 0
        rows[engine] = [json.loads(line) for line in Path(engine, "metrics.jsonl").read_text().splitlines()]
    for a, b in zip(rows["loop"], rows["vmap"], strict=True):
        assert a["mse"] == pytest.approx(b["mse"], rel=1e-4)


def test_cadences_change_no_training_number(metarun):
    assert metarun(*QUICK, "hydra.run.dir=a")[0] == 0
    other = ["meta_steps=12", "val_every=5", "val_tasks=6", "test_tasks=20", "log_every=1", "checkpoint_every=2"]
    assert metarun(*other, "hydra.run.dir=b")[0] == 0
    assert all(torch.equal(value, _weights("b")[name]) for name, value in _weights("a").items())


def test_a_finished_run_is_not_run_again(metarun):
    metarun(*QUICK, "hydra.run.dir=run")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    for words in ([*QUICK, "hydra.run.dir=run"], ["resume", "run"]):
        code, out, err = metarun(*words)
        assert code == 0
        assert "is finished" in err
        assert "95% interval over 20 tasks" in out
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_another_config_in_the_same_directory_is_refused(metarun):
    metarun(*QUICK, "hydra.run.dir=run")
    before = Path("run/.hydra/config.yaml").read_bytes()
    code, _, err = metarun(*QUICK, "hydra.run.dir=run", "algo.inner_lr=0.02", "seed=3")
    assert code == 4
    assert "different in seed, algo.inner_lr" in err
    assert err.count("\n") == 1
    assert Path("run/.hydra/config.yaml").read_bytes() == before


def _start(cwd, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "metarun", *words], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _wait_for_step(run, step):
    for _ in range(1200):
        try:
            if any(json.loads(line)["step"] >= step for line in (run / "metrics.jsonl").read_text().splitlines()):
                return
        except (FileNotFoundError, ValueError):
            pass
        time.sleep(0.05)
    pytest.fail("the run did not get that far")


LONG = (
    *("meta_steps=160", "val_every=60", "val_tasks=6", "test_tasks=20", "log_every=10", "checkpoint_every=25"),
    *("model.hidden=[8]", "meta_batch=4", "device.threads=1"),
)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "signum",
    [signal.SIGKILL, *(pytest.param(n, marks=SLOW) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))],
)
def test_an_interrupted_run_ends_as_if_nothing_had_happened(metarun, tmp_path, signum):
    process = _start(tmp_path, *LONG, "hydra.run.dir=cut")
    _wait_for_step(tmp_path / "cut", 70)
    process.send_signal(signum)
    _, err = process.communicate()
    if signum == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + signum, err
        assert "metarun resume cut" in err.splitlines()[-1]
        assert json.loads((tmp_path / "cut/status.json").read_text())["status"] == "stopped"
    assert not (tmp_path / "cut/summary.json").exists()
    code, _, err = metarun("resume", "cut")
    assert code == 0, err
    assert "going on after outer step" in err
    assert metarun(*LONG, "hydra.run.dir=whole")[0] == 0
    assert Path("cut/metrics.jsonl").read_bytes() == Path("whole/metrics.jsonl").read_bytes()
    assert all(torch.equal(value, _weights("whole")[name]) for name, value in _weights("cut").items())


@pytest.mark.slow  # tests/storage/test_rundir.py claims a directory twice
def test_a_live_run_is_left_alone(metarun, tmp_path):
    process = _start(tmp_path, *LONG, "seed=5", "hydra.run.dir=live")
    _wait_for_step(tmp_path / "live", 20)
    process.send_signal(signal.SIGSTOP)
    try:
        code, _, err = metarun("resume", "live")
    finally:
        process.send_signal(signal.SIGCONT)
    assert code == 4
    assert f"in use by process {process.pid}" in err
    assert process.wait() == 0


def test_a_run_can_be_made_longer_but_not_shorter(metarun):
    metarun(*QUICK, "hydra.run.dir=run")
    code, _, err = metarun("resume", "run", "meta_steps=16")
    assert code == 0, err
    assert json.loads(Path("run/summary.json").read_text())["training"]["outer_steps"] == 16
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    for words, said in ((["meta_steps=8"], "at least 16"), (["meta_steps=20", "device=cuda"], "device=cpu")):
        code, _, err = metarun("resume", "run", *words)
        assert code == 2
        assert said in err
        after = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
        assert after == before, "what is refused changes nothing"
    assert "meta_steps=12" in Path("run/.hydra/overrides.yaml").read_text(), "the words it was begun with"
    assert json.loads(Path("run/environment.json").read_text())["continued"][0]["changed"] == ["meta_steps"]


def test_a_run_that_was_killed_when_it_was_to_become_longer_does(metarun, monkeypatch):
    metarun(*QUICK, "hydra.run.dir=run")
    with monkeypatch.context() as patch:
        patch.setattr("metarun.run.position.Reporter.write", lambda *_: cut_power())
        with pytest.raises(PowerCut):
            metarun("resume", "run", "meta_steps=16")
    assert json.loads(Path("run/status.json").read_text())["status"] == "done", "of the 12 steps"
    assert metarun("resume", "run")[0] == 0
    assert json.loads(Path("run/summary.json").read_text())["training"]["outer_steps"] == 16


def test_a_run_may_end_where_it_was_stopped(metarun, monkeypatch):
    """At a step after which there was no validation."""
    train = loop.meta_train

    def stopped(*args):
        for report in train(*args):
            if report.step == 7:
                os.kill(os.getpid(), signal.SIGUSR1)
            yield report

    with monkeypatch.context() as patch:
        patch.setattr(loop, "meta_train", stopped)
        assert metarun("val_every=250", *QUICK[:1], *QUICK[2:], "hydra.run.dir=run")[0] == 128 + signal.SIGUSR1
    code, _, err = metarun("resume", "run", "meta_steps=7")
    assert code == 0, err
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["val"]["mse"]["step"], summary["training"]["outer_steps"]) == (7, 7)
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "val"] == [7]
    assert metarun("reproduce", "run")[0] == 0


def test_a_run_that_only_lacks_its_test_is_tested(metarun):
    metarun(*QUICK, "hydra.run.dir=run")
    rows = Path("run/metrics.jsonl").read_bytes()
    Path("run/summary.json").unlink()
    code, out, err = metarun("resume", "run")
    assert code == 0, err
    assert Path("run/metrics.jsonl").read_bytes() == rows
    assert json.loads(Path("run/status.json").read_text())["step"] == 12
    assert "95% interval over 20 tasks" in out


def test_damage_is_told_before_training_goes_on(metarun):
    metarun(*QUICK, "hydra.run.dir=run")
    newest, *others = checkpoint.steps(Path("run/checkpoints"))
    for number, step in enumerate((newest, *others), start=1):
        path = Path(f"run/checkpoints/step-{step:08d}.pt")
        path.write_bytes(path.read_bytes()[:-1])
        before = {path: path.read_bytes() for path in Path("run").rglob("*.pt")}
        code, out, err = metarun("eval", "run")
        assert f"step-{newest:08d}.pt: damaged" in err
        assert code == (0 if number <= len(others) else 4)
        assert ("checkpoint    outer step" in out) == (code == 0), "which one it was"
    code, _, err = metarun("resume", "run", "meta_steps=16")
    assert code == 4
    assert "damaged" in err
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in before} == before
    Path("run/metrics.jsonl").write_text("[1]\n")
    code, _, err = metarun("reproduce", "run")
    assert code == 4
    assert "metrics.jsonl" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("gone", ["*.json", pytest.param("*.pt", marks=SLOW), pytest.param("*", marks=SLOW)])
def test_a_finished_run_without_checkpoints_is_not_started_over(metarun, gone):
    metarun(*QUICK, "hydra.run.dir=run")
    for path in Path("run/checkpoints").glob(gone):
        path.unlink()
    rows = Path("run/metrics.jsonl").read_bytes()
    for words in (["resume", "run", "meta_steps=20"], ["eval", "run"]):
        code, _, err = metarun(*words)
        assert code == 4
        assert "checkpoint" in err.splitlines()[-1]
        assert "metarun resume" not in err
    assert Path("run/metrics.jsonl").read_bytes() == rows


def test_resume_keeps_the_chunk_that_auto_chose(metarun, monkeypatch):
    metarun(*QUICK, "hydra.run.dir=run")
    monkeypatch.setattr("metarun.engine.chunking.bytes_for_a_chunk", lambda device: 1)
    assert metarun("resume", "run", "meta_steps=14")[0] == 0
    assert json.loads(Path("run/environment.json").read_text())["continued"][0]["chunk"] == 25


def test_a_saved_config_runs_again(metarun):
    metarun(*QUICK, "hydra.run.dir=run", "algo.inner_lr=0.02")
    os.chdir("run")
    code, out, err = metarun("-cp", ".hydra", "seed=4", "hydra.run.dir=../again")
    os.chdir("..")
    assert code == 0, err
    assert "rate 0.02," in out
    config = Path("again/.hydra/config.yaml").read_text()
    assert "seed: 4" in config
    assert "suggested" not in config
    code, _, err = metarun("-cp", "run/.hydra", "algo=fomaml")
    assert code == 2
    assert "settings of its own" in err


def test_divergence_has_its_exit_code_and_keeps_the_good_checkpoint(metarun):
    code, _, err = metarun(*QUICK, "hydra.run.dir=run", "algo.meta_lr=1e20")
    assert code == 5
    assert "not finite" in err
    assert json.loads(Path("run/status.json").read_text())["status"] == "failed"
    for step in checkpoint.steps(Path("run/checkpoints")):
        assert all(
            torch.isfinite(value).all() for value in checkpoint.load(Path("run/checkpoints"), step)["meta"].values()
        )


def test_a_run_directory_that_is_moved_meanwhile_is_missed(metarun, monkeypatch):
    def save(folder, *facts, **keep):
        folder.parent.rename("elsewhere")
        true(folder, *facts, **keep)

    true = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", save)
    code, _, err = metarun(*QUICK, "hydra.run.dir=run")
    assert code == 4
    assert "run: the run directory is gone; expected it to stay where it was; if it was moved" in err.splitlines()[-1]
    assert not Path("run").exists()
    monkeypatch.setattr(checkpoint, "save", true)
    assert metarun("resume", "elsewhere")[0] == 0


def test_a_second_moment_that_overflows_ends_the_run(metarun):
    """Gradients of 1e20 are finite, and so are weights that Adam moves by them; their squares are not, in float32."""
    words = ("meta_steps=3", "val_tasks=2", "test_tasks=2", "algo.inner_lr=1000", "hydra.run.dir=run")
    for _ in range(2):  # what could not be gone on from must not have been saved
        code, _, err = metarun(*words)
        assert code == 5
        assert "exp_avg_sq of layers.0.weight is not finite (after outer step 3)" in err.splitlines()[-1]
        assert not checkpoint.steps(Path("run/checkpoints"))


def test_a_budget_is_that_share_of_meta_steps_and_can_be_raised(metarun):
    code, out, err = metarun(*QUICK, "budget=0.5", "hydra.run.dir=run")
    assert code == 0, err
    assert "6 outer steps" in out
    assert "budget 0.5 of 12" in out
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["training"]["outer_steps"], summary["training"]["budget"]) == (6, 0.5)
    code, out, err = metarun("resume", "run", "budget=1")
    assert code == 0, err
    metarun(*QUICK, "hydra.run.dir=whole")
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    whole = [json.loads(line) for line in Path("whole/metrics.jsonl").read_text().splitlines()]
    assert [row for row in rows if row["step"] != 6 or row["split"] != "val"] == whole
    code, _, err = metarun("resume", "run", "budget=0.1")
    assert code == 2
    assert "budget" in err
    code, _, err = metarun("eval", "run", "budget=0.1")
    assert code == 2


def test_a_validation_that_is_not_finite_ends_nothing_but_is_not_the_best(metarun, monkeypatch):
    """Validations 2 and 3 of 3 find a task whose metric is not a number."""
    true, calls = loop.meta_test, []

    def meta_test(experiment, meta, split, *rest):
        calls.append(split)
        if calls in (["val"] * 2, ["val"] * 3):
            raise DivergedError("the metric of val task 7 is not finite")
        return true(experiment, meta, split, *rest)

    monkeypatch.setattr(loop, "meta_test", meta_test)
    code, out, err = metarun(*QUICK, "hydra.run.dir=run")
    assert code == 0, err
    assert err.count("no validation: the metric of val task 7 is not finite") == 2
    assert "outer step 4 of 12, best by validation" in out
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["split"]) for row in rows if row["split"] != "train"] == [(4, "val"), (4, "test")]


def test_the_first_of_the_best_validations_is_tested_evaluated_and_drawn(metarun, monkeypatch):
    """Validations after steps 4, 8 and 12, of which the last two are as good: the checkpoint is that of step 8."""
    true, sample, values = loop.meta_test, Sinusoid.sample, iter([0.5, 0.2, 0.2])
    calls, drawn, sampled = [], [], set()

    def meta_test(experiment, meta, split, *rest):
        calls.append((split, copy.deepcopy(meta)))
        sampled.clear()
        result = true(experiment, meta, split, *rest)
        assert sampled == {split}, "validation sees no test task"
        return result._replace(mean=[*result.mean[:-1], next(values)]) if split == "val" else result

    monkeypatch.setattr(loop, "meta_test", meta_test)
    monkeypatch.setattr(
        Sinusoid, "sample", lambda self, seed, split, index: sampled.add(split) or sample(self, seed, split, index)
    )
    monkeypatch.setattr("metarun.run.pictures.draw_examples", lambda _, meta, *rest: drawn.append(meta))
    assert metarun(*QUICK, "hydra.run.dir=run")[0] == 0
    assert metarun("eval", "run", "again=true")[0] == 0
    best, last = (checkpoint.load(Path("run/checkpoints"), step)["meta"] for step in (8, 12))
    assert not torch.equal(best["head.weight"], last["head.weight"])
    splits, metas = zip(*calls, strict=True)
    assert splits == ("val", "val", "val", "test", "test")
    for meta in (metas[1], *metas[3:], *drawn):
        assert all(torch.equal(value, meta[name]) for name, value in best.items())
    assert len(drawn) == 2
    for path in (Path("run/summary.json"), *Path("run/eval").glob("*/*/summary.json")):
        assert json.loads(path.read_text())["checkpoint"]["step"] == 8


def test_a_run_without_any_finite_validation_says_so(metarun, monkeypatch):
    def meta_test(*_):
        raise DivergedError("the metric of val task 7 is not finite")

    monkeypatch.setattr(loop, "meta_test", meta_test)
    code, _, err = metarun(*QUICK, "hydra.run.dir=run")
    assert code == 5
    assert "no validation has a finite metric" in err.splitlines()[-1]


def _execute_as(rank, monkeypatch, sent):
    """Runs in the folder `run` as this rank; returns the names of its collective calls.

    Rank 0 leaves what it broadcasts in `sent`, and the other one takes it from there.
    """
    calls = []
    monkeypatch.setattr(Processes, "__init__", lambda self: self.__dict__.update(rank=rank, size=1))

    def watch(name, real):
        def call(self, *args):
            calls.append(name)
            if name != "from_rank_zero":
                return real(self, *args)
            if rank == 0:
                sent.append(copy.deepcopy(args[0]))
            return args[0] if rank == 0 else sent.pop(0)

        return call

    monkeypatch.setattr(Processes, "share", lambda self, items: items)
    for name, real in COLLECTIVES.items():
        monkeypatch.setattr(Processes, name, watch(name, real))
    config = compose([*QUICK, "model.hidden=[8]"])
    assert (execute(config, Path("run"), [], {}, bar=False) is None) == (rank > 0)
    return calls


COLLECTIVES = {n: getattr(Processes, n) for n in ("sum", "join", "from_rank_zero", "first_not_none", "largest")}


def test_all_ranks_make_the_same_collective_calls_and_rank_zero_alone_writes(tmp_path, monkeypatch):
    """Another order, or one call more, would be a deadlock of half an hour."""
    monkeypatch.chdir(tmp_path)
    sent = []
    first = _execute_as(0, monkeypatch, sent)
    assert first.count("largest") == 13
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert _execute_as(1, monkeypatch, sent) == first
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert not sent
    again = [_execute_as(rank, monkeypatch, sent) for rank in (0, 1)]
    assert again == [["from_rank_zero"], ["from_rank_zero"]], "the run is finished"


def test_a_run_that_failed_before_its_first_step_does_not_block_the_corrected_command(metarun, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(loop, "meta_train", no_memory)
        assert metarun(*QUICK, "seed=3", "meta_batch=26", "hydra.run.dir=run")[0] == 1
    assert json.loads(Path("run/status.json").read_text())["status"] == "failed"
    code, out, err = metarun(*QUICK, "hydra.run.dir=run")
    assert code == 0, err
    assert "12 outer steps of 25 tasks" in out
    environment = json.loads(Path("run/environment.json").read_text())
    assert environment["seed"] == 0
    assert "continued" not in environment or not environment["continued"]
    assert "seed=3" not in Path("run/.hydra/overrides.yaml").read_text()
    assert metarun("reproduce", "run")[0] == 0


def test_a_run_that_resume_begins_anew_keeps_the_words_that_began_it(metarun, monkeypatch):
    """They say that it is no published experiment."""

    def no_memory(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(loop, "meta_train", no_memory)
        assert metarun(*QUICK, "data.shots=3", "hydra.run.dir=run")[0] == 1
    assert metarun("resume", "run", "test_tasks=5")[0] == 0
    words = RunDir(Path("run")).overrides()
    assert "data.shots=3" in words
    assert [word for word in words if word.startswith("test_tasks=")] == ["test_tasks=5"]


def test_a_chunk_that_a_killed_session_has_set_is_set(metarun, finished, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    shutil.copytree(finished, "run")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "meta_train", no_memory)
        assert metarun("resume", "run", "meta_steps=6", "engine.chunk=3")[0] == 1
    assert metarun("resume", "run")[0] == 0
    environment = RunDir(Path("run")).environment()
    assert [session.chunk for session in environment.sessions] == [25, 3, 3]


def test_a_signal_during_the_last_save_stops_the_run_before_its_test(metarun, monkeypatch):
    save = Session._save

    def stopping(session):
        save(session)
        if session.state.step == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "_save", stopping)
        code, _, err = metarun(*QUICK, "hydra.run.dir=run")
    assert (code, "SIGTERM: stopped after outer step 12 of 12, and saved; to go on" in err) == (143, True)
    assert metarun("resume", "run")[0] == 0
    assert metarun("reproduce", "run")[0] == 0


def test_nothing_stays_of_a_session_that_left_nothing(metarun, monkeypatch):
    """Neither what its data was scaled by nor its chunk; those would be wrong for adapt, and for reproduce."""

    def no_memory(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(loop, "meta_train", no_memory)
        assert metarun(*QUICK, "hydra.run.dir=run")[0] == 1
    path = Path("run/environment.json")
    before = json.loads(path.read_text())
    assert before["chunk"] == 25
    path.write_text(json.dumps(before | {"inputs": {"kind": "others"}}))
    assert metarun("resume", "run", "engine.chunk=7")[0] == 0
    environment = json.loads(path.read_text())
    assert (environment["chunk"], environment["inputs"]) == (7, before["inputs"])
    assert "inputs" not in environment["continued"][0], "a copy for each session would grow without bound"
    assert environment["argv"] == before["argv"], "the words that began it"
    assert metarun("reproduce", "run")[0] == 0


def test_a_run_that_was_killed_within_its_first_steps_may_have_no_checkpoint_but_is_not_replaced(metarun):
    metarun(*QUICK, "hydra.run.dir=run")
    for name in (
        "summary.json",
        "status.json",
        *(path.relative_to("run") for path in Path("run/checkpoints").iterdir()),
    ):
        Path("run", name).unlink()
    assert metarun(*QUICK, "seed=3", "hydra.run.dir=run")[0] == 4, "it has rows"
    Path("run/metrics.jsonl").unlink()
    assert metarun(*QUICK, "seed=3", "hydra.run.dir=run")[0] == 0, "nothing is lost"
