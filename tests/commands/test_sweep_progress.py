"""How far a sweep is, from notes of its jobs and by a clock of its own."""

import logging
from pathlib import Path

import pytest

from metarun.commands import sweep_progress
from metarun.commands.sweep_progress import NOTES, SweepProgress, estimate_left, following, note, read_notes
from metarun.storage.records import Position
from metarun.storage.rundir import RunDir


@pytest.mark.parametrize(
    ("ended", "going", "waiting", "at_once", "left"),
    [
        ([], [], 6, 1, None),
        ([], [(10.0, None)], 5, 1, None),
        ([], [(10.0, 50.0)], 5, 1, 50 + 5 * 60),
        ([30.0, 50.0], [], 4, 1, 4 * 40),
        ([30.0, 50.0], [(10.0, None), (45.0, None)], 4, 2, (30 + 0 + 4 * 40) / 2),
        ([40.0] * 3, [(10.0, 30.0)], 0, 4, 30.0),
        ([1.0, 1.0], [(100.0, 900.0), (2.0, None)], 0, 2, 900.0),
    ],
    ids=["nothing", "a first job", "by itself", "by those before", "two at once", "the last", "the longest"],
)
def test_the_time_left_is_that_of_the_jobs_that_go_on_and_of_those_to_come(ended, going, waiting, at_once, left):
    assert estimate_left(ended, going, waiting, at_once) == pytest.approx(left)


def test_a_note_that_a_full_disk_has_cut_is_passed_over(tmp_path):
    (tmp_path / "notes").write_text('{"job": 0}\n{"job": 1, "wor{"job": 2}\n{"job": 3}\n{"job": 4')
    assert [note["job"] for note in read_notes(tmp_path / "notes")] == [0, 3]


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def progress(tmp_path, monkeypatch, clock, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(NOTES, str(tmp_path / "sweep/notes"))
    monkeypatch.setattr(logging.getLogger("metarun"), "propagate", True)
    caplog.set_level(logging.INFO, "metarun")
    return SweepProgress(
        Path("sweep/notes"), 3, ["a=1"], lambda rundir: f"the result in {rundir.short}", lambda: clock[0]
    )


def test_jobs_are_said_when_they_begin_and_end_wherever_they_run(progress, clock, caplog):
    progress.tick()
    note(0, ["a=1", "seed=0"], Path("sweep/x"))
    note(1, ["a=1", "seed=1"], Path("sweep/y"))
    progress.tick()
    RunDir(Path("sweep/x")).path.mkdir(parents=True)
    position = Position(doing="validating", seconds_left=80.0)
    RunDir(Path("sweep/x")).write_status("running", 5, steps=50, position=position)
    clock[0] = 11.0
    note(1, ["a=1", "seed=1"], Path("sweep/y"), began=0.0, seconds=10.0, error="it broke")
    progress.tick()
    clock[0] = 30.0
    progress.tick()
    note(2, ["a=1"], Path("sweep/z"))
    note(2, ["a=1"], Path("sweep/z"), began=0.0, seconds=0.2)
    with open("sweep/notes", "a") as file:
        file.write('{"job": 0, "sec')
    progress.close()
    assert caplog.messages == [
        "job 1 of 3: seed=0",
        "job 2 of 3: seed=1",
        "job 2 of 3: seed=1: failed: it broke (10 s)",
        # two jobs of 10 and 91 s, of which 80 are left, and one to come, two at a time
        "1 of 3 jobs have ended, job 1 at outer step 5 of 50, validating, 1 min 20 s left",
        "job 3 of 3: the default: the result in sweep/z (0 s)",
    ]
    assert [line["job"] for line in read_notes(Path("sweep/notes")) if line.get("error")] == [1]


def test_a_run_that_was_finished_before_says_nothing_of_those_to_come(progress):
    RunDir(Path("sweep/x")).path.mkdir(parents=True)
    Path("sweep/x/summary.json").touch()
    note(0, ["a=1"], Path("sweep/x"), began=2e10, seconds=0.1)
    note(1, ["a=1"], Path("sweep/x"), began=0.0, seconds=7.0)
    progress.tick()
    assert progress.ended == [7.0]


def test_a_thread_reads_the_notes_and_all_are_said_at_the_end(progress, caplog, monkeypatch):
    monkeypatch.setattr(sweep_progress, "TICK", 1000)
    with pytest.raises(ValueError, match="stopped"), following(progress):
        note(0, ["a=1"], Path("sweep/x"))
        raise ValueError("stopped")
    assert caplog.messages == ["job 1 of 3: the default"]
