"""Which runs are wanted, and in which order."""

from datetime import datetime

import pytest

from metarun.errors import UsageError
from metarun.results.listing import Listed
from metarun.results.selection import ORDERS, Wanted, order_by, read_since, sort_runs

NOW = datetime(2026, 3, 31, 12, 0)


def listed(folder, **fields):
    return Listed(**{"folder": folder, "status": "done", **fields})


@pytest.mark.parametrize(
    ("word", "when"),
    [
        *(("90s", datetime(2026, 3, 31, 11, 58, 30)), ("30m", datetime(2026, 3, 31, 11, 30))),
        *(("12H", datetime(2026, 3, 31)), ("1.5d", datetime(2026, 3, 30)), ("2w", datetime(2026, 3, 17, 12))),
        *(("2026-01-31", datetime(2026, 1, 31)), ("2026-01-31 10:00", datetime(2026, 1, 31, 10))),
    ],
)
def test_since_is_a_time_before_now_or_a_date(word, when):
    assert read_since(word, NOW) == when.timestamp()


@pytest.mark.parametrize("word", ["", "7", "d", "-1d", "yesterday", "2026-13-01", "9" * 20 + "w", "1e400d"])
def test_other_words_are_no_time(word):
    with pytest.raises(UsageError, match="since"):
        read_since(word, NOW)


def test_every_filter_has_to_hold_and_a_list_is_an_or():
    run = listed("a", algorithm="maml", source="omniglot", tags=["good", "paper"], began=100.0)
    for wanted in (
        Wanted(),
        Wanted(algo=["MAML", "reptile"], data=["omniglot"]),
        Wanted(tag=["paper"], since=100.0, status=["done", "failed"]),
    ):
        assert wanted.takes(run)
    for wanted in (Wanted(algo=["mam"]), Wanted(algo=["maml"], status=["failed"]), Wanted(since=101.0)):
        assert not wanted.takes(run)


def test_best_is_highest_of_accuracies_and_lowest_of_errors():
    values = {"a": ("accuracy", 0.7), "b": ("accuracy", 0.9), "c": ("mse", 3.0), "d": ("mse", 0.0), "e": (None, None)}
    runs = [listed(name, metric=metric, validation=value, test=value) for name, (metric, value) in values.items()]
    for order in ("val", "test"):
        assert "".join(run.folder for run in sort_runs(runs, order)) == "badce"


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_takes_runs_of_which_nothing_is_known(order):
    assert len(sort_runs([listed("b"), listed("a")], order)) == 2


def test_an_order_that_there_is_not_is_refused_with_the_nearest():
    assert order_by("Validation") == "val"
    with pytest.raises(UsageError, match="did you mean status"):
        order_by("statsu")
