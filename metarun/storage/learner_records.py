"""The records of a learner that was taken out of its run: the header of its file, and what it answers."""

from typing import Any

from pydantic import Field

from metarun.storage.records import Count, Metric, Record, Summary


class Task(Record):
    """The task that an exported learner has learned; its support examples lie beside the weights."""

    classes: list[str | int | float | bool] | None = None  # the user's own labels, in order; None in regression
    inner_steps: Count | None = None  # None: as in the run's own test
    together: bool = False
    columns: list[str] | None = None  # the names of those that X had, in order; None where it was no frame of rows


class Exported(Record):
    """The header of an exported learner: all of a run that answers depend on, but for its tensors."""

    version: int
    name: str  # of the run
    config: dict[str, Any]  # without places of the machine that it ran on
    inputs: dict[str, Any]
    outputs: Count
    metric: Metric
    frozen: str = ""  # digest of the weights that the learner's class brings, see models.adopt.frozen_digest()
    step: Count = 0  # of the checkpoint
    split_hash: str = ""
    data_digest: str | None = None
    code: dict[str, str] = Field(default={})  # of the user's modules that it was trained with: SHA-256 of each
    summary: Summary | None = None
    task: Task | None = None


class Judged(Record):
    """How right the answers to queries are: the mean over those whose truth is known, for one support set."""

    metric: Metric
    queries: Count
    mean: float  # accuracy as a share of 1; squared error in the user's units, averaged over outputs
    ci95: float | None = None  # half the width of its 95% interval over queries; None of one query
    r2: float | None = None  # of regression: 1 - squared error / variance of the truth; None where that is 0


class Answer(Record):
    """What a query is taken for."""

    name: str  # its file, or the number of its row
    prediction: str | float | list[float]  # the class; or the value in the user's units, of several outputs all
    probabilities: list[float] | None = None  # of each class, in the order of `classes`
    truth: str | float | list[float] | None = None  # None where it is not known


class Adapted(Record):
    """What `metarun adapt format=json` prints."""

    learner: str  # the run, or the file
    metric: Metric
    classes: list[str] | None = None  # in the learner's order; None in regression
    support: Count  # how many examples were learned from
    inner_steps: Count
    together: bool
    judged: Judged | None = None  # None where no truth is known
    files: list[str] = Field(default=[])
    answers: list[Answer]
