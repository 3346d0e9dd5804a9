"""Random tabular tasks: every task has a teacher of its own that labels random feature vectors.

    class(x) = ⌊N rank(x) / P⌋,     rank(x) = place of x among the task's P points by teacher(r ⊙ x),  x ~ N(0, 1)^F

All tasks share the scales r (log-uniform in [0.03, 3], drawn by `split_seed`): the teachers look closely at features
with large scales and hardly at the others. A learner sees x alone, so across tasks there is r to learn.

T tasks, P points of a task (support and query), F features, N ways, H hidden units.
"""

from typing import Any

import torch
from torch import Tensor

from metarun import seeds
from metarun.errors import at_least, one_of
from metarun.tasks import Metric, Split, Task, keys, sizes, ways_of

SCALES = (0.03, 3.0)
HIDDEN = 16
DEPTH = 3


class Tabular:
    """Classification of random feature vectors, with exactly the same number of points in every class.

    Args:
        features: F.
        ways: N.
        shots: support points of each class.
        queries: query points of each class.
        eval_shots: shots in validation and test; None: as in training.
        eval_queries: queries in validation and test; None: as in training.
        eval_ways: N in validation and test; None: as in training.
        teacher: drawn anew for every task. `linear`: w·(r⊙x). `mlp`: a hidden layer of 16 tanh units. `tree`: a
            decision tree of depth 3 with a small slope in its leaves, which keeps all scores different. `noise`: a
            random number that has nothing to do with x, so that every learner has to stay at chance.
        split_seed: draws the feature scales.
    """

    metric: Metric = "accuracy"

    def __init__(
        self,
        features: int = 10,
        ways: int = 2,
        shots: int = 5,
        queries: int = 15,
        eval_shots: int | None = None,
        eval_queries: int | None = None,
        eval_ways: int | None = None,
        teacher: str = "linear",
        split_seed: int = 0,
    ):
        at_least(1, features=features)
        at_least(0, split_seed=split_seed)
        self.teachers = {"linear": self._linear, "mlp": self._mlp, "tree": self._tree, "noise": self._noise}
        one_of("teacher", teacher, self.teachers)
        self.features, self.ways = features, ways_of(ways, eval_ways)
        self.sizes = sizes(shots, queries, eval_shots, eval_queries)
        self.teacher, self.split_seed = teacher, split_seed
        self.input_shape, self.outputs = (features,), max(self.ways)

    def prepare(self, device: torch.device) -> None:
        """See TaskSource."""
        address, first = (self.split_seed, "tabular", "scales"), torch.zeros(1, dtype=torch.int64)
        draws = seeds.uniform(address, first, self.features)[0]
        low, high = torch.tensor(SCALES, dtype=torch.float64).log()
        self.scales = (low + (high - low) * draws).exp().to(device)

    def sample(self, seed: int, split: Split, index: Tensor) -> Task:
        """See TaskSource."""
        index = index.to(self.scales.device)
        shots, queries = self.sizes.of(split)
        per_class, ways = shots + queries, self.ways.of(split)
        points = ways * per_class
        x = seeds.normal((seed, split, "features"), index, points * self.features).view(-1, points, self.features)
        scores = self.teachers[self.teacher]((seed, split, "teacher"), index, self.scales * x)
        # N equal runs of ranks are the classes; a shuffle decides which points of a run are the support.
        by_class = scores.argsort(dim=1, stable=True).view(-1, ways, per_class)
        shuffle = seeds.distinct((seed, split, "roles"), index, ways, per_class, per_class)
        by_class = by_class.gather(2, shuffle)
        labels = torch.arange(ways, device=index.device).expand(len(index), -1)

        def with_labels(columns: slice, n: int) -> tuple[Tensor, Tensor]:
            rows = by_class[:, :, columns].flatten(1)
            inputs = x.gather(1, rows[..., None].expand(-1, -1, self.features)).float()
            return inputs, labels.repeat_interleave(n, dim=1)

        support, query = with_labels(slice(0, shots), shots), with_labels(slice(shots, None), queries)
        return Task(*support, *query, keys(seed, split, index))

    def _linear(self, address: tuple, index: Tensor, x: Tensor) -> Tensor:
        """[T, P] scores."""
        weights = seeds.normal(address, index, self.features)
        return (x * weights[:, None]).sum(-1)

    def _mlp(self, address: tuple, index: Tensor, x: Tensor) -> Tensor:
        draws = seeds.normal(address, index, HIDDEN * (self.features + 2))
        inner, bias, outer = draws.split([HIDDEN * self.features, HIDDEN, HIDDEN], dim=1)
        inner = inner.view(-1, self.features, HIDDEN)
        hidden = torch.tanh(x @ inner / self.features**0.5 + bias[:, None])  # not so steep that points score the same
        return (hidden * outer[:, None]).sum(-1)

    def _tree(self, address: tuple, index: Tensor, x: Tensor) -> Tensor:
        """[T, P] scores. Every level asks about one feature, mostly about those with large scales."""
        draws = seeds.normal(address, index, DEPTH * self.features + 2**DEPTH + self.features)
        votes, leaves, slope = draws.split([DEPTH * self.features, 2**DEPTH, self.features], dim=1)
        asked = (votes.view(-1, DEPTH, self.features).abs() * self.scales).argmax(-1)
        answers = x.gather(2, asked[:, None].expand(-1, x.shape[1], -1)) > 0
        leaf = (answers * 2 ** torch.arange(DEPTH, device=x.device)).sum(-1)
        return leaves.gather(1, leaf) + 0.1 * (x * slope[:, None]).sum(-1)

    def _noise(self, address: tuple, index: Tensor, x: Tensor) -> Tensor:
        return seeds.uniform(address, index, x.shape[1])

    def identity(self) -> dict[str, str]:
        """See TaskSource."""
        return {"split_hash": "none: tasks are generated", "split_seed": str(self.split_seed)}

    def facts(self) -> dict[str, Any]:
        """See TaskSource."""
        more = {"features": self.features, "teacher": self.teacher}
        return {"name": "tabular", **self.ways.facts(), **self.sizes.facts(), "more": more}
