"""What was varied, as pictures: which rows make a curve, and over what."""

import shutil
from dataclasses import replace

import pytest
from helpers.results import alter

from metarun.results import swept
from metarun.results.compare import make_row
from metarun.results.entries import Entry
from metarun.storage.rundir import RunDir


def _entries(*rows):
    return [Entry(replace(row, number=n + 1), f"row {n}", f"row {n}", n, []) for n, row in enumerate(rows)]


def _only(section):
    ((picture, caption),) = section.pictures
    return picture.alt, " ".join(caption)


def test_a_key_with_three_numbers_is_swept(run):
    rows = [
        replace(make_row([alter(run, [v, v + 2])], {"algo.inner_lr": rate}), validation=v)
        for v, rate in ((1.0, 0.1), (2.0, 0.2), (3.0, 0.4))
    ]
    alt, caption = _only(swept.show_swept("mse", _entries(*rows)))
    points = "validation, all: 0.1: 1, 0.2: 2, 0.4: 3; test, all: 0.1: 2, 0.2: 3, 0.4: 4"
    assert alt == f"By algo.inner_lr: {points}"
    assert "Choose by validation" in caption
    tests = [replace(row, validation=None) for row in rows]
    assert _only(swept.show_swept("mse", _entries(*tests)))[0].startswith("By algo.inner_lr: test, ")
    assert not swept.show_swept("mse", _entries(*rows[:2])).pictures


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"data.shots": 3}, "1 MAML: 3 shots: 7, 10 shots: 2"),
        ({"data.shots": 3, "test_tasks": 9}, None),
        ({"seed": 3}, None),
    ],
)
def test_evaluations_with_other_shots_make_a_curve(run, monkeypatch, tmp_path, settings, expected):
    shutil.copytree(run.rundir.path, tmp_path / "run")
    (tmp_path / "run/eval").mkdir()
    origin = RunDir(tmp_path / "run")
    trained = alter(run, [1.0, 3.0], rundir=origin, origin=origin)
    other = replace(alter(run, [6.0, 8.0], settings=settings), trained=trained.config, origin=origin)
    monkeypatch.setattr(swept, "read_runs", lambda paths: ([other], []))
    section = swept.show_shots("mse", _entries(make_row([trained], {})))
    assert [picture.alt for picture, _ in section.pictures] == ([f"Results by shots: {expected}"] if expected else [])
    monkeypatch.setattr(swept, "read_runs", lambda paths: ([replace(other, outdated=True)], []))
    assert not swept.show_shots("mse", _entries(make_row([trained], {}))).pictures, "it is of another model"


def test_rows_that_differ_in_shots_make_a_line_for_each_algorithm(run):
    rows = [
        make_row(
            [alter(run, [mean, mean + 2], settings={"data.eval_shots": shots})],
            {"algo": algo, "data.eval_shots": shots},
        )
        for algo, mean in (("MAML", 2.0), ("Reptile", 4.0))
        for shots in (1, 5)
    ]
    alt, caption = _only(swept.show_shots("mse", _entries(*rows)))
    assert alt == "Results by shots: MAML: 1 shots: 3, 5 shots: 3; Reptile: 1 shots: 5, 5 shots: 5"
    assert "Less is better" in caption


def test_tests_of_models_that_were_trained_with_other_shots_are_no_line(run, monkeypatch):
    drawn = []
    monkeypatch.setattr(swept, "draw_lines", lambda *facts: drawn.extend(facts[4][""]) or [])
    rows = []
    for own, means in ((1, {1: 2.0, 5: 4.0}), (10, {5: 9.0, 10: 3.0})):
        trained = alter(run, [0.0, 0.0], settings={"data.shots": own, "data.eval_shots": None}).config
        for shots, mean in means.items():
            settings = {"data.shots": own, "data.eval_shots": None if shots == own else shots}
            test = replace(alter(run, [mean - 1, mean + 1], settings=settings), trained=trained)
            test = test if shots == own else replace(test, origin=RunDir(run.rundir.path))
            rows.append(make_row([test], {"data.shots": own, "data.eval_shots": shots}))
    swept.show_shots("mse", _entries(*rows))
    assert [[(shots, mean) for shots, mean, _ in line.points] for line in drawn] == [
        [(1, 2.0), (5, 4.0)],
        [(5, 9.0), (10, 3.0)],
    ]


def test_curves_over_shots_have_the_numbers_and_colours_of_their_rows(run, monkeypatch):
    """Row 3 is an evaluation of row 2, and row 1 has none; what tells no rows apart is no part of a name."""
    drawn = []
    monkeypatch.setattr(swept, "draw_lines", lambda *facts: drawn.extend(facts[4][""]) or [])
    hidden = list(range(100, 112))
    rows = [
        make_row([alter(run, [2.0, 4.0])], {"algo.inner_lr": rate, "model.hidden": hidden, "data.eval_shots": 10})
        for rate in (0.1, 0.2)
    ]
    test = replace(alter(run, [6.0, 8.0], settings={"data.eval_shots": 3}), trained=rows[1].runs[0].config)
    test = replace(test, origin=RunDir(run.rundir.path))
    rows.append(make_row([test], rows[1].keys | {"data.eval_shots": 3}))
    swept.show_shots("mse", _entries(*rows))
    (line,) = drawn
    assert (line.name, line.number) == ("2 inner_lr 0.2", 1)
    assert [(shots, mean) for shots, mean, _ in line.points] == [(3, 7.0), (10, 3.0)]
