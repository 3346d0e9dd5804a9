"""Rows: which runs make one, how they are told apart, compared, and judged. On lists, not run directories."""

import math
from dataclasses import replace

import pytest
from helpers.results import alter

from metarun.config.compose import compose
from metarun.results.compare import compare_runs, distinguish, judge, make_row
from metarun.storage.records import Checkpoint, Point, Published, Trained, Validation
from metarun.storage.rundir import RunDir


@pytest.mark.parametrize(
    ("mean", "ci95", "theirs", "expected"),
    [
        (0.985, 0.002, 0.004, ("inside", -0.002, True)),
        (0.9831, 0.002, 0.004, ("inside", -0.0039, True)),
        (0.982, 0.002, 0.004, ("below", -0.005, True)),
        (0.97, 0.002, 0.004, ("below", -0.017, False)),
        (0.999, 0.002, 0.004, ("above", 0.012, False)),
        (0.985, 0.003, None, ("inside", -0.002, True)),
        (0.983, 0.003, None, ("below", -0.004, False)),
    ],
)
def test_verdicts(mean, ci95, theirs, expected):
    found = judge(mean, ci95, Published(paper="X", mean=0.987, ci95=theirs))
    assert (found.where, pytest.approx(found.away), found.meet) == expected


def test_seeds_on_tasks_of_the_same_classes_average_only_what_tasks_have_of_their_own(run):
    def clustered(seed):
        new = alter(run, [1.0, 2.0], seed=seed)
        point = {"mean": 1.5, "ci95": 0.5, "unclustered": 0.3}
        test = new.summary.test.model_copy(update={**point, "by_step": [Point(**point)]})
        return replace(new, summary=new.summary.model_copy(update={"tests": {"mse": test}}))

    row = make_row([clustered(0), clustered(1)], {})
    assert row.ci95_tasks == pytest.approx(math.hypot(0.4, 0.3 / math.sqrt(2)))
    assert row.ci95_seeds == pytest.approx(0.4), "both have the same mean, on tasks of the same classes"
    assert row.curve == [(1.5, row.ci95_tasks)]


def test_seeds_are_averaged_and_their_tasks_and_their_spread_kept_apart(run):
    row = make_row([alter(run, [1.0, 2.0, 3.0]), alter(run, [2.0, 4.0, 6.0], seed=1)], {})
    assert row.mean == pytest.approx(3.0)
    assert row.ci95_tasks == pytest.approx(math.hypot(*(4.30265 * s / math.sqrt(3) for s in (1.0, 2.0))) / 2)
    assert row.ci95_seeds == pytest.approx(12.7062)
    assert make_row([alter(run, [1.0, 2.0])], {}).ci95_seeds is None


def test_validations_and_curves_are_of_all_seeds(run):
    metric, runs = "mse", []
    for seed, factor in ((0, 1.0), (1, 3.0)):
        new = alter(run, [factor, 2 * factor], seed=seed)
        points = [Point(mean=step * factor, ci95=factor) for step in (3, 2, 1)]
        test = new.summary.test.model_copy(update={"by_step": points})
        validations = {metric: Validation(mean=10 * factor)}
        summary = new.summary.model_copy(update={"tests": {metric: test}, "validations": validations})
        runs.append(replace(new, summary=summary))
    row = make_row(runs, {})
    assert row.validation == row.model_validation == pytest.approx(20.0)
    tests = [replace(run, origin=RunDir(run.rundir.path), validated=Validation(mean=7.0)) for run in runs]
    tests = [replace(t, summary=t.summary.model_copy(update={"validations": {}})) for t in tests]
    again = make_row(tests, {})
    assert (again.validation, again.model_validation) == (None, 7.0), "an evaluation has that of its run"
    assert [mean for mean, _ in row.curve] == pytest.approx([6.0, 4.0, 2.0])
    assert [ci95 for _, ci95 in row.curve] == pytest.approx([math.hypot(1.0, 3.0) / 2] * 3)
    row = replace(row, published=Published(paper="X", mean=1.0, by_step={0: 6.0, 2: 2.0, 9: 1.0}))
    assert row.by_step == {0: row.curve[0], 2: row.curve[2]}


