"""What a run says of itself, by a clock of its own."""

import errno
import os
import threading
from dataclasses import replace

import pytest

from metarun.config.compose import compose
from metarun.intervals import Evaluation
from metarun.run.pace import TESTING, TRAINING, VALIDATING
from metarun.run.position import Reporter
from metarun.storage.rundir import RunDir


class Said:
    """In the place of the bar and the lines."""

    def __init__(self):
        self.lines, self.steps, self.closed = [], 0, []

    def advance(self):
        self.steps += 1

    def draw(self, position):
        self.drawn = position

    def say(self, step, position):
        self.lines.append((step, position.doing))

    def close(self, position):
        self.closed.append(position.doing)


@pytest.fixture
def clock():
    return [50.0]


@pytest.fixture
def reporter(tmp_path, clock):
    config = replace(compose([]), meta_steps=100, val_every=10, val_tasks=30, test_tasks=60)
    return Reporter(RunDir(tmp_path), config, 0, Said(), lambda: clock[0])


def _validated(mean):
    return Evaluation([9.0, mean], [0.1, 0.1], 30, [mean] * 30, 10)


def test_status_json_has_the_position_every_two_seconds_and_at_once_what_is_new(reporter, clock, tmp_path):
    written = []
    reporter.measure("mse", lambda: 321)
    reporter.begin(TRAINING)
    for _ in range(12):
        reporter.tick()
        if (status := RunDir(tmp_path).status()) and status not in written:
            written.append(status)
        clock[0] += 1
        reporter.outer_step(reporter.pace.step + 1, {"loss": 2.5, "mse": 2.0})
    assert 6 <= len(written) <= 7
    assert all(status.status == "running" and status.steps == 100 and status.pid == os.getpid() for status in written)
    position = written[-1].position
    assert (position.metric, position.loss, position.score, position.memory_mb) == ("mse", 2.5, 2.0, 321)
    assert position.tasks_per_second == 25
    reporter.begin(VALIDATING)
    reporter.tick()
    assert RunDir(tmp_path).status().position.doing == VALIDATING
    reporter.evaluation(12, "val", _validated(1.25))
    reporter.evaluation(12, "test", _validated(7.0))
    assert reporter.position().validation == 1.25
    assert reporter.progress.steps == 12


def test_lines_come_after_ten_seconds_then_each_minute_and_where_a_test_takes_long(reporter, clock):
    reporter.begin(TRAINING)
    for second in range(200):
        clock[0] += 1
        reporter.outer_step(second // 2 + 1, {})
        reporter.tick()
    assert [step for step, _ in reporter.progress.lines] == [5, 35, 65, 95]
    reporter.begin(VALIDATING)
    assert len(reporter.progress.lines) == 4, "there was one a few seconds ago"
    clock[0] += 20
    reporter.begin(TESTING)
    assert reporter.progress.lines[4:] == [(100, TESTING)]


def test_a_run_of_a_few_seconds_has_no_line(reporter, clock):
    reporter.begin(TRAINING)
    for step in range(1, 9):
        clock[0] += 1
        reporter.outer_step(step, {})
        reporter.tick()
    reporter.begin(VALIDATING)
    reporter.begin(TESTING)
    assert not reporter.progress.lines


def test_it_ends_with_the_run_and_a_full_disk_is_not_its_business(reporter, clock, tmp_path, monkeypatch):
    called = threading.Event()

    def write(*_, **__):
        called.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("metarun.run.position.TICK", 0.001)
    monkeypatch.setattr(RunDir, "write", write)
    with reporter:
        clock[0] += 5
        assert called.wait(10)
        called.clear()
        clock[0] += 5
        assert called.wait(10), "it goes on"
        assert reporter._thread.daemon
    assert not reporter._thread.is_alive()
    assert reporter.progress.closed == ["done"]
    reporter.close()
    assert len(reporter.progress.closed) == 1


def test_the_end_has_no_time_left_and_says_how_it_ended(reporter, tmp_path):
    reporter.begin(TRAINING)
    reporter.outer_step(1, {})
    reporter.write("failed", "out of memory")
    status = RunDir(tmp_path).status()
    assert (status.status, status.step, status.error) == ("failed", 1, "out of memory")
    assert status.position.seconds_left is None
