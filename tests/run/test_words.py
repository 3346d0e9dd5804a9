"""Facts of a summary in words."""

import pytest

from metarun.run import words
from metarun.storage.records import (
    Checkpoint,
    Clusters,
    Inner,
    Learner,
    Point,
    Source,
    Summary,
    Trained,
    Training,
    Validation,
)
from metarun.storage.records import Test as Result

SIZES = {"shots": 1, "queries": 2, "train_shots": 1, "train_queries": 2}
INNER = Inner(rule="SGD", lr=0.4, steps=1, eval_steps=3)


def _summary(**changes):
    point = Point(mean=0.5, ci95=0.1)
    facts = {
        "algorithm": "MAML",
        "source": Source(name="omniglot", ways=5, **SIZES),
        "learner": Learner(name="Conv4", form="stride 2", norm="transductive"),
        "inner": INNER,
        "training": Training(steps=60, outer_steps=60, meta_batch=32, meta_steps=600, budget=0.1),
        "checkpoint": Checkpoint(step=40),
        "details": {"meta_gradient": "second order"},
        "parameters": 1234,
        "metric": "accuracy",
        "tests": {"accuracy": Result(mean=0.5, ci95=0.1, tasks=9, by_step=[point] * 2)},
        "validations": {"accuracy": Validation(mean=0.75, step=40)},
    }
    return Summary.model_construct(**(facts | changes))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Source(name="omniglot", ways=5, **SIZES), "omniglot 5-way 1-shot (queries: 2)"),
        (Source(name="sinusoid", **SIZES), "sinusoid 1-shot regression (queries: 2)"),
        (
            Source(name="omniglot", ways=5, **(SIZES | {"train_shots": 3}), more={"rotations": "all", "a_b": 2}),
            "omniglot 5-way 1-shot (queries: 2, trained with shots: 3, queries: 2, rotations: all, a b: 2)",
        ),
        (
            Source(name="omniglot", ways=5, train_ways=60, train_tasks=40, **SIZES),
            "omniglot 5-way 1-shot (queries: 2, trained with ways: 60, tasks: 40)",
        ),
    ],
)
def test_a_task_source(source, expected):
    assert words.describe_source(source) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "SGD, rate 0.4, steps: 1 in training, 3 in test"),
        ({"steps": 0, "eval_steps": 0}, "none"),
        ({"lr": None}, "SGD, steps: 1 in training, 3 in test"),
        ({"rule": "learned rates"}, "learned rates, from 0.4, steps: 1 in training, 3 in test"),
        (
            {"reduction": "per_shot", "lr_on_mean": 2.0},
            "SGD, rate 0.4 per shot, that is 2 on the mean support loss, steps: 1 in training, 3 in test",
        ),
    ],
)
def test_an_inner_loop(changes, expected):
    assert words.describe_inner(INNER.model_copy(update=changes)) == expected


def test_the_title_says_how_much_of_the_schedule_was_run():
    end = "outer steps of 32 tasks (budget 0.1 of 600)"
    assert words.title(_summary()) == f"MAML on omniglot 5-way 1-shot (queries: 2), 60 {end}"
    short = _summary().training.model_copy(update={"steps": 20})
    assert words.title(_summary(training=short)).endswith(f"20 of 60 {end}")
    whole = Training(steps=60, outer_steps=60, meta_batch=32, meta_steps=60, budget=1.0)
    assert words.title(_summary(training=whole)).endswith(", 60 outer steps of 32 tasks")
    one = whole.model_copy(update={"steps": 1, "outer_steps": 1, "meta_batch": 1})
    assert words.title(_summary(training=one)).endswith(", 1 outer step of 1 task")
    floor = one.model_copy(update={"trains": False})
    assert words.title(_summary(training=floor)).endswith("(queries: 2), without meta-training")


def test_settings_are_what_a_reader_has_to_know():
    assert words.settings(_summary()) == {
        "learner": "Conv4 with stride 2, 1,234 meta-parameters",
        "inner loop": "SGD, rate 0.4, steps: 1 in training, 3 in test",
        "meta-gradient": "second order",
        "batch norm": "transductive statistics",
        "checkpoint": "outer step 40 of 60, best by validation: accuracy 75.0 %",
    }


def test_an_evaluation_says_how_its_run_was_trained():
    details = {"meta_gradient": "first order"}
    trained = Trained(source=Source(name="omniglot", ways=20, **SIZES), details=details, norm="support")
    found = words.settings(_summary(trained=trained, checkpoint=Checkpoint(step=40, run="runs/x"), validations={}))
    assert found["trained on"] == "omniglot 20-way 1-shot (queries: 2)"
    assert found["trained with"] == "meta-gradient first order; support statistics in batch norm"
    assert found["checkpoint"] == "outer step 40 of runs/x"
    other = trained.model_copy(update={"other_data": True, "source": Source(name="digits", ways=5, **SIZES)})
    begin = "MAML on omniglot 5-way 1-shot (queries: 2), trained on digits for 60 outer steps of 32 tasks"
    assert words.title(_summary(trained=other)).startswith(begin)


def test_an_older_summary_has_its_own_words():
    old = _summary(
        source=None,
        learner=None,
        training=None,
        title="MAML on x (queries: 2), 9 outer steps",
        settings={"learner": "MLP"},
    )
    assert words.title(old) == "MAML on x (queries: 2), 9 outer steps"
    assert words.name_of(old) == "MAML on x (queries: 2)"
    assert words.settings(old) == {"learner": "MLP"}


@pytest.mark.parametrize(
    ("kind", "number", "in_task", "expected"),
    [
        ("classes", 423, 5, "423 classes, 5 in each task"),
        ("tables", 40, 1, "40 tables"),
        ("classes", 3, 3, "3 classes, in every task: the interval says nothing of other classes"),
        ("tables", 1, 1, "1 table, in every task: the interval says nothing of other tables"),
    ],
)
def test_what_stands_behind_a_test(kind, number, in_task, expected):
    clusters = Clusters(kind=kind, number=number, in_task=in_task)
    test = Result(mean=0.5, ci95=0.1, tasks=9, by_step=[Point(mean=0.5, ci95=0.1)], clusters=clusters)
    lines = words.closing_words(_summary(tests={"accuracy": test}), {}).splitlines()
    assert lines[3] == f"independent   {expected}"


def test_closing_words():
    lines = words.closing_words(_summary(), {"files": "outputs/x"}).splitlines()
    assert lines[2] == "test          accuracy 50 ± 10 % (mean and 95% interval over 9 tasks)"
    assert lines[3] == "by step       0: 50.0 %  1: 50.0 % (after that many inner steps)"
    assert lines[-1] == "files         outputs/x"