def test_models_tested_on_the_same_tasks_are_no_more_tasks(run):
    each = [1.0, 2.0, 4.0, 9.0]
    one = make_row([alter(run, each)], {})
    same = make_row([alter(run, each, seed=seed, digest="the same") for seed in (0, 1)], {})
    own = make_row([alter(run, each, seed=seed) for seed in (0, 1)], {})
    assert same.ci95_tasks == pytest.approx(one.ci95_tasks)
    assert own.ci95_tasks == pytest.approx(one.ci95_tasks / math.sqrt(2))


def test_runs_that_differ_in_the_seed_alone_are_a_row_and_a_repetition_is_left_out(run):
    each = [1.0, 2.0, 4.0]
    same = {
        "device.threads": 1,
        "engine.mode": "loop",
        "checkpoint_every": 3,
        "algo.meta_clip": None,
        "device.tf32": None,
    }
    runs = [alter(run, each, seed=1), alter(run, each), alter(run, each, settings=same)]
    rows, repeated = compare_runs(runs)
    assert [[r.config.seed for r in row.runs] for row in rows] == [[0, 1]]
    assert ["the same configuration and seed" in folder.reason for folder in repeated] == [True]


def test_the_seed_of_a_row_is_that_of_the_model(run):
    """Two models, both evaluated on the tasks of seed 7."""
    models = [alter(run, [1.0, 2.0], seed=7, trained=alter(run, [1.0, 2.0], seed=seed).config) for seed in (0, 1)]
    rows, repeated = compare_runs(models)
    assert [len(row.runs) for row in rows] == [2]
    assert not repeated


@pytest.mark.parametrize(
    ("key", "value"), [("engine.autocast", "bfloat16"), ("device.tf32", True), ("algo.inner_lr", 0.5), ("val_tasks", 9)]
)
def test_settings_that_show_in_results_make_two_rows(run, key, value):
    rows, _ = compare_runs([alter(run, [1.0, 2.0]), alter(run, [1.0, 2.0], settings={key: value})])
    assert [row.keys.get(key) for row in rows][1] == value


def test_a_setting_as_earlier_versions_had_it_has_its_name_beside_another(run):
    rows, _ = compare_runs([alter(run, [1.0, 2.0]), alter(run, [1.0, 2.0], settings={"algo.head": "shared"})])
    assert [row.keys["algo.head"] for row in rows] == ["own", "shared"]


def made_of(run, root=None, **facts):
    """The run, made of data and code with these facts."""
    environment = run.environment.model_copy(update=facts)
    settings = {"data.root": root} if root else {}
    return alter(run, [1.0, 2.0], settings=settings, environment=environment, trained_environment=environment)


@pytest.mark.parametrize(
    ("first", "second", "cells"),
    [
        ({"data_digest": "a" * 64}, {"data_digest": "b" * 64}, [{"data digest": c * 12} for c in "ab"]),
        (
            {"data_digest": "a", "root": "/a"},
            {"data_digest": "b", "root": "/b"},
            [{"data.root": "/a"}, {"data.root": "/b"}],
        ),
        (
            {"code": {"net": "a" * 64, "x": "c"}},
            {"code": {"net": "b" * 64, "x": "c"}},
            [{"code": f"net {c * 12}"} for c in "ab"],
        ),
        ({"code": {"net": "a" * 64}}, {}, [{"code": "net aaaaaaaaaaaa"}, {"code": "net unknown"}]),
    ],
)
def test_other_data_or_code_is_another_row_that_says_which(run, first, second, cells):
    """Neither a repetition, with the same seed, nor another seed of one row; and the same data may have moved."""
    runs = [made_of(run, **first), made_of(run, **second)]
    rows, repeated = compare_runs(runs)
    assert ([row.keys for row in rows], repeated) == (cells, [])
    moved = alter(runs[0], [1.0, 2.0], seed=1, settings={"data.root": "/moved"})
    rows, _ = compare_runs([*runs, moved])
    assert [len(row.runs) for row in rows] == [2, 1]


