"""Symbol sequences: tell apart the Markov chains that wrote them, after seeing a few sequences of each.

    s_1 ~ uniform,   s_{l+1} ~ row s_l of A_n,     rows of A_n uniform on the simplex, drawn for class n of the task

Every class of a task has a chain of its own, so single symbols say little and their order says much.

T tasks, N ways, E sequences of a class (support and query), L symbols of a sequence, V different symbols.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metarun import seeds
from metarun.errors import at_least
from metarun.tasks import Metric, Split, Task, keys, sizes, ways_of


class Sequences:
    """Classification of sequences by the Markov chain that wrote them.

    Args:
        ways: N.
        shots: support sequences of each class.
        queries: query sequences of each class.
        eval_shots: K in validation and test; None: as in training.
        eval_queries: Q in validation and test; None: as in training.
        eval_ways: N in validation and test; None: as in training.
        length: L; at least 2.
        symbols: V; at least 2.
    """

    metric: Metric = "accuracy"

    def __init__(
        self,
        ways: int = 3,
        shots: int = 5,
        queries: int = 5,
        eval_shots: int | None = None,
        eval_queries: int | None = None,
        eval_ways: int | None = None,
        length: int = 20,
        symbols: int = 5,
    ):
        at_least(2, length=length, symbols=symbols)
        self.ways = ways_of(ways, eval_ways)
        self.sizes = sizes(shots, queries, eval_shots, eval_queries)
        self.length, self.symbols = length, symbols
        self.input_shape, self.outputs = (length, symbols), max(self.ways)
        self.device = torch.device("cpu")

    def prepare(self, device: torch.device) -> None:
        """See TaskSource."""
        self.device = device

    def chains(self, seed: int, split: Split, index: Tensor) -> Tensor:
        """[T, N, V, V] float64 transition probabilities; rows add up to 1."""
        # Exponential numbers divided by their sum are uniform on the simplex.
        ways = self.ways.of(split)
        draws = -torch.log1p(-seeds.uniform((seed, split, "chains"), index, ways * self.symbols**2))
        weights = draws.view(-1, ways, self.symbols, self.symbols)
        return weights / weights.sum(dim=-1, keepdim=True)

    def sample(self, seed: int, split: Split, index: Tensor) -> Task:
        """See TaskSource."""
        index = index.to(self.device)
        shots, queries = self.sizes.of(split)
        per_class, ways = shots + queries, self.ways.of(split)
        draws = seeds.uniform((seed, split, "symbols"), index, ways * per_class * self.length)
        draws = draws.view(-1, ways, per_class, self.length)
        below = self.chains(seed, split, index).cumsum(dim=-1)[..., :-1]  # [T, N, V, V-1]
        symbol = (draws[..., 0] * self.symbols).long()
        symbols = [symbol]
        for place in range(1, self.length):
            row = below.gather(2, symbol[..., None].expand(-1, -1, -1, self.symbols - 1))  # [T, N, E, V-1]
            symbol = (draws[..., place, None] >= row).sum(dim=-1)
            symbols.append(symbol)
        x = F.one_hot(torch.stack(symbols, dim=-1), self.symbols).float()  # [T, N, E, L, V]
        labels = torch.arange(ways, device=index.device).expand(len(index), -1)

        def with_labels(x: Tensor) -> tuple[Tensor, Tensor]:
            return x.flatten(1, 2), labels.repeat_interleave(x.shape[2], dim=1)

        support, query = with_labels(x[:, :, :shots]), with_labels(x[:, :, shots:])
        return Task(*support, *query, keys(seed, split, index))

    def identity(self) -> dict[str, str]:
        """See TaskSource."""
        return {"split_hash": "none: tasks are generated"}

    def facts(self) -> dict[str, Any]:
        """See TaskSource."""
        more = {"length": self.length, "symbols": self.symbols}
        return {"name": "sequences", **self.ways.facts(), **self.sizes.facts(), "more": more}
