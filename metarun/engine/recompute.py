"""Units of an algorithm (models/unit.py) that are computed again for their gradients, instead of being kept.

    unit(function, *args)             of an algorithm
      recompute(function, *args)
        _Unit                         runs it below every vmap, and knows its gradients:
          forward                     its results; only its arguments are kept
          backward                    the gradients, through a graph that is computed again
          vmap                        the same call, for all tasks at once

Why so: torch.utils.checkpoint does not work inside torch.func.grad (pytorch#122729).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from metarun.models.unit import running

Tensors = tuple[Tensor, ...]


def recompute(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args), of which only the arguments are kept for its gradient."""
    leaves, spec = tree_flatten(args)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    constants = tuple(None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves)
    call = _Call(function, constants, spec)
    return call.results(_Unit.apply(call.run, *tensors))


class _Call:
    """A call of a unit on flat tuples of tensors: the function, its other arguments, and what it is mapped over."""

    def __init__(self, function: Callable[..., Any], constants: tuple, spec: TreeSpec):
        self.function, self.constants, self.spec = function, constants, spec
        self.out_spec: TreeSpec | None = None
        self.out_constants: list[Any] = []

    def run(self, *tensors: Tensor) -> Tensors:
        rest = iter(tensors)
        leaves = [next(rest) if constant is None else constant[0] for constant in self.constants]
        with running(None):  # a unit's own units are part of it
            out, self.out_spec = tree_flatten(self.function(*tree_unflatten(leaves, self.spec)))
        self.out_constants = [None if isinstance(value, Tensor) else (value,) for value in out]
        return tuple(value for value in out if isinstance(value, Tensor))

    def results(self, tensors: Tensors) -> Any:
        """The tensors, and whatever else the function gave, as it gave them."""
        assert self.out_spec is not None, "it has run before its results are asked for"
        rest = iter(tensors)
        return tree_unflatten([next(rest) if c is None else c[0] for c in self.out_constants], self.out_spec)


class _Unit(torch.autograd.Function):
    """Runs a call on plain tensors, below every vmap, and knows its gradients."""

    @staticmethod
    def forward(run: Callable[..., Tensors], *tensors: Tensor) -> Tensors:
        with torch.no_grad():
            return run(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensors) -> None:
        ctx.run = inputs[0]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(value for value in output if not value.is_floating_point()))
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs = tuple(tensor.detach().requires_grad_(tensor.requires_grad) for tensor in ctx.saved_tensors)
        with torch.enable_grad():
            outputs = ctx.run(*inputs)
        wanted = [value for value in inputs if value.requires_grad]
        given = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if c is not None and o.requires_grad]
        if not given or not wanted:
            return (None,) * (1 + len(inputs))
        found = iter(torch.autograd.grad([o for o, _ in given], wanted, [c for _, c in given], allow_unused=True))
        return (None, *(next(found) if value.requires_grad else None for value in inputs))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, run: Callable[..., Tensors], *tensors: Tensor) -> tuple:
        dims = in_dims[1:]
        first = [t if d is None else t.movedim(d, 0) for t, d in zip(tensors, dims, strict=True)]
        mapped = vmap(run, in_dims=tuple(None if d is None else 0 for d in dims))
        results = _Unit.apply(mapped, *first)
        return results, (0,) * len(results)
