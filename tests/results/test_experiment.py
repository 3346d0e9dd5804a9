"""What rows have in common, and how they are told apart."""

import json
import subprocess
from dataclasses import replace

import pytest
from helpers.results import alter

from metarun.results import experiment
from metarun.results.compare import make_row
from metarun.storage.rundir import RunDir


def rows(run, *keys, **facts):
    """Rows with these keys; facts of their summaries are lists, with a value for each row."""
    found = []
    for n, own in enumerate(keys):
        one = alter(run, [1.0, 2.0])
        changes = {name: values[n] for name, values in facts.items()}
        found.append(make_row([replace(one, summary=one.summary.model_copy(update=changes))], own, n + 1))
    return found


def test_a_title_is_what_all_rows_have_in_common(run):
    length, source = run.summary.training, run.summary.source
    longer = length.model_copy(update={"outer_steps": 40, "steps": 40})
    names = ["A", "B", "A"]
    found = experiment.title(rows(run, {}, {}, {}, algorithm=names, training=[length, longer, length]))
    assert found == "A and B on sinusoid 10-shot regression (queries: 10), 4 to 40 outer steps"
    images = source.model_copy(update={"name": "omniglot", "ways": 5})
    more = [images, images.model_copy(update={"shots": 1}), images.model_copy(update={"name": "letters"})]
    found = experiment.title(rows(run, {}, {}, {}, source=more))
    assert found == "MAML on omniglot and letters 5-way, 4 outer steps of 25 tasks"
    many = experiment.title(rows(run, *[{}] * 5, algorithm=list("ABCDE")))
    assert many.startswith("5 algorithms on sinusoid")


def test_settings_that_all_rows_have_are_common(run):
    found = experiment.common_settings(rows(run, {}, {}, parameters=[7, 8]))
    assert "inner loop" in found
    assert "learner" not in found
    assert "checkpoint" not in found


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a/seed=0", "a/seed=1", "a/seed=2"], "a/seed={0,1,2}"),
        (["s=9/x", "s=10/x", "s=11/x"], "s={9,10,11}/x"),
        (["one"], "one"),
        ([f"{n}{'x' * 50}{n}" for n in range(3)], f"0{'x' * 50}0 and 2 more"),
    ],
)
def test_folders_are_spelled_as_a_shell_reads_them(run, tmp_path, names, expected):
    runs = [alter(run, [1.0, 2.0], seed=seed, rundir=RunDir(tmp_path / "in" / name)) for seed, name in enumerate(names)]
    other = make_row([alter(run, [1.0, 2.0], rundir=RunDir(tmp_path / "in" / "other"))], {})
    above, (found, _) = experiment.folders([make_row(runs, {}), other])
    assert (above, found) == ("in", expected)
    if "{" in found:
        words = subprocess.run(["bash", "-c", f"echo {found}"], capture_output=True, text=True).stdout.split()
        assert words == names


def test_names_begin_with_what_is_most_telling(run):
    keys = [{"meta_batch": 1 + n // 2, "algo.inner_lr": 0.123456 + n, "algo": "MAML"} for n in range(4)]
    found = rows(run, *keys, {"algo": "Reptile", "meta_batch": 1})
    assert experiment.keys_of(found) == ["algo", "algo.inner_lr", "meta_batch"]
    assert experiment.name_rows(found)[::4] == ["MAML, inner_lr 0.1235, meta_batch 1", "Reptile, meta_batch 1"]
    assert experiment.name_rows(rows(run, {"algo": "MAML"})) == ["MAML"]
    assert experiment.name_rows(rows(run, {"experiment": "x/one", "budget": 1}, {"experiment": "x/two"})) == [
        "x/one",
        "x/two",
    ]


@pytest.mark.parametrize(("metric", "expected"), [("mse", [1, 3]), ("accuracy", [2, 3])])
def test_of_many_rows_the_best_by_validation_are_drawn(run, metric, expected):
    found = [
        replace(make_row([alter(run, [0.1, 0.2], metric=metric)], {}, n + 1), model_validation=value)
        for n, value in enumerate((0.1, 0.9, 0.4, None))
    ]
    assert [row.number for row in experiment.best_by_validation(found, 2)] == expected


def test_runs_of_rows_are_spelled(run):
    assert experiment.spell_rows([1, 2, 4, 6, 7, 8]) == "1, 2, 4, 6 to 8"
    assert json.dumps(experiment.spell_value(True)) == '"true"'
