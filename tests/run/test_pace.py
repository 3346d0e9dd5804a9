"""The time left, against runs whose length is known: a clock that only moves as they do."""

import sys

import pytest

from metarun.run.pace import COMPILING, ENDING, TESTING, TRAINING, VALIDATING, Pace


def _simulate(steps, val_every, test_tasks, *, step_seconds, compiling=0.0, val_seconds=8.0, done=0):
    """Runs by a clock of its own; gives [(seconds since it began, what it took to be left)], and how long it took."""
    clock, said = [1000.0], []
    pace = Pace(steps, val_every, meta_batch=4, val_tasks=50, test_tasks=test_tasks, step=done, now=lambda: clock[0])
    pace.begin(COMPILING if compiling else TRAINING)
    clock[0] += compiling

    def note():
        said.append((clock[0] - 1000, pace.step, pace.seconds_left()))

    note()
    for step in range(done + 1, steps + 1):
        clock[0] += step_seconds(step) / 2
        note()
        clock[0] += step_seconds(step) / 2
        pace.outer_step(step)
        if step % val_every == 0 or step == steps:
            pace.begin(VALIDATING)
            clock[0] += val_seconds / 2
            note()
            clock[0] += val_seconds / 2
        pace.begin(TRAINING)
        note()
    pace.begin(TESTING)
    clock[0] += val_seconds / 50 * test_tasks
    note()
    return said, clock[0] - 1000 + ENDING


def test_the_time_left_of_an_even_run_is_exact_once_it_has_validated():
    said, total = _simulate(95, 10, 600, step_seconds=lambda step: 0.5)
    later = [(at, left) for at, step, left in said if step >= 11]
    assert all(left == pytest.approx(total - at, abs=1e-6) for at, left in later)
    assert [left for _, step, left in said if step == 0] == [None, None]


@pytest.mark.parametrize("compiling", [0.0, 90.0])
@pytest.mark.parametrize("done", [0, 300])
@pytest.mark.parametrize(("val_every", "val_seconds"), [(50, 20.0), (600, 12.0)], ids=["often", "at the end"])
def test_after_a_tenth_the_time_left_is_right_within_a_fifth(compiling, done, val_every, val_seconds):
    """Steps from 0.4 to 1.6 s by turns, and one in ten of 3 s: a training task takes 0.3 s, one of validation 0.4 or,
    which nobody can know before the end, 0.24 s."""
    said, total = _simulate(
        600, val_every, 100, step_seconds=lambda n: 3.0 if n % 10 == 0 else 0.4 + n % 4 * 0.4, compiling=compiling,
        val_seconds=val_seconds, done=done,
    )  # fmt: skip
    late = [(at, left) for at, step, left in said if step >= done + (600 - done) / 10]
    assert len(late) > 500
    for at, left in late:
        assert left == pytest.approx(total - at, rel=0.2, abs=10)


def test_steps_that_are_not_done_took_no_time():
    """Of an algorithm that does not train only the last is."""
    clock = [0.0]
    pace = Pace(3000, 100, meta_batch=25, val_tasks=1, test_tasks=1, now=lambda: clock[0])
    pace.begin(TRAINING)
    clock[0] += 2
    pace.outer_step(3000)
    assert (pace.seconds_of_step, pace.tasks_per_second) == (2.0, 12.5)


def test_a_step_of_a_minute_counts_down_while_it_lasts():
    clock = [0.0]
    pace = Pace(10, 100, meta_batch=1, val_tasks=1, test_tasks=1, now=lambda: clock[0])
    pace.begin(TRAINING)
    for step in (1, 2):
        clock[0] += 60
        pace.outer_step(step)
    before = pace.seconds_left()
    clock[0] += 40
    assert pace.seconds_left() == pytest.approx(before - 40)
    clock[0] += 40
    assert pace.seconds_left() == pytest.approx(before - 60), "it is late, and the others are still to come"


def test_a_run_that_becomes_slower_is_believed_after_five_minutes():
    said, total = _simulate(1400, 10_000, 10, step_seconds=lambda step: 0.1 if step <= 400 else 1.0)
    at, _, left = next(row for row in said if row[1] == 720)
    assert left == pytest.approx(total - at, rel=0.1)


def test_a_run_that_only_lacks_its_test_knows_nothing_yet():
    pace = Pace(10, 5, 1, 1, 1, step=10, now=lambda: 0.0)
    pace.begin(TESTING)
    assert pace.seconds_left() is None
    assert pace.tasks_per_second is None


def test_it_can_be_asked_at_any_moment_by_another_thread():
    """Between any two statements of the first outer step, as a thread that says the position may."""
    clock, before = [0.0], sys.gettrace()
    pace = Pace(10, 5, meta_batch=4, val_tasks=50, test_tasks=50, now=lambda: clock[0])

    def ask(*_):
        sys.settrace(None)
        pace.seconds_left()
        sys.settrace(ask)
        return ask

    pace.begin(TRAINING)
    clock[0] += 1
    sys.settrace(ask)
    try:
        pace.outer_step(1)
    finally:
        sys.settrace(before)
    assert pace.seconds_of_step == 1
