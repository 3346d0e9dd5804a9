"""Tasks, and the sources that they come from.

T tasks, S support points, Q query points, N ways (classes), K shots (support points of a class).

Integer targets are classes: outputs are logits, the loss is cross-entropy and the metric accuracy. Float targets are
regressed: the loss and the metric are the squared error, averaged over a point's outputs.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from metarun import seeds
from metarun.errors import at_least

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Metric = Literal["accuracy", "mse"]


class _Task(NamedTuple):
    support_x: Tensor  # [S, *input_shape]
    support_y: Tensor  # [S] int64 classes, or [S, outputs] float targets
    query_x: Tensor  # [Q, *input_shape]
    query_y: Tensor  # [Q] int64 classes, or [Q, outputs] float targets
    key: Tensor  # [] int64: the task's own number, from keys()
    classes: Tensor  # [N] int64: the numbers that its classes have among all of the split; [0]: they have none


class Task(_Task):
    """One small learning problem. A batch of tasks is a Task whose tensors have T in front.

    `classes` need not be given. They are for algorithms that learn the training classes themselves.
    """

    def __new__(
        cls, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, key: Tensor,
        classes: Tensor | None = None,
    ) -> "Task":  # fmt: skip
        """A task; without `classes` they have no numbers."""
        if classes is None and isinstance(key, Tensor):
            classes = key.new_empty((*key.shape, 0))
        return super().__new__(cls, support_x, support_y, query_x, query_y, key, classes)  # pyright: ignore

    def map(self, function: Callable[[Tensor], Tensor]) -> "Task":
        """The task with function(tensor) in place of each tensor."""
        return Task(*map(function, self))

    def select(self, which: slice | int | list[int]) -> "Task":
        """Some tasks of a batch, or with an integer one task."""
        return self.map(lambda tensor: tensor[which])

    def to(self, where: torch.device | torch.dtype) -> "Task":
        """The same task on another device, or with its float tensors in another precision."""
        everything = isinstance(where, torch.device)
        return self.map(lambda tensor: tensor.to(where) if everything or tensor.is_floating_point() else tensor)

    def examples(self) -> tuple[Tensor, ...]:
        """What it is made of: inputs and targets of the support and the query set, four tensors."""
        return self[:4]

    def points(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the support and the query set together, of one task."""
        return torch.cat([self.support_x, self.query_x]), torch.cat([self.support_y, self.query_y])


def keys(seed: int, split: Split, index: Tensor) -> Tensor:
    """[T] int64 above 0: a seed for each task, for random choices inside it.

    Two tasks of any seeds and splits have different keys; those of one split are consecutive, as their numbers are.
    """
    return index + (seeds.key(seed, split, "task") >> 2)


def owner_of(key: Tensor, learners: int) -> Tensor:
    """[] int64 in [0, M): the number of the learner that a task belongs to, out of M learners.

    Task number n belongs to learner n mod M, counted from a place that the seed decides, since the keys of a split are
    consecutive. M tasks in a row therefore have M owners; and as meta-training takes `train_tasks` tasks over and over,
    with train_tasks = meta_batch = M every learner has the same task in every outer step, and is the only one on it.
    """
    return key % learners


def minibatches(key: Tensor, points: int, size: int | None, steps: int) -> Iterator[Tensor | None]:
    """Which points each inner step sees: shuffles of all points, one after the other, cut into equal pieces.

    Args:
        key: of the task.
        points: how many there are.
        size: of a minibatch; None, or as many as there are or more: all points, in their own order.
        steps: how many minibatches.

    Yields:
        [size] int64, the places of the points, or None for all of them.
    """
    if size is None or size >= points:
        yield from [None] * steps
        return
    rest = key.new_empty(0)
    for step in range(steps):
        if len(rest) < size:
            rest = torch.cat([rest, seeds.distinct(("minibatches", step), key[None], 1, points, points)[0, 0]])
        yield rest[:size]
        rest = rest[size:]


class Sizes(NamedTuple):
    """Shots and queries (of a class; in regression of a task) in training, and in validation and test."""

    train: tuple[int, int]
    test: tuple[int, int]

    def of(self, split: Split) -> tuple[int, int]:
        """Shots and queries of the tasks of a split."""
        return self.train if split == "train" else self.test

    def facts(self) -> dict[str, int]:
        """The four numbers by name: shots, queries, train_shots, train_queries."""
        names = ("shots", "queries", "train_shots", "train_queries")
        return dict(zip(names, self.test + self.train, strict=True))


