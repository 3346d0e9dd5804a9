"""metrics.jsonl and timing.jsonl: restored where a run goes on, and read strictly."""

import json
import os
import time

import pytest

from metarun.errors import RunDirError
from metarun.intervals import Evaluation
from metarun.storage.metrics import Event, Recorder, last_timing, parse_events, read_events
from metarun.storage.rundir import RunDir

RESULT = Evaluation([2.0, 1.0], [0.2, 0.1], 7, [1.0] * 7, 10)


def _recorder(rundir, **settings):
    return Recorder(rundir, "mse", meta_batch=4, memory_mb=lambda: 99, **settings)


def test_events_are_read_as_they_were_written(tmp_path):
    rundir = RunDir(tmp_path)
    recorder = _recorder(rundir)
    recorder.outer_step(1, {})
    recorder.outer_step(2, {"loss": 0.5, "mse": 3.0})
    recorder.evaluation(2, "val", RESULT)
    recorder.evaluation(1, "test", RESULT)
    recorder.close()
    assert read_events(rundir, "mse") == [
        Event(2, "train", 3.0, loss=0.5),
        Event(2, "val", 1.0, ci95=0.1, by_step=[2.0, 1.0]),
        Event(1, "test", 1.0, ci95=0.1, by_step=[2.0, 1.0]),
    ]
    assert json.loads(rundir.metrics.read_text().splitlines()[1])["tasks"] == 7
    timing = last_timing(rundir)
    assert (timing.step, timing.session, timing.memory_mb) == (2, 0, 99)
    assert timing.tasks_per_second > 0


def test_tasks_of_steps_that_were_not_done_are_not_counted(tmp_path, monkeypatch):
    """Of an algorithm that does not train only the last is."""
    rundir, clock = RunDir(tmp_path), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    recorder = _recorder(rundir)
    clock[0] += 2
    recorder.outer_step(3000, {"mse": 1.0})
    assert not recorder.has_validation(3000)
    recorder.evaluation(3000, "val", RESULT)
    assert recorder.has_validation(3000)
    recorder.evaluation(3000, "test", RESULT)
    recorder.close()
    assert last_timing(rundir).tasks_per_second == recorder.meta_batch / 2


def test_metrics_are_restored_whatever_has_become_of_the_file(tmp_path):
    rundir = RunDir(tmp_path)
    before = '{"step": 1, "split": "train", "mse": 1.0}\n'
    for found in (b"", b"x" * 100, before.encode()[:-3], None):
        rundir.metrics.unlink() if found is None else rundir.metrics.write_bytes(found)
        recorder = _recorder(rundir, session=1, step=1, metrics=before)
        assert rundir.metrics.read_text() == before
        recorder.outer_step(2, {"mse": 1.0})
        assert rundir.metrics.read_text() == recorder.metrics == before + before.replace("1,", "2,")
        recorder.close()


def test_metrics_cut_at_any_byte_are_made_whole(tmp_path):
    rundir = RunDir(tmp_path)
    recorder = _recorder(rundir)
    for step in (1, 2, 3):
        recorder.outer_step(step, {"loss": 0.1, "mse": 1.0})
    recorder.close()
    text = rundir.metrics.read_bytes()
    for cut in range(len(text) + 1):
        rundir.metrics.write_bytes(text[:cut])
        _recorder(rundir, metrics=text.decode()).close()
        assert rundir.metrics.read_bytes() == text


def test_seconds_add_up_over_sessions(tmp_path):
    rundir = RunDir(tmp_path)
    rows = [(0, 3.0), (0, 5.0), (1, 10.0), (1, 20.0)]
    rest = {"step": 1, "memory_mb": 1, "tasks_per_second": 1.0}
    rundir.timing.write_text("".join(json.dumps({"session": s, "seconds": t, **rest}) + "\n" for s, t in rows))
    with open(rundir.timing, "a") as file:
        file.write('{"session": 1, "seco')  # torn by a crash
    recorder = _recorder(rundir, session=2)
    assert recorder.seconds() == pytest.approx(25, abs=1)
    recorder.evaluation(5, "val", RESULT)
    assert json.loads(rundir.timing.read_text().splitlines()[-1])["session"] == 2
    recorder.close()


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1}',
        "[1]",
        "[" * 100_000,
        '{"step": 2, "split": "val", "mse": "x", "ci95": 1, "tasks": 2, "by_step": [1]}',
        '{"step": 2, "split": "val", "mse": 1, "tasks": 2, "by_step": [1]}',
        '{"step": 2, "split": "val", "mse": 1, "ci95": 1, "tasks": 2}',
        '{"step": 2, "split": "holdout", "mse": 1}',
        '{"step": -1, "split": "train", "mse": 1}',
        '{"step": 1.5, "split": "train", "mse": 1}',
        '{"step": 2, "split": "train", "accuracy": 1}',
        '{"step": 2, "split": "train", "mse": Infinity}',
        '{"step": 2, "split": "train", "mse": 1e999}',
    ],
)
def test_a_line_that_is_no_event_is_named(line):
    good = '{"step": 1, "split": "train", "mse": 1}\n'
    assert parse_events(good, "mse") == [Event(1, "train", 1.0)]
    with pytest.raises(ValueError, match="line 2 is not an event"):
        parse_events(good + line + "\n", "mse")


def test_files_that_cannot_be_read(tmp_path):
    rundir = RunDir(tmp_path)
    assert last_timing(rundir) is None
    with pytest.raises(RunDirError, match=r"metrics.jsonl: cannot be read .*No such file"):
        read_events(rundir, "mse")
    os.mkfifo(rundir.timing)
    assert last_timing(rundir) is None
    with pytest.raises(RunDirError, match=r"timing.jsonl: cannot be read \(not a regular file\)"):
        _recorder(rundir)
    rundir.metrics.write_bytes(b"\xff\n")
    with pytest.raises(RunDirError, match="cannot be read"):
        read_events(rundir, "mse")
    with open(rundir.metrics, "wb") as file:
        file.truncate(10**11)
    with pytest.raises(RunDirError, match="has 100000000000 bytes"):
        read_events(rundir, "mse")
