"""Runs that are killed, stopped and cut end as if nothing had happened, to the last bit."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.runs import bits, result

from metarun.engine import loop
from metarun.storage import checkpoint

SHORT = ("val_tasks=4", "test_tasks=6", "device.threads=1")
EVERY = ("val_every=7", "log_every=3", "checkpoint_every=5")


@pytest.fixture
def stopped_after(monkeypatch):
    """Sends a signal to this very process when an outer step is done."""
    train = loop.meta_train

    def arrange(step, signum):
        def stepping(*args):
            for report in train(*args):
                if report.step == step:
                    os.kill(os.getpid(), signum)
                yield report

        monkeypatch.setattr(loop, "meta_train", stepping)

    yield arrange
    monkeypatch.setattr(loop, "meta_train", train)


@pytest.mark.parametrize("stride", [31, pytest.param(1, marks=pytest.mark.slow)])
def test_a_stop_after_any_of_sixty_outer_steps_changes_nothing(metarun, stopped_after, stride):
    """With the three signals in turn; continued by one command or the other."""
    words = (*SHORT, *EVERY, "meta_steps=60", "data.shots=2", "data.queries=2", "algo.meta_lr=0.03")
    assert metarun(*words, "hydra.run.dir=whole")[0] == 0
    best = json.loads(Path("whole/summary.json").read_text())["val"]["mse"]["step"]
    assert 14 <= best <= 49, "somewhere in the middle, so that a resumed run has to remember it"
    whole, same, signals = result("whole"), 0, (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    for step in range(1, 61, stride):
        signum = signals[step % 3]
        stopped_after(step, signum)
        code, _, err = metarun(*words, "hydra.run.dir=run")
        assert code == 128 + signum
        assert f"stopped after outer step {step} of 60" in err.splitlines()[-1]
        assert json.loads(Path("run/status.json").read_text())["status"] == "stopped"
        assert checkpoint.steps(Path("run/checkpoints"))[0] == step
        stopped_after(0, 0)
        code, _, err = metarun("resume", "run") if step % 2 else metarun(*words, "hydra.run.dir=run")
        assert code == 0, err
        same += result("run") == whole
        shutil.rmtree("run")
    assert same == len(range(1, 61, stride))


def _stopped_run(metarun, stopped_after):
    """A whole run, and one stopped/ after step 8: the metrics of both, and where the last three lines of these begin."""
    words = (*SHORT, "meta_steps=12", "val_every=2", "log_every=1", "checkpoint_every=3")
    assert metarun(*words, "hydra.run.dir=whole")[0] == 0
    whole = Path("whole/metrics.jsonl").read_bytes()
    stopped_after(8, signal.SIGTERM)
    assert metarun(*words, "hydra.run.dir=stopped")[0] == 143
    stopped_after(0, 0)
    text = Path("stopped/metrics.jsonl").read_bytes()
    begin = len(b"".join(text.splitlines(keepends=True)[:-3]))
    assert len(text) - begin > 250
    return whole, text, begin


def test_metrics_cut_in_a_line_are_made_whole_and_the_run_goes_on(metarun, stopped_after):
    """Every byte is tested on the recorder, in tests/storage/test_metrics.py; once here, and all below."""
    whole, text, begin = _stopped_run(metarun, stopped_after)
    Path("stopped/metrics.jsonl").write_bytes(text[: begin + 40])
    assert metarun("resume", "stopped")[0] == 0
    assert Path("stopped/metrics.jsonl").read_bytes() == whole


@pytest.mark.slow
def test_metrics_cut_anywhere_and_run_to_the_end(metarun, stopped_after):
    """The same, every byte through the command line."""
    whole, text, begin = _stopped_run(metarun, stopped_after)
    for cut in range(begin, len(text) + 1):
        shutil.copytree("stopped", "run")
        Path("run/metrics.jsonl").write_bytes(text[:cut])
        assert metarun("resume", "run")[0] == 0
        assert Path("run/metrics.jsonl").read_bytes() == whole, cut
        shutil.rmtree("run")


def start(cwd, *words, **environment):
    """A process of its own; what it says goes to files, for a pipe that no one reads would stop it."""
    return subprocess.Popen(
        [sys.executable, "-m", "metarun", *words],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=open(cwd / "stdout", "w"),
        stderr=open(cwd / "stderr", "w"),
    )


ALGORITHMS = ("maml", "meta_lstm", "averaging", "reptile")
SOURCES = ("sinusoid", "tabular", "omniglot")
SMALL = {
    "sinusoid": ("data.shots=5", "data.queries=5", "model.hidden=[16]"),
    "tabular": ("model.hidden=[16]",),
    "omniglot": ("model.filters=4",),
}


def _kill_until_done(tmp_path, algo, source, seed, kills):
    """Kills a run at random instants, and starts it again by one command or the other."""
    draw = random.Random(f"{algo} {source} {seed}")
    words = (f"algo={algo}", f"data={source}", f"seed={seed}", *SHORT, *EVERY, *SMALL[source], "meta_steps=60")
    if algo != "averaging":
        words += ("meta_batch=3",)
    done = subprocess.run(
        [sys.executable, "-m", "metarun", *words, "hydra.run.dir=whole"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    run, killed = tmp_path / "run", 0
    seconds = json.loads((tmp_path / "whole/summary.json").read_text())["wall_seconds"]
    while True:
        begun = (run / ".hydra/config.yaml").exists()
        again = ("resume", "run") if begun and draw.random() < 0.5 else (*words, "hydra.run.dir=run")
        process = start(tmp_path, *again)
        _wait_until(lambda: process.poll() is not None or _status(run).get("pid") == process.pid, None)  # noqa: B023
        try:
            process.wait(timeout=draw.uniform(0, 0.8) * seconds if killed < kills else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            continue
        assert process.returncode == 0, (tmp_path / "stderr").read_text()
        assert result(run) == result(tmp_path / "whole")
        return


def _status(run):
    try:
        return json.loads((run / "status.json").read_text())
    except FileNotFoundError:
        return {}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_killed_runs_end_as_if_nothing_had_happened(tmp_path, real_data_root, monkeypatch, algo, source):
    """Most are killed several times."""
    monkeypatch.setenv("METARUN_DATA", str(real_data_root))
    _kill_until_done(tmp_path, algo, source, 1, kills=3)


def test_a_second_signal_leaves_at_once(tmp_path):
    """A step of this run takes long, and its backward pass seconds, in which Python hears of no signal."""
    words = (*SHORT, "meta_steps=1000", "meta_batch=1000", "algo.inner_steps=5", "hydra.run.dir=run", "engine=loop")
    process = start(tmp_path, *words)
    _wait_until(lambda: (tmp_path / "run/environment.json").exists(), process)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert process.poll() is None, "still in its first outer step"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert "SIGTERM: stopped; to go on: metarun resume run" in (tmp_path / "stderr").read_text()
    assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "stopped"


def _wait_until(true, process):
    for _ in range(6000):
        if true():
            return
        assert process is None or process.poll() is None, "ended early"
        time.sleep(0.02)
    pytest.fail("nothing happened")


def test_a_file_size_limit_is_said_and_loses_nothing(metarun):
    """EFBIG for real, at the first checkpoint; every other write fails in turn in tests/storage/."""
    words = (*SHORT, "meta_steps=4", "val_every=2", "hydra.run.dir=run")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        code, _, err = metarun(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert code == 4
    assert "File too large" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert metarun(*words)[0] == 0


@pytest.mark.parametrize("how", ["resume", "the same command"])
def test_only_how_long_how_often_and_where_may_change(metarun, stopped_after, how):
    words = (*SHORT, "meta_steps=12")
    stopped_after(5, signal.SIGTERM)
    assert metarun(*words, "hydra.run.dir=run")[0] == 143
    stopped_after(0, 0)
    again = ("resume", "run") if how == "resume" else (*SHORT, "hydra.run.dir=run")
    for changed in ("seed=1", "algo.inner_lr=0.3") if how == "the same command" else ():
        code, _, err = metarun(*again, "meta_steps=12", changed)
        assert code == 4, err
        assert f"different in {changed.partition('=')[0]}" in err
        assert err.count("\n") == 1
    free = ("meta_steps=14", "val_every=3", "log_every=2", "checkpoint_every=4", "engine.chunk=2")
    code, _, err = metarun(*again, *free)
    assert code == 0, err
    assert "may differ from an uninterrupted run's" in err
    for word in free:
        assert word.partition("=")[0] in err
    assert json.loads(Path("run/environment.json").read_text())["continued"][0]["chunk"] == 2


@pytest.mark.slow
def test_neither_cadence_nor_progress_bar_nor_evaluation_changes_a_number(tmp_path):
    """One run in a pipe and one on a terminal, with everything that only looks on set differently."""
    import fcntl
    import pty
    import struct
    import termios

    words = ("meta_steps=30", "test_tasks=6", "device.threads=1", "algo=maml", "data=tabular")
    quiet = ("val_every=30", "val_tasks=4", "log_every=1", "checkpoint_every=30")
    busy = ("val_every=3", "val_tasks=11", "log_every=1", "checkpoint_every=1")
    assert (
        subprocess.run(
            [sys.executable, "-m", "metarun", *words, *quiet, "hydra.run.dir=quiet"], cwd=tmp_path, capture_output=True
        ).returncode
        == 0
    )
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "metarun", *words, *busy, "hydra.run.dir=busy"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    try:
        while os.read(main, 4096):
            pass
    except OSError:
        pass  # the terminal ends with the process
    os.close(main)
    assert process.wait() == 0
    rows = {}
    for run in ("quiet", "busy"):
        lines = (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        rows[run] = [line for line in lines if '"train"' in line]
    assert len(rows["quiet"]) == 30
    assert rows["quiet"] == rows["busy"]
    saved = [checkpoint.load(tmp_path / run / "checkpoints", 30) for run in ("quiet", "busy")]
    assert bits([saved[0]["meta"], saved[0]["optimizer"]]) == bits([saved[1]["meta"], saved[1]["optimizer"]])