def test_data_that_only_their_tasks_or_splits_tell_apart_is_told_apart(run):
    runs = [made_of(run, first_tasks={"test": digest}) for digest in "abc"] + [made_of(run, split_hash="d")]
    rows, _ = compare_runs(runs)
    assert len({row.keys["data digest"] for row in rows}) == len(rows) == 4


def test_an_evaluation_goes_by_the_data_of_training_too(run):
    """Two models of one config and seed, trained on other data, and tested on the same."""
    tests = [replace(made_of(run), trained_environment=made_of(run, data_digest=d).environment) for d in "ab"]
    rows, repeated = compare_runs([replace(test, origin=None) for test in tests])
    assert (len(rows), repeated) == (2, [])


def evaluation_of(run, each, *, at, tested, seed=0, step=4, digest=""):
    """A test with inner rate `tested` of a model that was trained with `at`."""
    trained = alter(run, each, seed=seed, settings={"algo.inner_lr": at}, digest=digest)
    made = alter(run, each, seed=seed, settings={"algo.inner_lr": tested}, digest=digest)
    summary = made.summary.model_copy(update={"checkpoint": Checkpoint(step=step)})
    return replace(made, trained=trained.config, summary=summary, origin=RunDir(run.rundir.path))


def test_tests_of_models_that_were_trained_otherwise_are_rows_of_their_own(run):
    tests = [evaluation_of(run, [n, 1.0], at=at, tested=0.1, seed=n) for n, at in ((0, 0.01), (1, 0.05), (2, 0.05))]
    rows, repeated = compare_runs(tests)
    assert [len(row.runs) for row in rows] == [1, 2]
    assert repeated == []
    words = [row.keys["trained with"] for row in rows]
    assert words == ["algo.inner_lr=0.01", "algo.inner_lr=0.05"]
    assert "trained with" not in compare_runs(tests[1:])[0][0].keys
    longer = alter(run, [0.0, 1.0], seed=2, settings={"algo.inner_lr": 0.05, "test_tasks": 9})
    [row], _ = compare_runs([tests[1], replace(tests[2], trained=longer.config)])
    assert len(row.runs) == 2, "how many tasks the run itself was tested on made no other model"


def test_of_the_tests_of_a_run_that_went_on_the_newest_stays(run):
    tests = [evaluation_of(run, [float(step)] * 2, at=0.01, tested=0.1, step=step) for step in (2, 4, 3)]
    [row], repeated = compare_runs(tests)
    assert row.runs[0].each == [4.0, 4.0]
    assert len(repeated) == 2


def test_data_has_no_column_where_a_setting_tells_rows_apart(run):
    runs = [made_of(run, data_digest="a"), alter(made_of(run, data_digest="b"), [1.0, 2.0], settings={"meta_batch": 3})]
    assert [list(row.keys) for row in compare_runs(runs)[0]] == [["meta_batch"], ["meta_batch"]]


def test_one_is_one_however_it_is_typed(run):
    runs = [alter(run, [1.0, 2.0], seed=seed, settings={"algo.meta_lr": rate}) for seed, rate in ((0, 1), (1, 1.0))]
    assert len(compare_runs(runs)[0]) == 1


def test_columns_are_the_keys_that_differ_under_one_name(run):
    other = run.summary.model_copy(update={"algorithm": "Reptile"})
    slow, fast = ({"algo.inner_lr": rate} for rate in (0.01, 0.02))
    reptile = alter(run, [1.0, 2.0], settings={"algo.inner_lr": 0.001, "algo.meta_lr": 0.1})
    reptile = replace(reptile, summary=other)
    runs = [alter(run, [1.0, 2.0], settings=slow), alter(run, [1.0, 2.0], settings=fast), reptile]
    assert distinguish(runs) == [
        {"algo": "MAML", "algo.inner_lr": 0.01},
        {"algo": "MAML", "algo.inner_lr": 0.02},
        {"algo": "Reptile", "algo.inner_lr": 0.001},
    ]
    typed = [
        alter(run, [1.0, 2.0], settings=slow),
        replace(reptile, typed={"algo.meta_lr": "algo.meta_lr=0.1"}),
    ]
    assert [row["algo.meta_lr"] for row in distinguish(typed)] == [0.001, 0.1], "what was typed has a column"


