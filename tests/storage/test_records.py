"""Each record writes what it reads, refuses what is not one, and reads the files of earlier versions."""

import json
import math

import pytest

from metarun.run import words
from metarun.storage import records
from metarun.storage.records import Environment, Inner, Manifest, Point, Source, Status, Summary, Tasks, Training

POINTS = [{"mean": 2.0, "ci95": 0.3}, {"mean": 1.5, "ci95": 0.2}]
OLD_SUMMARY = {  # as written before there were facts
    "title": "MAML on sinusoid 10-shot regression (queries: 10), 100 outer steps of 25 tasks",
    "algorithm": "MAML",
    "metric": "mse",
    "test": {"mse": {**POINTS[-1], "tasks": 40, "by_step": POINTS}},
    "meta_steps": 100,
    "budget": 1.0,
    "published": None,
    "parameters": 1761,
    "settings": {"learner": "MLP, 1,761 meta-parameters", "checkpoint": "outer step 50 of 100"},
    "val": {"mse": {"mean": 1.4, "step": 50, "tasks": 20}},
    "objective": 1.4,
    "wall_seconds": 0.7,
}
NEW_SUMMARY = Summary(
    choices={"algo": "maml"},
    algorithm="MAML",
    source=Source(name="sinusoid", shots=10, queries=10, train_shots=10, train_queries=10),
    inner=Inner(rule="SGD", lr=0.01, steps=1, eval_steps=1),
    training=Training(steps=100, outer_steps=100, meta_batch=25, meta_steps=100, budget=1.0),
    metric="mse",
    tests={"mse": records.Test(mean=1.5, ci95=0.2, tasks=40, by_step=[Point(**point) for point in POINTS])},
)


def test_an_old_summary_is_read():
    old = Summary.from_json(json.dumps(OLD_SUMMARY))
    assert (old.test.mean, old.test.tasks, old.test.by_step[0].ci95) == (1.5, 40, 0.3)
    assert (old.validation.mean, old.validation.step) == (1.4, 50)
    assert (old.steps, old.objective, old.parameters) == (100, 1.4, 1761)
    assert words.title(old) == OLD_SUMMARY["title"]
    assert words.settings(old) == OLD_SUMMARY["settings"]


@pytest.mark.parametrize(
    "record",
    [
        NEW_SUMMARY,
        Status(status="done", step=3, pid=4, host="here"),
        Tasks(metric="mse", digest="d", inner_steps=1, each=[1.0, 2.5, 1 / 3]),
        Tasks(digest="d", each=[1.0, 0.5], clusters=[[3, 1], [0, 3]]),
        Environment(versions={"torch": "2", "ray": None}, threads=2, chunk=3, eval_chunk=4),
        Manifest(step=2, bytes=3, sha256="s"),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_record_reads_what_it_writes(record):
    content = record.to_json()
    json.loads(content, parse_constant=pytest.fail)
    again = type(record).from_json(content)
    assert again.plain() == record.plain()
    assert again.to_json() == content


def _with(path, value):
    """An old summary with another value at a path; ... removes it."""
    changed = json.loads(json.dumps(OLD_SUMMARY))
    node = changed
    *parents, last = path
    for key in parents:
        node = node[key]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return json.dumps(changed)


@pytest.mark.parametrize(
    ("record", "content"),
    [
        (Summary, _with(["test"], [])),
        (Summary, _with(["test", "mse", "by_step"], [])),
        (Summary, _with(["test", "mse", "mean"], "1.5")),
        (Summary, _with(["test", "mse", "mean"], math.inf)),
        (Summary, _with(["test", "mse", "tasks"], 2.5)),
        (Summary, _with(["test", "mse", "tasks"], -1)),
        (Summary, _with(["test", "mse", "tasks"], True)),
        (Summary, _with(["metric"], "accuracy")),
        (Summary, _with(["metric"], "f1")),
        (Summary, _with(["title"], ...)),
        (Summary, _with(["settings"], {"learner": 3})),
        (Summary, _with(["objective"], math.nan)),
        (Summary, '{"objective": ' + "9" * 5000 + "}"),
        (Summary, "[]"),
        (Summary, "{}"),
        (Summary, ""),
        (Summary, "{"),
        (Status, "[" * 200_000),
        (Status, '{"status": "asleep"}'),
        (Status, '{"status": "done", "step": "3"}'),
        (Environment, '{"versions": "x"}'),
        (Environment, '{"continued": [{"changed": 3}]}'),
        (Environment, '{"continued": {}}'),
        (Environment, '{"chunk": "auto"}'),
        (Tasks, '{"digest": "d", "each": [1, "2"]}'),
        (Tasks, '{"digest": "d", "each": [NaN]}'),
        (Tasks, '{"digest": 3, "each": []}'),
        (Manifest, '{"step": 1, "bytes": 3}'),
        (Manifest, b"\xff\xfe"),
    ],
)
def test_what_is_no_such_record_is_refused_in_one_line(record, content):
    with pytest.raises(ValueError, match=r"\S") as refused:
        record.from_json(content)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_a_summary_needs_facts_or_words():
    with pytest.raises(ValueError, match="neither facts nor a title"):
        NEW_SUMMARY.model_validate(NEW_SUMMARY.model_dump() | {"source": None})
