"""Reptile: move the initialisation towards the weights at which training on a task ends.

    θ <- θ + ε mean over tasks of (θ_K - θ),     θ_0 = θ,  θ_{k+1} = θ_k - Adam(∇ L_minibatch(θ_k))

Reference: Nichol, Achiam & Schulman 2018, "On first-order meta-learning algorithms", arXiv 1803.02999. Inner Adam has
β1 = 0, and ε falls linearly from 1 to 0. In meta-training a task is not divided: the inner loop sees support and
query points alike, so shots + queries of a source are the paper's training shots, and the query metric of training
events is of points that were trained on.

In the authors' code Adam's second moment v is not reset between tasks (`inner_moments=carried`, the default here). We
differ: theirs goes from task to task; here all tasks of a meta-batch start from the same v, which then moves as θ does,
v <- v + ε mean over tasks of (v_K - v), and is used in tests too. `fresh` starts every task with v = 0, so that Adam's
first step has the same length for every weight. Adam's eps is added to √(v / (1 - β2^t)), as in torch and in Adam's own
algorithm 1; TensorFlow's, which the authors used, adds it to √v, which counts for more in the first steps.

With a shared head (algos/head.py) its carried v is a row for all classes, and moves towards the mean of the task's
classes, which is the nearest shared v. By the chain rule it would move by their sum: N times as far, beyond v_K with
ε = 1, where v may become negative.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarun.algos.gradient import make_rule
from metarun.algos.head import WithHead
from metarun.algos.inner import Adam, Rule, with_prefix, without_prefix
from metarun.errors import SettingError, at_least, one_of
from metarun.models.functional import Params
from metarun.tasks import Task, TaskSource, minibatches


@dataclass(eq=False, kw_only=True)
class Reptile(WithHead):
    """Reptile. ε is `meta_lr`, with the outer optimiser SGD.

    Args:
        inner_steps: K in training; at least 1.
        inner_optimizer: `adam` with fresh moments in every task, or `sgd`.
        inner_betas: Adam's (β1, β2). None with sgd.
        inner_moments: with Adam, `carried` or `fresh`; with sgd None. `carried` needs β1 = 0: only v is carried.
        inner_batch: points of a minibatch in training; None, or more than there are: all.
        eval_inner_batch: the same in validation and test.
    """

    training_only: ClassVar = (*WithHead.training_only, "inner_steps", "inner_batch")

    meta_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
    inner_steps: int = 5
    inner_optimizer: str = "adam"
    inner_betas: tuple[float, float] | None = (0.0, 0.999)
    inner_moments: str | None = "carried"
    inner_batch: int | None = 10
    eval_inner_batch: int | None = 5

    def __post_init__(self):
        super().__post_init__()
        at_least(1, inner_steps=self.inner_steps)
        for name in ("inner_batch", "eval_inner_batch"):
            if getattr(self, name) is not None:
                at_least(1, **{name: getattr(self, name)})
        self.inner_rule = make_rule(self.inner_optimizer, self.inner_lr, self.inner_betas)
        self._check_moments()
        self.fixed = set()

    def _check_moments(self) -> None:
        self.carries, self.beta2 = self.inner_moments == "carried", 0.0
        if not isinstance(self.inner_rule, Adam):
            if self.inner_moments is not None:
                raise SettingError(self.inner_moments, "inner_moments", "null with inner_optimizer=sgd, which has none")
            return
        one_of("inner_moments", self.inner_moments, ["carried", "fresh"])
        beta1, self.beta2 = self.inner_rule.betas
        if self.carries and beta1 != 0:
            expected = "[0,β2] with inner_moments=carried, as Nichol et al. have it"
            raise SettingError([beta1, self.beta2], "inner_betas", expected)
        outer = getattr(self.meta_optimizer, "func", self.meta_optimizer)
        if self.carries and outer is not torch.optim.SGD:
            expected = "fresh with another outer optimiser than SGD, which would not average second moments"
            raise SettingError(self.inner_moments, "inner_moments", expected)
        for name, effect in {"weight_decay": "shrink too", "momentum": "drive below 0"}.items():
            if self.carries and (value := getattr(self.meta_optimizer, "keywords", {}).get(name)):
                rule = f"0 with inner_moments=carried, whose moments it would {effect}; or inner_moments=fresh"
                raise SettingError(value, f"meta_optimizer.{name}", rule)

    def init(self) -> Params:
        """{name: tensor}: the learner's weights; and where moments are carried, v = 0 and β2^0 = 1."""
        learner = super().init()
        if not self.carries:
            return learner
        zeros = {name: torch.zeros_like(value) for name, value in (learner | self.row).items()}
        return {**learner, **with_prefix("second", zeros), "power": torch.ones((), dtype=torch.float64)}

    def start(self, meta: Params, task: Task) -> Params:
        """The learner's initial parameters θ."""
        return self.with_head(without_moments(meta))

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: the minibatches, where Adam's moments come from, and whether the head is shared."""
        sizes = [size or "all points" for size in (self.inner_batch, self.eval_inner_batch)]
        batches = f"at most {sizes[0]} in training, {sizes[1]} in test"
        moments = {"carried": {"moments": "carried over from training"}, "fresh": {"moments": "fresh in every task"}}
        return {"minibatch": batches, **moments.get(self.inner_moments or "", {}), **super().details(source)}

    def rule(self, meta: Params) -> Rule:
        """The update rule: Adam or SGD."""
        if not self.carries:
            return self.inner_rule
        return CarriedAdam(self.inner_lr, self.beta2, without_prefix("second", meta), meta["power"])

    def batches(self, task: Task, steps: int) -> list[tuple[Tensor, Tensor]]:
        """Inputs and targets for each inner step: minibatches of the support set."""
        return minibatches_of(task.support_x, task.support_y, task.key, self.eval_inner_batch, steps)

    def inner_loop(self, meta: Params, task: Task) -> Iterator[Params]:
        """See Algorithm. Takes minibatches of all the task's points."""
        return (without_moments(point) for point in self._path(meta, task))

    def _path(self, meta: Params, task: Task) -> Iterator[Params]:
        """Yields learner and meta-parameters after 0, 1, ..., K inner steps of training, without a graph."""
        meta = {name: value.detach() for name, value in meta.items()}
        batches = minibatches_of(*task.points(), task.key, self.inner_batch, self.inner_steps)
        fixed = self.constants(task)
        steps = self.trajectory(meta, self.start(meta, task), [fixed] * len(batches), batches, first_order=True)
        for params, state in steps:
            moments = CarriedAdam.named((state[0], self.tie(state[1], task))) if self.carries else {}
            yield {**params, **fixed, **moments}

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean query loss after the inner loop, with θ - θ_K for its gradient, and the query metric, both []."""
        start, *_, end = self._path(meta, task)
        loss, metric = self.judge(without_moments(end), task)
        products = ((meta[name] * (start[name] - end[name])).sum().to(loss.dtype) for name in meta)
        product = sum(products, start=loss.new_zeros(()))  # <θ, θ_0 - θ_K>
        return loss + product - product.detach(), metric


def without_moments(meta: Params) -> Params:
    """The learner's parameters: the meta-parameters without the carried moment."""
    return {name: value for name, value in meta.items() if name != "power" and not name.startswith("second.")}


