"""Reptile: move the initialisation towards where each task's own training ends.

    θ <- θ + ε mean over tasks of (θ_K - θ),     θ_0 = θ,  θ_{k+1} = θ_k - Adam(∇ L_minibatch(θ_k))

Reference: Nichol, Achiam & Schulman 2018, "On first-order meta-learning algorithms", arXiv 1803.02999. Inner Adam has
β1 = 0, and ε falls linearly from 1 to 0. In meta-training a task is not divided: the inner loop sees support and
query points alike, so shots + queries of a source are the paper's training shots, and the query metric of the
training rows is of points that were trained on.

We differ: Adam's second moment starts anew in every task, where the authors' code carries it over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarun.algos.gradient import GradientBased, rule
from metarun.errors import at_least
from metarun.inner import Params, Rule
from metarun.tasks import Task, TaskSource, minibatches


@dataclass(eq=False, kw_only=True)
class Reptile(GradientBased):
    """Reptile. ε is `meta_lr`, with the outer optimiser SGD.

    Args:
        inner_steps: K in training; at least 1.
        inner_optimizer: `adam` with fresh moments in every task, or `sgd`.
        inner_betas: Adam's (β1, β2). None with sgd.
        inner_batch: points of a minibatch in training; None, or more than there are: all.
        eval_inner_batch: the same in validation and test.
    """

    training_only: ClassVar = (*GradientBased.training_only, "inner_steps", "inner_batch")

    inner_steps: int = 5
    inner_optimizer: str = "adam"
    inner_betas: tuple[float, float] | None = (0.0, 0.999)
    inner_batch: int | None = 10
    eval_inner_batch: int | None = 5

    def __post_init__(self):
        super().__post_init__()
        at_least(1, inner_steps=self.inner_steps)
        for name in ("inner_batch", "eval_inner_batch"):
            if getattr(self, name) is not None:
                at_least(1, **{name: getattr(self, name)})
        self.inner_rule = rule(self.inner_optimizer, self.inner_lr, self.inner_betas)
        self.fixed = set()

    def describe(self, source: TaskSource) -> dict[str, str]:
        """The inner loop and its minibatches."""
        sizes = [size or "all points" for size in (self.inner_batch, self.eval_inner_batch)]
        batches = f"at most {sizes[0]} in training, {sizes[1]} in test"
        return {**super().describe(source), "minibatch": batches}

    def rule(self, meta: Params) -> Rule:
        """Adam or SGD."""
        return self.inner_rule

    def batches(self, task: Task, steps: int) -> list[tuple[Tensor, Tensor]]:
        """Minibatches of the support set."""
        return cut(task.support_x, task.support_y, task.key, self.eval_inner_batch, steps)

    def inner_loop(self, meta: Params, task: Task) -> Iterator[Params]:
        """See Algorithm. Takes minibatches of all the task's points."""
        start = {name: value.detach() for name, value in meta.items()}
        batches = cut(*task.points(), task.key, self.inner_batch, self.inner_steps)
        return self.trajectory(start, start, [{}] * self.inner_steps, batches, first_order=True)

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The query loss after the inner loop, with θ - θ_K for its gradient; and the query metric there."""
        start, *_, end = self.inner_loop(meta, task)
        direction = torch.stack([(meta[name] * (start[name] - end[name])).sum() for name in meta]).sum()
        loss, metric = self.judge(end, task)
        return loss + direction - direction.detach(), metric


def cut(x: Tensor, y: Tensor, key: Tensor, size: int | None, steps: int) -> list[tuple[Tensor, Tensor]]:
    """For each step a minibatch of these points."""
    return [(x, y) if p is None else (x[p], y[p]) for p in minibatches(key, len(x), size, steps)]
