"""Tasks from a table: a column names the task of each row, or the classes of the target make N-way tasks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metarun.data.grouped import Grouped
from metarun.data.rows import Rows
from metarun.errors import SettingError, at_least, one_of
from metarun.tasks import Metric, Split, Task, sizes


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
        splits: Sequence[float] = (0.64, 0.16, 0.2),
        split_seed: int = 0,
    ):
        if kind is not None:
            one_of("kind", kind, ["regression", "classes"])
        roles = {"target": target} | ({} if task is None else {"task": task})
        rows = Rows(file, roles, features, drop)
        if task is None:
            if kind == "regression":
                raise SettingError(kind, "kind", "classes without data.task; give the column that names the tasks")
            raise NotImplementedError
        else:
            for name, value in {"ways": ways, "eval_ways": eval_ways}.items():
                if value is not None:
                    raise SettingError(value, name, "null with data.task: a task has all classes of the target")
            at_least(0, split_seed=split_seed)
            self.source = Grouped(
                rows, kind, sizes(shots, queries, eval_shots, eval_queries), tuple(splits), split_seed
            )

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
