"""Evaluations of one command, listed: as a small table for people, as JSON for programs."""

import json
from collections.abc import Sequence
from typing import Any, Literal

from metarun.storage.records import Checkpoint, Metric, Record, Source, Summary, Test
from metarun.text import format_metric, spell_plain


class Evaluated(Record):
    """One of several evaluations."""

    run: str  # its directory, as typed
    settings: dict[str, Any]  # by dotted key, as they were typed for it
    status: Literal["done", "made_before", "failed"]
    error: str | None = None  # of one that failed, which has none of what follows
    folder: str | None = None  # of its files
    metric: Metric | None = None
    test: Test | None = None  # as in summary.json: mean, ci95 and by_step, accuracies as shares of 1
    source: Source | None = None  # of the test tasks: name, ways, shots, queries
    checkpoint: Checkpoint | None = None  # that was tested

    def with_result(self, summary: Summary, folder: str) -> "Evaluated":
        """The same with its result."""
        facts = {name: getattr(summary, name) for name in ("metric", "test", "source", "checkpoint")}
        return self.model_copy(update={**facts, "folder": folder})


class Evaluations(Record):
    """What `metarun eval format=json` prints."""

    evaluations: list[Evaluated]  # in the order in which they were made


def as_json(evaluations: Sequence[Evaluated]) -> str:
    """All of them as one JSON object."""
    return json.dumps(Evaluations(evaluations=list(evaluations)).plain(), indent=2, allow_nan=False)


def as_text(evaluations: Sequence[Evaluated]) -> str:
    """A line for each evaluation: the run, where there are several; the settings that differ; the result; the files."""
    keys = list(dict.fromkeys(key for evaluation in evaluations for key in evaluation.settings))
    values = {key: [spell_plain(evaluation.settings.get(key, "")) for evaluation in evaluations] for key in keys}
    columns = {key: cells for key, cells in values.items() if len(set(cells)) > 1}
    if len({evaluation.run for evaluation in evaluations}) > 1 or not columns:
        columns = {"run": [evaluation.run for evaluation in evaluations], **columns}
    columns["test"] = [describe_result(evaluation) for evaluation in evaluations]
    columns["files"] = [evaluation.folder or "" for evaluation in evaluations]
    widths = [max(map(len, [name, *cells])) for name, cells in columns.items()]
    lines = (columns, *zip(*columns.values(), strict=True))
    aligned = ("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in aligned)


def describe_result(evaluation: Evaluated) -> str:
    """The result in words, or why there is none."""
    if evaluation.metric is None or evaluation.test is None:
        return f"failed: {evaluation.error}"
    before = " (made before)" if evaluation.status == "made_before" else ""
    mean, ci95 = evaluation.test.mean, evaluation.test.ci95
    return f"{evaluation.metric} {format_metric(evaluation.metric, mean, ci95)}{before}"
