"""Averaging: several learners, whose predictions or whose parameters are averaged.

    average=predictions   p(y | x) = mean over m of p(y | x; θ^m_K),     θ^m meta-learned, each from its own start
    average=parameters    θ_0 = mean over m of θ^m,     θ^m <- θ^m - β ∇ (L_task m(θ^m) + λ R(θ^m))

Predictions: M learners with different initial weights see the same tasks. A learner is tuned on the support set, in
training (`inner_steps`; first order) as on a new task, and trained by its own query loss. The class probabilities are
averaged, or in regression the outputs.

Parameters: every learner is trained on a task of its own, again and again, on support and query points alike. On a new
task the mean of their parameters is tuned on the support set. R is 0, |θ^m|² (`l2`), or |θ^m - mean θ|² (`mean`).

Reference for parameters: the multi-task baselines of Finn, Abbeel & Levine 2017, appendix C, arXiv 1703.03400. We
differ: they train one learner after the other, on ever new points of its function, and regularise towards the mean of
the learners trained so far; here all are trained at once, on the shots + queries points of their tasks (so let those be
many), and towards the present mean of all. The paper does not say whether its learners begin with the same weights.
With `initial_weights=shared` the mean stays near the learners, and has the published errors; with weights of their own
it is close to the function 0.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from metarun.algos.gradient import GradientBased
from metarun.errors import SettingError, at_least, one_of
from metarun.models.functional import Params, weights_of
from metarun.models.learner import Learner
from metarun.tasks import Task, TaskSource, example_losses, owner_of, score


@dataclass(eq=False, kw_only=True)
class Averaging(GradientBased):
    """Both kinds of averaging. The meta-parameters are those of all learners, stacked: [M, ...].

    Args:
        average: `predictions` or `parameters`.
        learners: M. With parameters also the number of training tasks, and `meta_batch` has to be the same, so that
            every learner is trained in every outer step.
        inner_steps: with predictions, the inner steps in training before the query loss, by default 1; 0: learners are
            trained on support and query points directly. None with parameters.
        initial_weights: `own`: the learners begin differently; with parameters also `shared`: they begin alike, so that
            their mean is near all of them.
        regularize: with parameters `none`, `l2` or `mean`; with predictions `none`.
        strength: λ; 0 without regularisation.
    """

    training_only: ClassVar = (
        *GradientBased.training_only, "inner_steps", "initial_weights", "regularize", "strength",
    )  # fmt: skip

    average: str = "predictions"
    learners: int = 5
    inner_steps: int | None = None
    initial_weights: str = "own"
    regularize: str = "none"
    strength: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        at_least(1, learners=self.learners)
        one_of("average", self.average, ["predictions", "parameters"])
        one_of("regularize", self.regularize, ["none", "l2", "mean"])
        self._check_regularization()
        if self.of_parameters and self.inner_steps is not None:
            raise SettingError(
                self.inner_steps, "inner_steps", "null with algo.average=parameters: each learner has one task"
            )
        at_least(0, inner_steps=self.training_steps)
        one_of("initial_weights", self.initial_weights, ["own", "shared"])
        shared = self.initial_weights == "shared"
        if shared and not self.of_parameters:
            expected = "own with algo.average=predictions, or all learners would be one"
            raise SettingError(self.initial_weights, "initial_weights", expected)
        others = range(self.learners - 1)
        self.initial = [self.model, *(self.model if shared else with_new_weights(self.model) for _ in others)]

    def _check_regularization(self) -> None:
        if self.regularize != "none" and not self.of_parameters:
            raise SettingError(self.regularize, "regularize", "none with algo.average=predictions")
        wanted = "0 without algo.regularize" if self.regularize == "none" else "a number above 0 with algo.regularize"
        number = isinstance(self.strength, (int, float)) and not isinstance(self.strength, bool)
        if not number or not 0 <= self.strength < float("inf") or (self.strength > 0) != (self.regularize != "none"):
            raise SettingError(self.strength, "strength", wanted)

    @property
    def of_parameters(self) -> bool:
        """Whether parameters are averaged, rather than predictions."""
        return self.average == "parameters"

    @property
    def training_steps(self) -> int:
        """See GradientBased."""
        return int(not self.of_parameters) if self.inner_steps is None else self.inner_steps

    @property
    def train_tasks(self) -> int | None:
        """See Algorithm: with parameters, a task for each learner."""
        return self.learners if self.of_parameters else None

    def check(self, source: TaskSource, meta_batch: int) -> None:
        """See Algorithm."""
        if self.of_parameters and meta_batch != self.learners:
            raise SettingError(
                meta_batch, "meta_batch", f"{self.learners}, as algo.learners: each has a task in every outer step"
            )

    def init(self) -> Params:
        """{name: [M, ...]}: the initial weights of all learners."""
        learners = [weights_of(model) for model in self.initial]
        return {name: torch.stack([weights[name].detach() for weights in learners]) for name in learners[0]}

    def start(self, meta: Params, task: Task) -> Params:
        """With parameters their mean over the learners, else the meta-parameters themselves."""
        return {name: value.mean(dim=0) for name, value in meta.items()} if self.of_parameters else meta

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The learners' mean loss, by which every learner has the gradient of its own loss; and the query metric."""
        return (self._loss_of_the_owner if self.of_parameters else self._loss_of_all)(meta, task)

    def inner_loop(self, meta: Params, task: Task) -> Iterator[Params]:
        """See Algorithm. Yields {name: [M, ...]}."""
        if self.of_parameters:
            return iter([meta])
        return iter(vmap(lambda params: list(self.adapt(params, task, self.training_steps)))(meta))

    def _loss_of_the_owner(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The loss and the query metric of the learner that owns the task."""
        # A product with a one-hot vector: indexing would have a gradient of the size of all learners for every task.
        mask = F.one_hot(owner_of(task.key, self.learners), self.learners)
        learner = {name: torch.tensordot(mask.to(value), value, dims=1) for name, value in meta.items()}
        x, y = task.points()
        loss = example_losses(self.predict(learner, x), y).mean()
        if self.regularize != "none":
            centre = self.start(meta, task) if self.regularize == "mean" else {}
            loss = loss + self.strength * sum((learner[n] - centre.get(n, 0)).square().sum() for n in learner)
        # The engine takes the mean over the M tasks of a meta-batch; times M it is the learner's own gradient.
        return _with_gradient_of(loss * self.learners, loss), score(self.query(learner, task), task.query_y)

    def _loss_of_all(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The learners' mean loss, and the metric of the averaged prediction."""

        def loss_and_outputs(params: Params) -> tuple[Tensor, Tensor]:
            *_, tuned = self.adapt(params, task, self.training_steps, first_order=True)
            outputs = self.query(tuned, task)
            if self.training_steps:
                return example_losses(outputs, task.query_y).mean(), outputs
            x, y = task.points()
            return example_losses(self.predict(params, x), y).mean(), outputs

        losses, outputs = vmap(loss_and_outputs)(meta)
        return _with_gradient_of(losses.sum(), losses.mean()), score(average_outputs(outputs, task), task.query_y)

    def predictions(self, meta: Params, task: Task) -> Tensor:
        """[K+1, Q, N] outputs of the mean learner, or the mean prediction of all learners."""
        if self.of_parameters:
            return super().predictions(meta, task)

        def outputs(params: Params) -> Tensor:
            """[K+1, Q, N]."""
            return torch.stack([self.query(p, task) for p in self.adapt(params, task, self.test_steps)])

        by_step = vmap(outputs)(meta).unbind(1)  # K+1 of [M, Q, N]
        return torch.stack([average_outputs(learners, task) for learners in by_step])

    @property
    def name(self) -> str:
        """See Algorithm."""
        return f"Averaging of {self.learners} learners' {self.average}"

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: the order of the meta-gradient; or the learners' initial weights and regularisation."""
        if not self.of_parameters:
            return {"meta_gradient": "first order"} if self.training_steps else {}
        centre = {"l2": "zero", "mean": "the mean of all learners"}.get(self.regularize)
        words = f"towards {centre}, strength {self.strength:g}" if centre else "none"
        return {"learners": f"{self.initial_weights} initial weights", "regularised": words}


def with_new_weights(model: nn.Module) -> nn.Module:
    """A copy of a learner with newly drawn initial weights.

    Raises:
        SettingError: one of its modules has weights and no reset_parameters().
    """
    if isinstance(model, Learner) and (again := model.with_new_weights()):
        return again  # with its own initial weights, rather than those of torch's layers
    new = copy.deepcopy(model)
    for name, module in new.named_modules():
        if callable(draw := getattr(module, "reset_parameters", None)):
            draw()
        elif list(module.parameters(recurse=False)):
            raise SettingError(f"{type(model).__name__}.{name}", "model", "modules that have reset_parameters()")
    return new


def _with_gradient_of(scaled: Tensor, loss: Tensor) -> Tensor:
    """The value of `loss`, with the gradient of `scaled`."""
    return loss.detach() + scaled - scaled.detach()


def average_outputs(outputs: Tensor, task: Task) -> Tensor:
    """[Q, N] mean over learners of [M, Q, N]: of probabilities (as logits) for classes, of outputs in regression."""
    if task.query_y.is_floating_point():
        return outputs.mean(dim=0)
    return outputs.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(outputs))
