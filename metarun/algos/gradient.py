"""The base class of algorithms that tune a learner on the support set by gradient steps.

    θ_{k+1} = θ_k - rule(∇ L_support(θ_k)),     k = 0 .. K-1

Subclasses say where θ_0 and the rule come from, and how the meta-loss depends on the θ_k.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarun.algos.base import Algorithm
from metarun.algos.inner import SGD, Adam, Rule, inner_step
from metarun.errors import SettingError, UsageError, at_least, one_of, positive
from metarun.models.functional import Params
from metarun.models.learner import Learner
from metarun.models.unit import unit
from metarun.tasks import Task, TaskSource, example_losses, score


@dataclass(eq=False, kw_only=True)
class GradientBased(Algorithm):
    """An algorithm with an inner loop.

    Args:
        inner_lr: rate of the inner loop.
        eval_inner_steps: K in validation and test; None: as in training.
        inner_loss_reduction: of the support loss. `mean`: over all S support examples. `per_shot`: their sum divided by
            the shots, that is N times the mean, as in the code of Finn et al.; in regression the same as `mean`.

    Attributes:
        fixed: names of the learner's parameters that the inner loop leaves as they are: by default batch norm's.
    """

    inner_lr: float = 0.01
    eval_inner_steps: int | None = 10
    inner_loss_reduction: str = "mean"

    def __post_init__(self):
        super().__post_init__()
        positive("inner_lr", self.inner_lr)
        at_least(0, inner_steps=self.training_steps, eval_inner_steps=self.test_steps)
        one_of("inner_loss_reduction", self.inner_loss_reduction, ["mean", "per_shot"])
        self.fixed: set[str] = self.model.norm_parameters if isinstance(self.model, Learner) else set()

    @property
    def training_steps(self) -> int:
        """K in training: the setting inner_steps, and 0 where there is none."""
        return getattr(self, "inner_steps", 0)

    @property
    def test_steps(self) -> int:
        """K in validation and test."""
        return self.training_steps if self.eval_inner_steps is None else self.eval_inner_steps

    def start(self, meta: Params, task: Task) -> Params:
        """The learner's parameters before the first inner step; by default the meta-parameters themselves."""
        return meta

    def rule(self, meta: Params) -> Rule:
        """The update rule; by default SGD at inner_lr."""
        return SGD(self.inner_lr)

    def constants(self, task: Task) -> Params:
        """What a task adds to the learner's parameters for predict(), and no inner step changes; by default none."""
        return {}

    def batches(self, task: Task, steps: int) -> list[tuple[Tensor, Tensor]]:
        """Inputs and targets for each inner step; by default the whole support set."""
        return [(task.support_x, task.support_y)] * steps

    def loss(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """[] the inner loss of these points."""
        outputs = self.predict(params, x)
        classes = not y.is_floating_point()
        ways = self.count_ways(params, outputs) if classes and self.inner_loss_reduction == "per_shot" else 1
        return example_losses(outputs, y).mean() * ways

    def count_ways(self, params: Params, outputs: Tensor) -> int | Tensor:
        """N, or [] N: the classes of the task that these outputs, [n, N] or more, are of."""
        return outputs.shape[-1]

    def adapt(self, meta: Params, task: Task, steps: int, *, first_order: bool = False) -> Iterator[Params]:
        """Yields the learner's parameters after 0, 1, ..., `steps` inner steps on the support set."""
        learner = self.start(meta, task)
        fixed = {name: value for name, value in learner.items() if name in self.fixed} | self.constants(task)
        adapted = {name: value for name, value in learner.items() if name not in self.fixed}
        if not adapted:
            rule = "expected weights that inner steps change; set algo.inner_parameters=all, or let more be trained"
            raise UsageError(f"{', '.join(sorted(fixed))} (model): all that is trained, of batch norm alone: {rule}")
        for params, _ in self.trajectory(meta, adapted, [fixed] * steps, self.batches(task, steps), first_order):
            yield {**fixed, **params}

    def trajectory(
        self, meta: Params, params: Params, fixed: list[Params], batches: list[tuple[Tensor, Tensor]], first_order: bool
    ) -> Iterator[tuple[Params, Any]]:
        """Yields the adapted parameters and the rule's state after 0, 1, ... inner steps.

        Args:
            meta: the meta-parameters, for the rule.
            params: the adapted parameters before the first step.
            fixed: for each step the learner's other parameters.
            batches: for each step its points.
            first_order: treat the inner gradients as constants.
        """
        state = self.rule(meta).init(params)
        yield params, state
        for rest, (x, y) in zip(fixed, batches, strict=True):
            params, state = unit(self.step, meta, rest, x, y, params, state, first_order)
            yield params, state

    def step(
        self, meta: Params, fixed: Params, x: Tensor, y: Tensor, params: Params, state: Any, first_order: bool
    ) -> tuple[Params, Any]:
        """The adapted parameters and the rule's state after one inner step. A unit."""

        def loss(params: Params) -> Tensor:
            return self.loss({**fixed, **params}, x, y)

        return inner_step(loss, params, self.rule(meta), state, first_order=first_order)

    def inner_loop(self, meta: Params, task: Task) -> Iterator[Params]:
        """See Algorithm."""
        return self.adapt(meta, task, self.training_steps)

    def query(self, params: Params, task: Task) -> Tensor:
        """[Q, N] the learner's outputs on the query set."""
        return self.predict(params, task.query_x, task.support_x)

    def judge(self, params: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean query loss and the query metric under these parameters, both []."""
        return unit(self._judge, params, task)

    def _judge(self, params: Params, task: Task) -> tuple[Tensor, Tensor]:
        """See judge. A unit."""
        outputs = self.query(params, task)
        return example_losses(outputs, task.query_y).mean(), score(outputs, task.query_y)

    def predictions(self, meta: Params, task: Task) -> Tensor:
        """[K+1, Q, N] outputs on the query set after each inner step."""
        return torch.stack([self.query(params, task) for params in self.adapt(meta, task, self.test_steps)])

    def inner(self, source: TaskSource) -> dict[str, Any]:
        """See Algorithm. `lr_on_mean` is there where the loss grows with the ways, which are the same in training."""
        rule = self.rule(self.init()).name
        per_shot = self.inner_loss_reduction == "per_shot" and source.metric == "accuracy"
        facts = source.facts()
        ways = None if facts.get("train_ways") else facts.get("ways") or source.outputs
        return {
            "rule": rule,
            "lr": self.inner_lr,
            "lr_on_mean": self.inner_lr * ways if ways and per_shot and rule != "Adam" else None,
            "reduction": "per_shot" if per_shot else "mean",
            "steps": self.training_steps,
            "eval_steps": self.test_steps,
        }


def make_rule(optimizer: str, lr: float, betas: tuple[float, float] | None) -> Rule:
    """The update rule that the settings name.

    Args:
        optimizer: `sgd`, or `adam` with fresh moments in every task.
        lr: its rate.
        betas: Adam's (β1, β2), by default (0.9, 0.999). None with sgd.

    Raises:
        SettingError: inner_optimizer or inner_betas is out of range.
    """
    one_of("inner_optimizer", optimizer, ["sgd", "adam"])
    if optimizer == "sgd":
        if betas is not None:
            raise SettingError(betas, "inner_betas", "null with inner_optimizer=sgd, which has no betas")
        return SGD(lr)
    betas = (0.9, 0.999) if betas is None else betas
    numbers = isinstance(betas, Sequence) and all(isinstance(beta, int | float) for beta in betas)
    if not numbers or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise SettingError(betas, "inner_betas", "two numbers in [0, 1), such as [0.9,0.999]")
    return Adam(lr, (betas[0], betas[1]))