def sizes(shots: int, queries: int | None, eval_shots: int | None, eval_queries: int | None) -> Sizes:
    """The sizes that these settings mean, of which only `shots` has to be given.

    Raises:
        SettingError: one is below 1.
    """
    given = {"shots": shots, "queries": queries, "eval_shots": eval_shots, "eval_queries": eval_queries}
    at_least(1, **{name: value for name, value in given.items() if value is not None})
    test_shots = shots if eval_shots is None else eval_shots
    test_queries = queries if eval_queries is None else eval_queries
    return Sizes(
        (shots, shots if queries is None else queries),
        (test_shots, test_shots if test_queries is None else test_queries),
    )


class Ways(NamedTuple):
    """Classes of a task in training, and in validation and test."""

    train: int
    test: int

    def of(self, split: Split) -> int:
        """Classes of the tasks of a split."""
        return self.train if split == "train" else self.test

    def facts(self) -> dict[str, int]:
        """The numbers by name: ways, and train_ways where those are others."""
        return {"ways": self.test} | ({"train_ways": self.train} if self.train != self.test else {})


def ways_of(ways: int, eval_ways: int | None) -> Ways:
    """The ways that these settings mean.

    Raises:
        SettingError: one is below 2.
    """
    at_least(2, ways=ways, **({} if eval_ways is None else {"eval_ways": eval_ways}))
    return Ways(ways, ways if eval_ways is None else eval_ways)


class TaskSource(Protocol):
    """A distribution over tasks, split into train, val and test.

    The constructor checks the settings and reads nothing; `prepare` reads or makes the data. A source of classes may
    say in `split_sizes`, {split: number}, how many classes a split has; tasks of more ways are then refused. Its tasks
    have the classes 0 to ways - 1, even where there are more outputs. For algorithms that learn the training classes
    themselves, a task may have their numbers, in the order of its labels, each below `train_classes` of the source.

    A source whose tasks share classes or tables may have `clusters(seed, split, index)`, which gives of tasks [T, c]
    int64, at least 0: the numbers of the c classes, or with c = 1 of the table, that each is made of. Intervals are
    then over other classes or tables too (intervals.py), and `clustered_by`, such as "classes" or "tables", is what
    they are called. Without it, or where it gives None, tasks are independent, as generated ones are.

    Attributes:
        input_shape: shape of one example.
        outputs: how many numbers the learner gives for one example: for classes N, the largest of all splits.
        metric: what a learner is judged by.
    """

    input_shape: tuple[int, ...]
    outputs: int
    metric: Metric

    def prepare(self, device: torch.device) -> None:
        """Makes the source ready to be sampled on this device.

        Raises:
            DataError: the data is missing, incomplete or altered.
        """
        ...

    def sample(self, seed: int, split: Split, index: Tensor) -> Task:
        """The tasks of these numbers: task i is a pure function of (seed, split, i).

        Args:
            seed: the run's seed.
            split: which tasks. No two splits share a class, or where there are none, a task.
            index: [T] int64 on the CPU, at least 0.

        Returns:
            A batch of T tasks, on the device, float32.
        """
        ...

    def identity(self) -> dict[str, str]:
        """What the tasks are made of: `split_hash`, and `data_digest` where there is data."""
        ...

    def facts(self) -> dict[str, Any]:
        """Facts for the summary: keyword arguments of storage.records.Source, such as name, ways and shots."""
        ...


def clusters_of(source: TaskSource, seed: int, split: Split, index: Tensor) -> Tensor | None:
    """[T, c] int64: the numbers of what tasks share, see TaskSource; None where they are independent."""
    find = getattr(source, "clusters", None)
    return find(seed, split, index) if callable(find) else None


def example_losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """[n] loss of each example: cross-entropy of [n, N] logits, or squared error averaged over the outputs.

    At least in float32, however the outputs were rounded (engine.autocast); so is score().
    """
    outputs = _in_full(outputs)
    if targets.is_floating_point():
        return (outputs - targets).square().mean(dim=-1)
    return F.cross_entropy(outputs, targets, reduction="none")


def score(outputs: Tensor, targets: Tensor) -> Tensor:
    """The metric, averaged over a task's query points: accuracy in [0, 1], or mean squared error.

    Logits that are not finite give nan rather than the accuracy of a guess.
    """
    outputs = _in_full(outputs)
    if targets.is_floating_point():
        return (outputs - targets).square().mean()
    accuracy = (outputs.argmax(dim=-1) == targets).to(outputs.dtype).mean()
    return torch.where(outputs.isfinite().all(), accuracy, torch.nan)


def _in_full(outputs: Tensor) -> Tensor:
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs


def better(metric: Metric, new: float, old: float | None) -> bool:
    """Whether `new` is strictly better than `old`; anything is better than None."""
    return old is None or (new > old if metric == "accuracy" else new < old)
