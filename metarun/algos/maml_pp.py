"""MAML++: MAML with the loss after every inner step, a learned rate and batch norm of its own for each inner step.

    θ, α, γ <- minus β_t ∇ mean over tasks of Σ_k v_k(t) L_query(θ_k; γ_k)
    θ_{k+1} = θ_k - α_{layer,k} ∇ L_support(θ_k; γ_k)

γ_k is batch norm's shift (and scale) at step k; the inner loop leaves it alone. Three schedules run over meta-training:
the step weights v go from 1/K for every step to the last step alone; the first meta-gradients are of first order; and
the outer rate β falls along a cosine.

Reference: Antoniou, Edwards & Storkey 2019, "How to train your MAML", arXiv 1810.09502. The weights of the steps are
those of the authors' code: v_k = max(1 - a, 0.03) / K for k < K, the rest for the last, where a is the share of
`multi_step_until` that has passed.

As in the authors' code, a rate belongs to a tensor: a layer's weight and its bias have different ones. We differ:
γ has K + 1 members, the last for the query set after the last step (the authors' code judges a query with the γ of the
step before it); the statistics of batch norm are those of the learner's mode, not running ones for each step (the
authors' code keeps those, and then normalises by the batch all the same); the outer rate falls to zero; and the
schedules are shares of meta-training rather than numbers of epochs.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarun.algos.base import Algorithm
from metarun.algos.head import WithHead
from metarun.algos.inner import Rule, step_counter, with_prefix, without_prefix
from metarun.errors import SettingError, at_least
from metarun.models.functional import Params
from metarun.tasks import Task, TaskSource

LEAST = 0.03  # share of 1/K: the least weight of an early inner step, while early steps count


class StepRates:
    """θ_{k+1} = θ_k - α_k g, with α_k = rates[name][k]."""

    name = "learned rates"

    def __init__(self, rates: Params):
        self.rates = rates

    def init(self, params: Params) -> Tensor:
        """[] the number k of the first step, 0."""
        return step_counter(params)

    def step(self, params: Params, grads: Params, state: Tensor) -> tuple[Params, Tensor]:
        """One step."""
        rates = {name: rate.index_select(0, state.long()[None]) for name, rate in self.rates.items()}
        shapes = {name: [-1] + [1] * (value.dim() - 1) for name, value in params.items()}
        return {n: params[n] - rates[n].view(shapes[n]) * grads[n] for n in params}, state + 1


@dataclass(eq=False, kw_only=True)
class MAMLpp(WithHead):
    """MAML++.

    Its meta-parameters are `learner.*` (θ without batch norm), `rate.*` [K] for each of those, and `norm.*` [K+1, ...],
    batch norm's parameters at each step.

    Args:
        inner_lr: where all rates begin.
        inner_steps: K, in training and in test, since each step has a rate of its own.
        multi_step_until: share of meta-training in which the losses of all steps count; 0: never.
        first_order_until: share of meta-training in which the meta-gradient is of first order; 0: never, 1: always.
    """

    training_only: ClassVar = (
        *WithHead.training_only, "inner_lr", "inner_steps", "eval_inner_steps", "multi_step_until",
        "first_order_until",
    )  # fmt: skip

    inner_steps: int = 5
    eval_inner_steps: int | None = None
    multi_step_until: float = 0.1
    first_order_until: float = 1 / 3

    def __post_init__(self):
        super().__post_init__()
        at_least(1, inner_steps=self.inner_steps)
        if self.test_steps != self.inner_steps:
            expected = f"null, or {self.inner_steps}, as inner_steps: each step has its own rate"
            raise SettingError(self.eval_inner_steps, "eval_inner_steps", expected)
        for name in ("multi_step_until", "first_order_until"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise SettingError(value, name, "a share of meta-training, from 0 to 1")
        self.progress = 1.0

    @property
    def name(self) -> str:
        """See Algorithm."""
        return "MAML++"

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: the order of the meta-gradient, and whether the head is shared."""
        orders = {0.0: "second order", 1.0: "first order"}
        share = f"first order until {100 * self.first_order_until:.0f} % of meta-training, then second"
        return {"meta_gradient": orders.get(self.first_order_until, share), **super().details(source)}

    def at(self, progress: float) -> Algorithm:
        """See Algorithm."""
        stage = copy.copy(self)
        stage.progress = progress
        return stage

    def init(self) -> Params:
        """{name: tensor}: the learner's own weights, equal rates, and the same batch norm at every step."""
        learner = super().init()
        weights = {name: value for name, value in learner.items() if name not in self.fixed}
        norms = {
            name: torch.stack([value] * (self.inner_steps + 1)) for name, value in learner.items() if name in self.fixed
        }
        adapted = weights | self.row
        rates = {name: value.new_full((self.inner_steps,), self.inner_lr) for name, value in adapted.items()}
        return {**with_prefix("learner", weights), **with_prefix("rate", rates), **with_prefix("norm", norms)}

    def rule(self, meta: Params) -> Rule:
        """The update rule: SGD with a learned rate for each tensor and step."""
        return StepRates(without_prefix("rate", meta))

    def adapt(self, meta: Params, task: Task, steps: int, *, first_order: bool = False) -> Iterator[Params]:
        """Yields the learner's parameters after 0, 1, ..., K inner steps, with the batch norm of that step."""
        norms = [{name: value[k] for name, value in without_prefix("norm", meta).items()} for k in range(steps + 1)]
        fixed = [norm | self.constants(task) for norm in norms]
        batches, start = self.batches(task, steps), self.with_head(without_prefix("learner", meta))
        weights = self.trajectory(meta, start, fixed[:-1], batches, first_order)
        for rest, (params, _) in zip(fixed, weights, strict=True):
            yield {**params, **rest}

    def weights(self) -> list[float]:
        """v_1 .. v_K at the present progress; they add up to 1."""
        steps = self.inner_steps
        if self.progress >= self.multi_step_until:
            return [0.0] * (steps - 1) + [1.0]
        early = max(1 - self.progress / self.multi_step_until, LEAST) / steps
        return [early] * (steps - 1) + [1 - (steps - 1) * early]

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The weighted sum of the query losses after 1 .. K inner steps, and the query metric after K, both []."""
        first_order = self.progress < self.first_order_until
        _, *learners = self.adapt(meta, task, self.inner_steps, first_order=first_order)
        counted = [(weight, self.judge(p, task)) for weight, p in zip(self.weights(), learners, strict=True) if weight]
        loss = torch.stack([weight * loss for weight, (loss, _) in counted]).sum()
        return loss, counted[-1][1][1]
