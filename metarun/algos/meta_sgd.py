"""Meta-SGD: learn the initialisation and, for every weight, the rate and direction of its inner steps.

    (θ, α) <- (θ, α) - β ∇ mean over tasks of L_query(θ_K),     θ_{k+1} = θ_k - α ∘ ∇ L_support(θ_k)

Reference: Li, Zhou, Chen & Li 2017, "Meta-SGD: learning to learn quickly for few-shot learning", arXiv 1707.09835.

We differ in the start: every rate begins at `inner_lr`, where the paper draws each at random; rates may become
negative, as there. Batch norm's parameters are not adapted, and have no rate. The paper takes one inner step, K is a
setting here. With a shared head (algos/head.py) the rates of its weights are shared too: a row for all classes.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarun.algos.head import WithHead
from metarun.algos.inner import SGD, Rule, with_prefix, without_prefix
from metarun.errors import at_least
from metarun.models.functional import Params
from metarun.tasks import Task


@dataclass(eq=False, kw_only=True)
class MetaSGD(WithHead):
    """Meta-SGD. Its meta-parameters are `learner.*`, θ, and for each that the inner loop changes `rate.*`, its α.

    Args:
        inner_lr: where all rates begin.
        inner_steps: K in training; at least 1.
    """

    training_only: ClassVar = (*WithHead.training_only, "inner_steps", "inner_lr")

    inner_steps: int = 1
    eval_inner_steps: int | None = None

    def __post_init__(self):
        super().__post_init__()
        at_least(1, inner_steps=self.inner_steps)

    @property
    def name(self) -> str:
        """See Algorithm."""
        return "Meta-SGD"

    def init(self) -> Params:
        """{name: tensor}: the learner's own weights, and equal rates."""
        learner = super().init()
        adapted = {name: value for name, value in learner.items() if name not in self.fixed} | self.row
        rates = {name: torch.full_like(value, self.inner_lr) for name, value in adapted.items()}
        return {**with_prefix("learner", learner), **with_prefix("rate", rates)}

    def start(self, meta: Params, task: Task) -> Params:
        """The learner's initial parameters θ."""
        return self.with_head(without_prefix("learner", meta))

    def rule(self, meta: Params) -> Rule:
        """The update rule: SGD with a learned rate for each weight."""
        return SGD(without_prefix("rate", meta))

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean query loss after `inner_steps` inner steps, and the query metric, both []."""
        *_, params = self.adapt(meta, task, self.inner_steps)
        return self.judge(params, task)
