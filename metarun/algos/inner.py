"""Differentiable inner-loop updates: learner parameters in, learner parameters out, nothing changed in place.

    θ_{k+1} = θ_k - rule(∇ loss(θ_k))          k = 0 .. K-1

Parameters are {name: tensor}. Every function is pure, so that autograd and vmap can go through it.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import grad_and_value

from metarun.models.functional import Params


def with_prefix(prefix: str, params: Params) -> Params:
    """The same tensors, named `prefix.name`."""
    return {f"{prefix}.{name}": value for name, value in params.items()}


def without_prefix(prefix: str, params: Params) -> Params:
    """The tensors whose names begin with `prefix.`, named without it."""
    return {name.removeprefix(f"{prefix}."): value for name, value in params.items() if name.startswith(f"{prefix}.")}


class Rule(Protocol):
    """An update rule of the inner loop: the state of a loop, and a step.

    Attributes:
        name: for people, such as SGD.
    """

    name: str

    def init(self, params: Params) -> Any:
        """The state before the first step."""
        ...

    def step(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        """The parameters and the state after one step."""
        ...


class SGD:
    """θ <- θ - lr g.

    Args:
        lr: a rate for all parameters, or {name: tensor} of learned rates that broadcast to the parameters.
    """

    def __init__(self, lr: float | Params):
        self.lr = lr
        self.name = "learned rates" if isinstance(lr, dict) else "SGD"

    def init(self, params: Params) -> None:
        """None: SGD has no state."""

    def step(self, params: Params, grads: Params, state: None) -> tuple[Params, None]:
        """One step."""
        lr = self.lr if isinstance(self.lr, dict) else dict.fromkeys(params, self.lr)
        return {name: params[name] - lr[name] * grads[name] for name in params}, None


class Adam:
    """θ <- θ - lr m̂ / (√v̂ + eps), with m and v from zero in every task (Kingma & Ba 2015, algorithm 1)."""

    name = "Adam"

    def __init__(self, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8):
        self.lr, self.betas, self.eps = lr, betas, eps

    def init(self, params: Params) -> tuple[Tensor, Params, Params]:
        """The step count and both moments, zero."""
        zeros = {name: torch.zeros_like(value) for name, value in params.items()}
        return step_counter(params), zeros, zeros

    def step(self, params: Params, grads: Params, state: tuple[Tensor, Params, Params]):
        """One step."""
        beta1, beta2 = self.betas
        t = state[0] + 1
        m = {name: beta1 * state[1][name] + (1 - beta1) * g for name, g in grads.items()}
        v = {name: beta2 * state[2][name] + (1 - beta2) * g * g for name, g in grads.items()}
        new = {}
        for name, value in params.items():
            m_hat, v_hat = m[name] / (1 - beta1**t), v[name] / (1 - beta2**t)
            # √0 has an infinite slope: a weight whose gradient is exactly 0 would make the meta-gradient nan.
            root = torch.where(v_hat > 0, v_hat, torch.ones_like(v_hat)).sqrt() * (v_hat > 0)
            new[name] = value - self.lr * m_hat / (root + self.eps)
        return new, (t, m, v)


def step_counter(params: Params) -> Tensor:
    """[] float64 zero, on the parameters' device: the number of steps done.

    float64, where powers of β are as exact as Python's.
    """
    return torch.zeros((), dtype=torch.float64, device=next(iter(params.values())).device)


def nan_if_loss_is_not_finite(grads: Params, loss: Tensor) -> Params:
    """The same gradients, with nan in the first of them if the loss is not finite.

    An infinite loss may have a finite gradient, as (1e20)² has in float32. From one parameter the nan reaches every
    output, so that no such step goes unnoticed.
    """
    first = next(iter(grads))
    return {**grads, first: grads[first] + 0 * loss.detach()}


def inner_step(
    loss: Callable[[Params], Tensor], params: Params, rule: Rule, state: Any, *, first_order: bool = False
) -> tuple[Params, Any]:
    """The learner and the rule's state after one inner step.

    Args:
        loss: [] of the parameters that are adapted.
        params: the adapted parameters before the step.
        rule: the update rule.
        state: its state.
        first_order: treat the gradient as a constant; the graph of the second derivatives is then never built.
    """
    # torch.func.grad differentiates inside a no_grad block all the same, but nothing outside sees through it.
    with torch.set_grad_enabled(torch.is_grad_enabled() and not first_order):
        grads, value = grad_and_value(loss)(params)
    return rule.step(params, nan_if_loss_is_not_finite(grads, value), state)
