"""A head that is solved for on the support set, on features that are meta-learned through the solution.

    logits(x) = α W*ᵀ f(x),     w*_n = argmin_w  Σ_s l(w·f(x_s), [y_s = n]) + λ|w|²     for each class n

f is the learner without its last layer, with a 1 beside its features, so that the bias is in w. The solvers are those
of one-vs-rest classifiers:

    ridge      l = (t - y)²                with y in {0, 1}
    logistic   l = 2 log(1 + exp(-y t))    with y in {-1, 1}
    svm        l = max(0, 1 - y t)²        with y in {-1, 1}, the squared hinge

Each Newton step of the last two is a weighted ridge problem. f, the scale α and λ are meta-learned. In regression the
targets stand in place of y, and W*ᵀ f(x) is the answer; only ridge makes sense there.

References: Bertinetto, Henriques, Torr & Vedaldi 2019, "Meta-learning with differentiable closed-form solvers", arXiv
1805.08136 (ridge is R2-D2, logistic LR-D2); Lee, Maji, Ravichandran & Soatto 2019, "Meta-learning with differentiable
convex optimization", arXiv 1904.03758 (MetaOptNet, whose support vector machine is a multi-class one with a linear
hinge, solved by quadratic programming).

We differ in λ, which they fix and we learn, and which weighs against the sum over support points, so that it means the
same with more shots; and in the gradient: they differentiate all Newton steps, we the last one. At the solution that is
the exact gradient of the implicit function, whatever came before. Support and query set are normalised together where
batch norm is transductive, as in their training.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from metarun.algos.base import without_head
from metarun.algos.feedforward import Feedforward, mask_absent
from metarun.errors import SettingError, at_least, one_of, positive
from metarun.models.functional import Params
from metarun.tasks import Task, TaskSource

SCALE, PENALTY = "log scale", "log penalty"  # beside the learner's parameters


@dataclass(eq=False, kw_only=True)
class ClosedForm(Feedforward):
    """A ridge, logistic or support vector head, solved for in each task.

    Args:
        solver: `ridge`, `logistic` or `svm`. Regression takes ridge.
        scale: α before meta-training, above 0. Not for regression, where the answers are in the targets' units.
        penalty: λ before meta-training, above 0.
        newton_steps: of `logistic` and `svm`, until the weights have converged.
    """

    any_ways = True
    training_only: ClassVar = (*Feedforward.training_only, "scale", "penalty")
    acts_with: ClassVar = {"newton_steps": ("solver", ("logistic", "svm"))}

    solver: str = "ridge"
    scale: float = 10.0
    penalty: float = 1.0
    newton_steps: int = 10

    def __post_init__(self):
        super().__post_init__()
        one_of("solver", self.solver, ["ridge", "logistic", "svm"])
        positive("scale", self.scale)
        positive("penalty", self.penalty)
        at_least(1, newton_steps=self.newton_steps)
        self.model, head = without_head(self.model)
        self.ways = head.out_features  # at most; a task may have fewer

    @property
    def name(self) -> str:
        """See Algorithm."""
        return {"ridge": "Ridge head", "logistic": "Logistic head", "svm": "SVM head"}[self.solver]

    def check(self, source: TaskSource, meta_batch: int) -> None:
        """See Algorithm."""
        if source.metric != "accuracy" and self.solver != "ridge":
            raise SettingError(self.solver, "algo.solver", "ridge in regression, where there are no classes")

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: how the head is solved for."""
        steps = "" if self.solver == "ridge" else f", Newton steps: {self.newton_steps}"
        return {"head": f"{self.solver}{steps}"}

    def init(self) -> Params:
        """{name: tensor}: the learner's own weights, and the logarithms of α and λ."""
        learner = super().init()
        numbers = {SCALE: self.scale, PENALTY: self.penalty}
        like = next(iter(learner.values()), torch.zeros(()))
        return {**learner, **{name: like.new_tensor(math.log(value)) for name, value in numbers.items()}}

    def answers(self, meta: Params, task: Task) -> Tensor:
        """[Q, N] α times the margins of the classes, or in regression values; least for a class without support."""
        learner = {name: value for name, value in meta.items() if name not in (SCALE, PENALTY)}
        x = self.predict_points(learner, task)
        support, query = F.pad(x, (0, 1), value=1.0).tensor_split([len(task.support_x)])
        classes = not task.support_y.is_floating_point()
        targets = (F.one_hot(task.support_y, self.ways).to(x) if classes else task.support_y).T  # [N, S]
        outputs = query @ solve_head(self.solver, support, targets, meta[PENALTY].exp(), self.newton_steps).T
        if not classes:
            return outputs
        return mask_absent(meta[SCALE].exp() * outputs, targets.sum(dim=1))


def solve_head(solver: str, x: Tensor, targets: Tensor, penalty: Tensor, newton_steps: int) -> Tensor:
    """[N, D] the weights of each class, or output, by one of the solvers.

    Args:
        solver: `ridge`, `logistic` or `svm`.
        x: [S, D] features of the support set.
        targets: [N, S] 1 where the point is of the class, else 0; or in regression its values.
        penalty: [] λ.
        newton_steps: of the last two solvers.
    """
    if solver == "ridge":
        return solve_ridge(x, targets, penalty, torch.ones_like(targets[:1]))
    step = newton_step(_logistic if solver == "logistic" else _squared_hinge)
    y, weights = 2 * targets - 1, x.new_zeros(len(targets), x.shape[1])
    with torch.no_grad():
        for _ in range(newton_steps):
            weights = step(x, y, penalty, weights)
    return step(x, y, penalty, weights)  # at the solution its gradient is that of the implicit function


def solve_ridge(x: Tensor, y: Tensor, penalty: Tensor, weight: Tensor) -> Tensor:
    """[N, D] argmin_w Σ_s weight_s (y_s - w·x_s)² + penalty |w|² of N problems, by the smaller system of equations.

    Args:
        x: [S, D].
        y: [N, S] targets.
        penalty: [].
        weight: [N, S], or [1, S] for all problems; at least 0.
    """
    root = weight.sqrt()
    x, y = root[..., None] * x, (root * y)[..., None]  # [N or 1, S, D], [N, S, 1]
    few = x.shape[1] <= x.shape[2]
    gram = x @ x.mT if few else x.mT @ x
    matrix = gram + penalty * torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    solution = x.mT @ torch.linalg.solve(matrix, y) if few else torch.linalg.solve(matrix, x.mT @ y)
    return solution[..., 0]


Curvature = Callable[[Tensor], tuple[Tensor, Tensor]]


def newton_step(loss: Curvature) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """A Newton step on Σ_s l(y_s w·x_s) + penalty |w|², given half the slope and half the curvature of l."""

    def step(x: Tensor, y: Tensor, penalty: Tensor, weights: Tensor) -> Tensor:
        outputs = weights @ x.T  # [N, S]
        slope, curvature = loss(y * outputs)
        weight = curvature.detach()
        targets = outputs - y * slope / weight.clamp(min=1e-12)
        return solve_ridge(x, targets, penalty, weight)

    return step


def _logistic(margins: Tensor) -> tuple[Tensor, Tensor]:
    probability = torch.sigmoid(-margins)
    return -probability, probability * (1 - probability)


def _squared_hinge(margins: Tensor) -> tuple[Tensor, Tensor]:
    active = (margins < 1).to(margins.dtype)
    return active * (margins - 1), active