class CarriedAdam:
    """Adam with β1 = 0 and a carried second moment: θ <- θ - lr g / (√(v / (1 - β2^t)) + eps).

    Args:
        lr: its rate.
        beta2: of v <- β2 v + (1 - β2) g².
        second: v before the first step of the inner loop.
        power: β2^t before it. v and 1 - β2^t move alike in outer steps, so that their ratio stays an average of g².
        eps: as Adam's, in torch's place.
    """

    name = "Adam"

    def __init__(self, lr: float, beta2: float, second: Params, power: Tensor, eps: float = 1e-8):
        self.lr, self.beta2, self.second, self.power, self.eps = lr, beta2, second, power, eps

    def init(self, params: Params) -> tuple[Tensor, Params]:
        """β2^t and v before the first step."""
        return self.power, self.second

    def step(self, params: Params, grads: Params, state: tuple[Tensor, Params]) -> tuple[Params, tuple[Tensor, Params]]:
        """See Rule."""
        power = state[0] * self.beta2
        second = {name: self.beta2 * state[1][name] + (1 - self.beta2) * g * g for name, g in grads.items()}
        scale = 1 / (1 - power)
        new = {
            name: value - self.lr * grads[name] / ((second[name] * scale.to(value.dtype)).sqrt() + self.eps)
            for name, value in params.items()
        }
        return new, (power, second)

    @staticmethod
    def named(state: tuple[Tensor, Params]) -> Params:
        """The meta-parameters that hold a state."""
        return {**with_prefix("second", state[1]), "power": state[0]}


def minibatches_of(x: Tensor, y: Tensor, key: Tensor, size: int | None, steps: int) -> list[tuple[Tensor, Tensor]]:
    """Inputs and targets of a minibatch of these points, for each step; see tasks.minibatches."""
    return [(x, y) if p is None else (x[p], y[p]) for p in minibatches(key, len(x), size, steps)]
