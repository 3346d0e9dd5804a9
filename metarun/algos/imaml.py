"""Implicit MAML: the meta-gradient of an inner problem that is solved, whatever steps solved it.

    φ* = argmin_φ L_support(φ) + λ/2 |φ - θ|²,     ∇_θ L_query(φ*) = (I + ∇²L_support(φ*)/λ)⁻¹ ∇L_query(φ*)

φ* comes from gradient steps that begin at θ, and the linear system is solved by conjugate gradients with products of
the Hessian and a vector alone. Nothing is kept of the inner steps: memory does not grow with their number.

Reference: Rajeswaran, Finn, Kakade & Levine 2019, "Meta-learning with implicit gradients", arXiv 1909.04630; this is
their iMAML by gradient descent. As in their code all parameters are adapted, batch norm's too, and `damping` is added
to the diagonal of the system, which near no minimum may not be positive definite.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import grad, grad_and_value

from metarun.algos.gradient import GradientBased
from metarun.algos.inner import with_prefix, without_prefix
from metarun.errors import SettingError, at_least, positive
from metarun.models.functional import Params
from metarun.tasks import Task, TaskSource, example_losses, score

PRIOR = "prior"  # θ during the inner loop, beside the learner's parameters


@dataclass(eq=False, kw_only=True)
class IMAML(GradientBased):
    """Implicit MAML. For the settings that are not here see GradientBased.

    Args:
        strength: λ, above 0: how strongly the inner problem holds to θ.
        inner_steps: that solve the inner problem in training; at least 1.
        cg_steps: of conjugate gradients; at least 1.
        damping: added to the diagonal of the linear system, at least 0.
    """

    training_only: ClassVar = (*GradientBased.training_only, "inner_steps", "cg_steps", "damping")

    strength: float = 2.0
    inner_steps: int = 16
    cg_steps: int = 5
    damping: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        positive("strength", self.strength)
        at_least(1, inner_steps=self.inner_steps, cg_steps=self.cg_steps)
        if not 0 <= self.damping < math.inf:
            raise SettingError(self.damping, "damping", "a finite number of at least 0")
        self.fixed = set()

    @property
    def name(self) -> str:
        """See Algorithm."""
        return "iMAML"

    def adapt(self, meta: Params, task: Task, steps: int, *, first_order: bool = True) -> Iterator[Params]:
        """Yields the learner's parameters after 0, 1, ..., `steps` inner steps on the inner problem from θ."""
        meta = {name: value.detach() for name, value in meta.items()}
        fixed = [with_prefix(PRIOR, meta)] * steps
        for params, _ in self.trajectory(meta, meta, fixed, self.batches(task, steps), first_order=True):
            yield params

    def loss(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """[] the inner loss of these points, with the pull towards θ."""
        prior = without_prefix(PRIOR, params)
        own = {name: value for name, value in params.items() if not name.startswith(f"{PRIOR}.")}
        away = torch.stack([(own[name] - prior[name]).square().sum() for name in own]).sum()
        return super().loss(own, x, y) + self.strength / 2 * away

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean query loss at the end of the inner loop, and the query metric, both [].

        The loss has the implicit gradient, which autograd would not find.
        """
        *_, solution = self.adapt(meta, task, self.inner_steps)

        def query_loss(params: Params) -> tuple[Tensor, Tensor]:
            outputs = self.query(params, task)
            return example_losses(outputs, task.query_y).mean(), score(outputs, task.query_y)

        def support_loss(params: Params) -> Tensor:
            return GradientBased.loss(self, params, task.support_x, task.support_y)

        with torch.no_grad():
            slope, (loss, metric) = grad_and_value(query_loss, has_aux=True)(solution)
            slope = solve(lambda v: self.multiply(support_loss, solution, v), slope, self.cg_steps)
        surrogate = sum(((meta[name] - meta[name].detach()) * slope[name]).sum() for name in meta)
        return loss + surrogate, metric

    def multiply(self, loss: Callable[[Params], Tensor], at: Params, vector: Params) -> Params:
        """(1 + damping) v + ∇²loss v / λ."""
        product = grad(lambda params: dot(grad(loss)(params), vector))(at)
        return {name: (1 + self.damping) * v + product[name] / self.strength for name, v in vector.items()}

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: how the meta-gradient is found."""
        return {"meta_gradient": f"implicit, λ {self.strength:g}, conjugate gradient steps: {self.cg_steps}"}


def dot(a: Params, b: Params) -> Tensor:
    """[] the inner product of two vectors that are given as tensors by name."""
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


def solve(matrix: Callable[[Params], Params], target: Params, steps: int) -> Params:
    """The x of matrix(x) = target, for a positive definite one, after so many conjugate gradient steps from 0."""
    x = {name: torch.zeros_like(value) for name, value in target.items()}
    residual = direction = target
    size = dot(residual, residual)
    for _ in range(steps):
        product = matrix(direction)
        curvature = dot(direction, product)
        # Solved, or not positive definite; nan stays nan.
        rate = torch.where(curvature <= 0, 0.0, size / curvature.clamp(min=1e-30))
        x = {name: x[name] + rate * direction[name] for name in x}
        residual = {name: residual[name] - rate * product[name] for name in x}
        before, size = size, dot(residual, residual)
        direction = {name: residual[name] + size / before.clamp(min=1e-30) * direction[name] for name in x}
    return x
