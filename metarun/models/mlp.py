"""MLP: the fully connected learner."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.errors import at_least, boolean, one_of, positive
from metarun.models.learner import Learner, TaskNorm


class MLP(Learner):
    """Fully connected layers with ReLU between them (Finn et al. 2017).

    Args:
        input_shape: any shape; it is flattened.
        outputs: N.
        hidden: sizes of the hidden layers. Sinusoid: 40, 40. Omniglot: 256, 128, 64, 64 with batch norm.
        norm: none, or batch norm before each ReLU: transductive or support (see models/learner.py).
        norm_scale: whether batch norm has a scale beside its shift.
        norm_eps: added to the variance.
    """

    acts_with: ClassVar = {  # see Algorithm
        "norm_scale": ("norm", ("transductive", "support")),
        "norm_eps": ("norm", ("transductive", "support")),
    }

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        hidden: Sequence[int] = (40, 40),
        norm: str = "none",
        norm_scale: bool = False,
        norm_eps: float = 1e-3,
    ):
        super().__init__()
        boolean(norm_scale=norm_scale)
        for size in hidden:
            at_least(1, hidden=size)
        one_of("norm", norm, ["none", "transductive", "support"])
        positive("norm_eps", norm_eps)
        self.norm = norm
        sizes = [int(torch.Size(input_shape).numel()), *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(TaskNorm(size, norm_scale, norm_eps) for size in hidden if norm != "none")
        self.head = nn.Linear(sizes[-1], outputs)

    def stages(self) -> list[Callable[[Tensor, int | None], Tensor]]:
        """See Learner."""
        return [partial(self.stage, number) for number in range(len(self.layers))]

    def features(self, x: Tensor, statistics_from: int | None) -> Tensor:
        """See Learner: without hidden layers the inputs."""
        return super().features(x.flatten(1), statistics_from)

    def stage(self, number: int, x: Tensor, statistics_from: int | None) -> Tensor:
        """[n, size] what layer `number` makes of x."""
        x = self.layers[number](x.flatten(1))
        if self.norms:
            x = self.norms[number](x, statistics_from)
        return F.relu(x)
