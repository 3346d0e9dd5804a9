"""The sentences below a table."""

from dataclasses import replace

import pytest
from helpers.results import alter

from metarun.results.compare import make_row
from metarun.results.differences import Contest
from metarun.results.notes import notes

CONTEST = Contest((1, 2), 1, "validation", 2, {1: 0.25, 2: 0.2}, tasks={1: 3, 2: 3}, seeds={1: 5, 2: 5})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["Validation chooses row 1; the test would choose row 2 (0.200 against 0.250)"]),
        ({"means": {1: 0.98690, 2: 0.98672}}, ["would choose row 2 (0.98672 against 0.98690)"]),
        ({"best_in_test": 1, "chosen_over": (2,)}, ["The best is chosen over seed 2 alone, which all these rows have"]),
        ({"best_in_test": 1, "chosen_over": (0, 1, 4)}, ["The best is chosen over seeds 0, 1, 4 alone"]),
        ({"best_in_test": 1}, []),
        ({"best_in_test": 1, "by": "test"}, ["Validation does not tell the rows apart"]),
        ({"best_in_test": 1, "seeds": {1: 1, 2: 1}}, ["it leaves out that training again"]),
        ({"best_in_test": 1, "seeds": {1: 2, 2: 2}}, ["Two seeds are few"]),
        ({"best_in_test": 1, "shared": True}, ["says nothing of other tasks"]),
        ({"best_in_test": 1, "seeds": {1: 5, 2: 0}}, ["Row 2 and the best have no seed in common"]),
        (
            {"best_in_test": 1, "tasks": {1: 3, 2: 2}},
            ["difference of row 2 is over the first 2 test tasks of each seed"],
        ),
    ],
)
def test_what_a_reader_has_to_know_is_said(run, changes, expected):
    contest = replace(CONTEST, **changes)
    rows = [replace(make_row([alter(run, [1.0, 2.0, 3.0])], {}, n), contest=contest) for n in (1, 2)]
    found = notes(rows)
    assert len(found) == len(expected)
    assert all(words in note for words, note in zip(expected, found, strict=True))


def test_rows_of_other_tasks_are_named(run):
    rows = [
        replace(make_row([alter(run, [1.0, 2.0, 3.0])], {}, n), contest=CONTEST if n < 3 else None) for n in (1, 2, 3)
    ]
    assert "chooses row 1 of 1, 2;" in notes(rows)[0]
