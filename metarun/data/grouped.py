"""Tasks that a column of a table names: the rows of a school, a patient, an assay.

    support, query  =  distinct rows of a task; in classification K and Q of each class, in regression K and Q in all

The values of the column are split, never the rows of a task. In regression targets have mean 0 and variance 1 in the
training tasks, so that a mean squared error is a share of that variance.

T tasks, V values of the column, C classes (in regression 1), K shots, Q queries, n rows, F features.
"""

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from metarun import seeds
from metarun.data.columns import Columns
from metarun.data.frames import labels, numbers
from metarun.data.rows import Rows
from metarun.data.splitting import hash_splits, split_names
from metarun.errors import DataError
from metarun.tasks import SPLITS, Metric, Sizes, Split, Task, keys
from metarun.text import count_of

if TYPE_CHECKING:
    from pandas import Series

Kind = Literal["regression", "classes"]
MANY = 20  # classes of a target, from which it may be one of numbers

log = logging.getLogger("metarun")


class Grouped:
    """A task is the rows that share a value.

    Args:
        rows: of the table, with the roles target and task.
        kind: regression or classes; None: by the target, whose numbers are regressed and whose words are classes.
        sizes: K and Q.
        splits: shares of the values in train, val and test.
        split_seed: shuffles the sorted values before they are split.
    """

    clustered_by = "tables"

    def __init__(self, rows: Rows, kind: Kind | None, sizes: Sizes, splits: tuple[float, ...], split_seed: int):
        self.rows, self.given_kind, self.sizes = rows, kind, sizes
        self.splits, self.split_seed = splits, split_seed
        self.target, self.task = rows.roles["target"], rows.roles["task"]

    @cached_property
    def kind(self) -> Kind:
        """What is asked of a learner."""
        if self.given_kind is None:
            return "classes" if self._target_numbers is None else "regression"
        if self.given_kind == "regression" and self._target_numbers is None:
            first = self.rows.frame[self.target].iloc[0]
            raise DataError(f"{first!r} (column {self.target!r}): expected numbers, as data.kind is regression")
        return self.given_kind

    @cached_property
    def _target_numbers(self) -> "Series | None":
        if self.given_kind == "classes":
            return None
        return numbers(self.rows.frame[self.target], instead=", or read words: data.kind=classes")

    @property
    def metric(self) -> Metric:
        """See TaskSource."""
        return "mse" if self.kind == "regression" else "accuracy"

    @property
    def input_shape(self) -> tuple[int]:
        """See TaskSource."""
        return (len(self.columns.features),)

    @property
    def outputs(self) -> int:
        """See TaskSource."""
        return 1 if self.kind == "regression" else len(self.classes)

    @cached_property
    def _values(self) -> "Series":
        """The task of each row, in words."""
        return labels(self.rows.frame[self.task])

    @cached_property
    def names(self) -> dict[Split, list[str]]:
        """The tasks of each split, also those that are too small."""
        return split_names(self._values.unique(), self.splits, self.split_seed)

    @cached_property
    def _training(self) -> "Series":
        """Whether a row is of a training task."""
        if not self.names["train"]:
            raise DataError(self._too_few("train"))
        return self._values.isin(self.names["train"])

    @cached_property
    def columns(self) -> Columns:
        """The preprocessing of the inputs, by the rows of all training tasks."""
        return Columns.fit(self.rows.frame.loc[self._training, self.rows.inputs])

    @cached_property
    def scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the training tasks' targets, in regression."""
        assert self._target_numbers is not None
        known = self._target_numbers[self._training]
        if known.min() == known.max():
            rule = "is the target of all training rows: expected targets that differ"
            raise DataError(f"{known.iloc[0]:g} (column {self.target!r}): {rule}")
        return float(known.mean()), float(known.std(ddof=0))

    @cached_property
    def classes(self) -> list[str]:
        """The classes of the training tasks, in order."""
        found = sorted(labels(self.rows.frame.loc[self._training, self.target]).unique())
        if len(found) < 2:
            raise DataError(
                f"{found[0]!r} (column {self.target!r}): is the class of all training rows: expected two or more"
            )
        return found

    @cached_property
    def counts(self) -> np.ndarray:
        """[V, C] rows of each task and class."""
        task, cls = self._numbers
        found = np.zeros((len(self._order), max(self.outputs, 1)), dtype=np.int64)
        np.add.at(found, (task[cls >= 0], cls[cls >= 0]), 1)
        return found

    @cached_property
    def _order(self) -> dict[str, int]:
        """The number of each task: a split after the other."""
        return {name: n for n, name in enumerate(name for split in SPLITS for name in self.names[split])}

    @cached_property
    def _numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """[n] the task of each row, and its class: 0 in regression, and -1 where the training tasks have no such."""
        task = self._values.map(self._order).to_numpy(dtype=np.int64)
        if self.kind == "regression":
            return task, np.zeros_like(task)
        known = {name: n for n, name in enumerate(self.classes)}
        return task, labels(self.rows.frame[self.target]).map(known).fillna(-1).to_numpy(dtype=np.int64)

    def usable(self, split: Split) -> list[str]:
        """The tasks of a split that have K + Q rows (of each class)."""
        least = sum(self.sizes.of(split))
        return [name for name in self.names[split] if (self.counts[self._order[name]] >= least).all()]

    def prepare(self, device: torch.device) -> None:
        """See TaskSource."""
        self.device = device
        task, cls = self._numbers
        order = np.lexsort((cls, task))
        order = order[cls[order] >= 0]
        frame = self.rows.frame.iloc[order]
        self.x = torch.from_numpy(self.columns.transform(frame)).to(device)
        if self.kind == "regression":
            mean, sd = self.scale
            targets = (self._target_numbers.iloc[order].to_numpy() - mean) / sd
            self.y = torch.from_numpy(targets.astype(np.float32))[:, None].to(device)
        else:
            self.y = torch.from_numpy(cls[order]).to(device)
        counts = torch.from_numpy(self.counts)
        self.sizes_of = counts.to(device)  # [V, C]
        self.starts = (counts.flatten().cumsum(0) - counts.flatten()).view_as(counts).to(device)
        self.members = {}
        for split in SPLITS:
            if not (names := self.usable(split)):
                raise DataError(self._too_few(split))
            self.members[split] = torch.tensor([self._order[name] for name in names], device=device)
        self._report()

    def _too_few(self, split: Split) -> str:
        found = self.names[split]
        if not found:
            return (
                f"{count_of(len(self._order), 'task')} (column {self.task!r}, data.task): expected some in each split, "
                f"and {split} has none; give more tasks, or other shares (data.splits)"
            )
        least = sum(self.sizes.of(split))
        has = (self.counts[[self._order[name] for name in found]] >= least).sum(axis=0)  # tasks, for each class
        what = f"those of {self.classes[has.argmin()]!r}" if self.kind == "classes" else "them"
        return (
            f"{least} (shots + queries): expected tasks with so many rows{self._each}, and found {what} in "
            f"{has.min()} of {len(found)} tasks of split {split}; take fewer shots or queries{self._doubt}"
        )

    @property
    def _doubt(self) -> str:
        """What to look at where classes may be numbers that were not read as such."""
        if self.kind == "regression" or self.given_kind or len(self.classes) <= MANY:
            return ""
        first = self.rows.frame[self.target].iloc[0]
        return f"; {self.target!r} has words, as {first!r}, and so classes: for numbers data.kind=regression"

    @property
    def _each(self) -> str:
        return "" if self.kind == "regression" else f" of each of {len(self.classes)} classes"

    def _report(self) -> None:
        """Says what was read, and what was left out."""
        parts = [f"{split} {len(self.names[split])}" for split in SPLITS]
        decided = "" if self.given_kind else f" ({'numbers' if self.kind == 'regression' else 'words'})"
        log.info(
            "table: %d rows; tasks by %s: %s; %s of %s%s; %s%s",
            *(len(self.rows.frame), self.task, ", ".join(parts), self.kind, self.target, decided),
            *(self.columns.describe(), self.rows.note),
        )
        if self.kind == "classes" and (lost := int((self._numbers[1] < 0).sum())):
            rule = f"of classes of {self.target} that no training task has"
            log.warning("table: %s left out, %s", count_of(lost, "row"), rule)
        few = {split: len(self.names[split]) - len(self.usable(split)) for split in SPLITS}
        if total := sum(few.values()):
            rule = f"with fewer rows{self._each} than shots + queries"
            where = ", ".join(f"{n} of {split}" for split, n in few.items() if n)
            log.warning("table: %s left out, %s: %s", count_of(total, "task"), rule, where)

    def clusters(self, seed: int, split: Split, index: Tensor) -> Tensor:
        """[T, 1] int64: the number of the table, the value of the column, that each task comes from."""
        members = self.members[split]
        return members[seeds.distinct((seed, split, "tables"), index.to(self.device), 1, len(members), 1)[:, 0]]

    def sample(self, seed: int, split: Split, index: Tensor) -> Task:
        """See TaskSource."""
        index = index.to(self.device)
        shots, queries = self.sizes.of(split)
        table = self.clusters(seed, split, index)[:, 0]
        sizes = self.sizes_of[table]  # [T, C]
        most = int(self.sizes_of[self.members[split]].max())
        places = seeds.distinct_of_sizes((seed, split, "rows"), index, sizes, most, shots + queries)
        rows = self.starts[table][..., None] + places  # [T, C, K + Q]

        def of(rows: Tensor) -> tuple[Tensor, Tensor]:
            return self.x[rows.flatten(1)], self.y[rows.flatten(1)]

        return Task(*of(rows[..., :shots]), *of(rows[..., shots:]), keys(seed, split, index))

    def identity(self) -> dict[str, str]:
        """See TaskSource."""
        return {"split_hash": hash_splits(self.names), "data_digest": self.rows.digest}

    def facts(self) -> dict[str, Any]:
        """See TaskSource."""
        regression = self.kind == "regression"
        target = self.target
        if regression:
            mean, sd = self.scale
            target = f"({target} {'+' if mean < 0 else '-'} {abs(mean):.4g}) / {sd:.4g}"
        tasks = "/".join(str(len(self.usable(split))) for split in SPLITS)
        more = {"target": target, "task": self.task, "tasks": tasks, "inputs": len(self.columns.features)}
        ways = {} if regression else {"ways": len(self.classes)}
        return {"name": "table", **ways, **self.sizes.facts(), "more": more}

    def preprocessing(self) -> dict[str, Any]:
        """What is done with new rows, as plain data: the inputs' columns, the target's scale or classes."""
        target: dict[str, Any] = {"name": self.target}
        if self.kind == "regression":
            target |= {"mean": self.scale[0], "sd": self.scale[1]}
        else:
            target |= {"classes": self.classes}
        return {"kind": "table", **self.columns.to_dict(), "target": target}