def test_a_test_on_other_data_has_the_names_of_both_sources(run):
    """The settings that its source has of its own are no columns, neither beside other runs nor within an experiment."""
    tabular = compose(["data=tabular", "data.shots=3"])
    trained = Trained(source=run.summary.source, other_data=True)
    source = run.summary.source.model_copy(update={"name": "tabular", "shots": 3})
    summary = run.summary.model_copy(update={"source": source, "trained": trained})
    origin, config = RunDir(run.rundir.path), replace(run.config, data=tabular.data, test_tasks=9)
    other = replace(run, config=config, summary=summary, origin=origin)
    words = {"eval": "on tabular data.shots=3", "trained on": "sinusoid"}
    assert other.changes == {"data": "tabular", "data.shots": 3, "test_tasks": 9}
    assert distinguish([other]) == [{**words, "eval": "on tabular data.shots=3 test_tasks=9"}]
    assert distinguish([run, other])[1] == {"data": "Tabular", "test_tasks": 9, **words}
    named = [replace(each, experiment="x/one", typed={}) for each in (run, other)]
    assert distinguish(named)[1] == {"experiment": "x/one", "test_tasks": 9, **words}
    assert named[1].published is None


def test_experiments_are_told_apart_by_name_then_by_what_differs_under_it(run):
    named = [alter(run, [1.0, 2.0], experiment=name) for name in ("x/one", "x/two")]
    assert distinguish(named) == [{"experiment": "x/one"}, {"experiment": "x/two"}]
    runs = [
        alter(run, [1.0, 2.0], experiment="x/one", settings={"algo.inner_loss_reduction": name})
        for name in ("mean", "per_shot")
    ]
    assert [row["algo.inner_loss_reduction"] for row in distinguish(runs)] == ["mean", "per_shot"]
    short = alter(run, [1.0, 2.0], experiment="x/one", settings={"budget": 0.5})
    assert distinguish([short]) == [{"experiment": "x/one", "budget": 0.5}]


def test_what_was_typed_beside_an_experiment_is_said(run):
    typed = {"algo.inner_lr": "algo.inner_lr=0.3", "algo.meta_lr": "algo.meta_lr=0.1"}
    other = alter(
        run, [1.0, 2.0], experiment="x/one", typed=typed, settings={"algo.inner_lr": 0.3, "algo.meta_lr": 0.1}
    )
    assert distinguish([other])[0]["changed"] == "algo.inner_lr=0.3 algo.meta_lr=0.1"
    same = alter(run, [1.0, 2.0], experiment="x/one", settings={"algo.meta_lr": 0.1})
    assert distinguish([other, same]) == [
        {"experiment": "x/one", "algo.inner_lr": 0.3, "changed": "algo.meta_lr=0.1"},
        {"experiment": "x/one", "algo.inner_lr": 0.01},
    ]


def test_metrics_are_compared_among_themselves(run):
    runs = [alter(run, [0.1, 0.2], metric="accuracy", settings={"algo.inner_lr": rate}) for rate in (0.1, 0.2)]
    rows, _ = compare_runs([*runs, alter(run, [1.0, 2.0], settings={"meta_batch": 3})])
    assert [(row.metric, row.keys) for row in rows] == [
        ("accuracy", {"algo.inner_lr": 0.1}), ("accuracy", {"algo.inner_lr": 0.2}), ("mse", {}),
    ]  # fmt: skip


def test_an_experiment_as_it_is_is_judged_with_its_steps(run):
    found = alter(run, [0.3, 0.4], experiment="finn2017/sinusoid_5shot")
    row = make_row([found], {})
    assert row.published == Published(
        paper="Finn et al. 2017, table 2", mean=0.35, by_step={1: 0.67, 5: 0.38, 10: 0.35}
    )
    assert row.verdict.where == "inside"
    assert list(row.by_step) == [1], "the run has two inner steps"
    changed = make_row(
        [alter(run, [0.3, 0.4], experiment="finn2017/sinusoid_5shot", typed={"algo.meta_lr": "..."})], {}
    )
    assert changed.published is changed.verdict is None
