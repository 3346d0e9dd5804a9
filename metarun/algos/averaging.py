"""Averaging: several learners, whose predictions or whose parameters are averaged.

    average=predictions   p(y | x) = mean over m of p(y | x; θ^m_K),     θ^m meta-learned, each from its own start
    average=parameters    θ_0 = mean over m of θ^m,     θ^m <- θ^m - β ∇ (L_task m(θ^m) + λ R(θ^m))

Predictions: M learners with different initial weights see the same tasks. Each is tuned on the support set, in training
(`inner_steps`; first order) as on a new task, and its query loss trains it. Averaged are the class probabilities, or
in regression the outputs.

Parameters: each of M learners is trained on one task of its own, again and again, on support and query points alike.
On a new task the mean of their parameters is tuned on the support set. R is nothing, |θ^m|² (`l2`), or |θ^m - mean
θ|² (`mean`). Reference: the multi-task baselines of Finn, Abbeel & Levine 2017, appendix C, arXiv 1703.03400. They
train one learner after the other, each on ever new points of its function, and regularise to the mean of those trained
so far; here all are trained at once, on the shots + queries points of their tasks (so let those be many), and it is the
present mean of all. Whether theirs begin with the same weights we do not know. With `initial_weights=shared` the mean
stays among them, and has the published errors; with weights of their own it is close to the function 0.
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
from metarun.models.functional import Params
from metarun.tasks import Task, TaskSource, example_losses, score


@dataclass(eq=False, kw_only=True)
class Averaging(GradientBased):
    """Both kinds of averaging. The meta-parameters are those of all learners, stacked: [M, ...].

    Args:
        average: `predictions` or `parameters`.
        learners: M. With parameters also the number of training tasks, and `meta_batch` has to be the same, so that
            every learner is trained in every outer step.
        inner_steps: with predictions, how often each learner is tuned in training before its query loss is taken, by
            default once; 0: it is trained on support and query points directly. None with parameters.
        initial_weights: `own`: every learner has others; with parameters also `shared`: all begin alike, so that their
            mean is near each of them.
        regularize: with parameters `none`, `l2` or `mean`; with predictions `none`.
        strength: λ; 0 without regularisation.
    """

    training_only: ClassVar = (
        *GradientBased.training_only, "average", "inner_steps", "initial_weights", "regularize", "strength",
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
        more = range(self.learners - 1)
        self.initial = [self.model, *(self.model if shared else another(self.model) for _ in more)]

    def _check_regularization(self) -> None:
        if self.regularize != "none" and not self.of_parameters:
            raise SettingError(self.regularize, "regularize", "none with algo.average=predictions")
        wanted = "0 without algo.regularize" if self.regularize == "none" else "a number above 0 with algo.regularize"
        number = isinstance(self.strength, (int, float)) and not isinstance(self.strength, bool)
        if not number or not 0 <= self.strength < float("inf") or (self.strength > 0) != (self.regularize != "none"):
            raise SettingError(self.strength, "strength", wanted)

    @property
    def of_parameters(self) -> bool:
        """Whether the parameters are averaged."""
        return self.average == "parameters"

    @property
    def training_steps(self) -> int:
        """See GradientBased."""
        return int(not self.of_parameters) if self.inner_steps is None else self.inner_steps

    @property
    def train_tasks(self) -> int | None:
        """With parameters one for each learner."""
        return self.learners if self.of_parameters else None

    def check(self, source: TaskSource, meta_batch: int) -> None:
        """See Algorithm."""
        if self.of_parameters and meta_batch != self.learners:
            raise SettingError(
                meta_batch, "meta_batch", f"{self.learners}, as algo.learners: each has a task in every outer step"
            )

    def init(self) -> Params:
        """The weights of all learners, each with initial ones of its own."""
        each = [dict(model.named_parameters()) for model in self.initial]
        return {name: torch.stack([one[name].detach() for one in each]) for name in each[0]}

    def start(self, meta: Params, task: Task) -> Params:
        """With parameters: their mean."""
        return {name: value.mean(dim=0) for name, value in meta.items()} if self.of_parameters else meta

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The learners' mean loss, where each learner has the gradient of its own; and the query metric."""
        return (self._own_task if self.of_parameters else self._shared_task)(meta, task)

    def inner_loop(self, meta: Params, task: Task) -> Iterator[Params]:
        """See Algorithm; of all learners."""
        if self.of_parameters:
            return iter([meta])
        return iter(vmap(lambda params: list(self.adapt(params, task, self.training_steps)))(meta))

    def _own_task(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The loss and the query metric of the learner whose task this is."""
        number = task.key % self.learners  # keys are consecutive, so M tasks in a row have M remainders
        # A product with a one-hot vector: indexing would have a gradient of the size of all learners for every task.
        chosen = F.one_hot(number, self.learners)
        mine = {name: torch.tensordot(chosen.to(value), value, dims=1) for name, value in meta.items()}
        x, y = task.points()
        loss = example_losses(self.predict(mine, x), y).mean()
        if self.regularize != "none":
            towards = self.start(meta, task) if self.regularize == "mean" else {}
            loss = loss + self.strength * sum((mine[n] - towards.get(n, 0)).square().sum() for n in mine)
        # The engine takes the mean over the M tasks of a meta-batch; times M it is the learner's own gradient.
        return _with_gradient_of(loss * self.learners, loss), score(self.query(mine, task), task.query_y)

    def _shared_task(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """Every learner's loss, and the metric of the averaged prediction."""

        def one(params: Params) -> tuple[Tensor, Tensor]:
            *_, tuned = self.adapt(params, task, self.training_steps, first_order=True)
            outputs = self.query(tuned, task)
            if self.training_steps:
                return example_losses(outputs, task.query_y).mean(), outputs
            x, y = task.points()
            return example_losses(self.predict(params, x), y).mean(), outputs

        losses, outputs = vmap(one)(meta)
        return _with_gradient_of(losses.sum(), losses.mean()), score(averaged(outputs, task), task.query_y)

    def predictions(self, meta: Params, task: Task) -> Tensor:
        """[K+1, Q, N] outputs of the mean learner, or the mean prediction of all."""
        if self.of_parameters:
            return super().predictions(meta, task)

        def outputs(params: Params) -> Tensor:
            """[K+1, Q, N]."""
            return torch.stack([self.query(p, task) for p in self.adapt(params, task, self.test_steps)])

        each = vmap(outputs)(meta)
        return torch.stack([averaged(some, task) for some in each.unbind(1)])

    @property
    def name(self) -> str:
        """Averaging of what."""
        return f"Averaging of {self.learners} learners' {self.average}"

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: the order of the meta-gradient, or what keeps the learners together."""
        if not self.of_parameters:
            return {"meta_gradient": "first order"}
        toward = {"none": "none", "l2": "towards zero", "mean": "towards the mean of all learners"}[self.regularize]
        words = toward if self.regularize == "none" else f"{toward}, strength {self.strength:g}"
        return {"learners": f"{self.initial_weights} initial weights", "regularised": words}


def another(model: nn.Module) -> nn.Module:
    """The same learner with other initial weights.

    Raises:
        SettingError: a part of it cannot draw its weights anew.
    """
    new = copy.deepcopy(model)
    for name, module in new.named_modules():
        if callable(draw := getattr(module, "reset_parameters", None)):
            draw()
        elif list(module.parameters(recurse=False)):
            raise SettingError(f"{type(model).__name__}.{name}", "model", "modules that have reset_parameters()")
    return new


def _with_gradient_of(scaled: Tensor, loss: Tensor) -> Tensor:
    """`loss`, with the gradient of `scaled`."""
    return loss.detach() + scaled - scaled.detach()


def averaged(outputs: Tensor, task: Task) -> Tensor:
    """[Q, N] mean over learners of [M, Q, N]: of probabilities (as logits) for classes, of outputs in regression."""
    if task.query_y.is_floating_point():
        return outputs.mean(dim=0)
    return outputs.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(outputs))
