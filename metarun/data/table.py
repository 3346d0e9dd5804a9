"""Tasks from a table: a column names the task of each row, or the classes of the target make N-way tasks."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from metarun.data.classes import ClassSource
from metarun.data.columns import Columns
from metarun.data.frames import labels, numbers
from metarun.data.grouped import Grouped
from metarun.data.rows import Rows
from metarun.data.splitting import FRACTIONS, check_splitting, split_names
from metarun.errors import DataError, SettingError, one_of
from metarun.tasks import Metric, Split, Task, sizes

if TYPE_CHECKING:
    from pandas import Series

log = logging.getLogger("metarun")


class TargetClasses(ClassSource):
    """N-way tasks over the classes of a table's target, whose examples are rows [F].

    Args:
        rows: of the table, with the role target.
        settings: see ClassSource.
    """

    name = "table"

    def __init__(self, rows: Rows, **settings: Any):
        super().__init__(**settings)
        self.rows = rows

    @cached_property
    def _labels(self) -> "Series":
        """The class of each row, in words."""
        return labels(self.rows.frame[self.rows.roles["target"]])

    def class_splits(self) -> Mapping[Split, Sequence[str]]:
        """See ClassSource."""
        return split_names(self._labels.unique(), self.splits, self.split_seed)

    @cached_property
    def columns(self) -> Columns:
        """The preprocessing of the inputs, by the rows of all training classes."""
        return Columns.fit(self.rows.frame.loc[self._labels.isin(self.classes("train")), self.rows.inputs])

    @property
    def input_shape(self) -> tuple[int]:
        """(F,)."""
        return (len(self.columns.features),)

    def load(self) -> dict[str, np.ndarray]:
        """See ClassSource."""
        x = self.columns.transform(self.rows.frame)
        places = self._labels.reset_index(drop=True).groupby(self._labels.to_numpy()).indices
        return {name: x[rows] for name, rows in places.items()}

    def prepare(self, device: torch.device) -> None:
        """See TaskSource."""
        super().prepare(device)
        log.info("table: %s%s", self.columns.describe(), self.rows.note)

    def details(self) -> dict[str, Any]:
        """See ClassSource."""
        return {**super().details(), "target": self.rows.roles["target"], "inputs": len(self.columns.features)}

    def explain_size(self, split: Split) -> str:
        """See ClassSource; and what a target of numbers is for."""
        why, target = super().explain_size(split), self.rows.roles["target"]
        found = None
        with suppress(DataError):  # of words among numbers
            found = numbers(self.rows.frame[target]) if why else None
        if found is None or not (found % 1 > 0).any():
            return why
        return f"{why}; {target} is of numbers: to predict them, give the column that names the tasks (data.task)"

    def identity(self) -> dict[str, str]:
        """See TaskSource."""
        return super().identity() | {"data_digest": self.rows.digest}

    def preprocessing(self) -> dict[str, Any]:
        """What is done with new rows, as plain data: the inputs' columns, and the target's name."""
        return {"kind": "table", **self.columns.to_dict(), "target": {"name": self.rows.roles["target"]}}


class Table:
    """Tasks from the rows of a CSV, TSV, Parquet or .npz file.

    Args:
        file: the table.
        target: the column to predict.
        task: the column that names the task of each row; None: a task is `ways` classes of the target.
        kind: `regression`, or `classes`; None: with `task` regression where the target is of numbers, else classes.
        features: the columns that are inputs; None: all others.
        drop: columns that are no inputs.
        ways: N; None: 5, and with `task` all classes of the target.
        shots: K, support rows of each class; in regression of a task.
        queries: Q, query rows of each class; in regression of a task. None: as many as shots.
        eval_shots: K in validation and test; None: as in training.
        eval_queries: Q in validation and test; None: as in training.
        eval_ways: N in validation and test; None: as in training.
        splits: shares of the tasks' names, or of the classes, in train, val and test.
        split_seed: shuffles the sorted names before they are split.
    """

    def __init__(
        self,
        file: str | None = None,
        target: str | None = None,
        task: str | None = None,
        kind: str | None = None,
        features: Sequence[str] | None = None,
        drop: Sequence[str] | None = None,
        ways: int | None = None,
        shots: int = 5,
        queries: int | None = 10,
        eval_shots: int | None = None,
        eval_queries: int | None = None,
        eval_ways: int | None = None,
        splits: Sequence[float] = FRACTIONS,
        split_seed: int = 0,
    ):
        if kind is not None:
            one_of("kind", kind, ["regression", "classes"])
        roles = {"target": target} | ({} if task is None else {"task": task})
        rows = Rows(file, roles, features, drop)
        if task is None:
            if kind == "regression":
                raise SettingError(kind, "kind", "classes without data.task; give the column that names the tasks")
            numbers = (5 if ways is None else ways, shots, queries, eval_shots, eval_queries, eval_ways)
            names = ("ways", "shots", "queries", "eval_shots", "eval_queries", "eval_ways")
            settings = dict(zip(names, numbers, strict=True))
            self.source = TargetClasses(rows, **settings, splits=splits, split_seed=split_seed)
            return
        for name, value in {"ways": ways, "eval_ways": eval_ways}.items():
            if value is not None:
                raise SettingError(value, name, "null with data.task: a task has all classes of the target")
        check_splitting(splits, split_seed)
        self.source = Grouped(rows, kind, sizes(shots, queries, eval_shots, eval_queries), tuple(splits), split_seed)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """See TaskSource."""
        return self.source.input_shape

    @property
    def outputs(self) -> int:
        """See TaskSource."""
        return self.source.outputs

    @property
    def metric(self) -> Metric:
        """See TaskSource."""
        return self.source.metric

    @property
    def split_sizes(self) -> dict[Split, int]:
        """Classes of each split, where tasks are made of them; see TaskSource."""
        return getattr(self.source, "split_sizes", {})

    def explain_size(self, split: Split) -> str:
        """See ClassSource."""
        return self.source.explain_size(split) if isinstance(self.source, TargetClasses) else ""

    @property
    def train_classes(self) -> int:
        """See TaskSource; of tasks by a column there are none."""
        return self.source.train_classes  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def clustered_by(self) -> str:
        """What tasks share, see clusters()."""
        return self.source.clustered_by

    def prepare(self, device: torch.device) -> None:
        """See TaskSource."""
        self.source.prepare(device)

    def sample(self, seed: int, split: Split, index: Tensor) -> Task:
        """See TaskSource."""
        return self.source.sample(seed, split, index)

    def clusters(self, seed: int, split: Split, index: Tensor) -> Tensor:
        """See TaskSource: the classes of each task [T, N], or the value of `task` that it comes from [T, 1]."""
        return self.source.clusters(seed, split, index)

    def identity(self) -> dict[str, str]:
        """See TaskSource."""
        return self.source.identity()

    def facts(self) -> dict[str, Any]:
        """See TaskSource."""
        return self.source.facts()

    def preprocessing(self) -> dict[str, Any]:
        """What is done with new rows before a learner sees them, as plain data for JSON."""
        return self.source.preprocessing()
