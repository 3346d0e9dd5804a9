"""How an engine runs units: compiled, or computed again when gradients need them."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from metarun.engine.compiled import Compiled
from metarun.models.unit import running


class Runner:
    """A way to run units.

    Args:
        compiled: whether by torch.compile, which takes a while when a unit is first met with tensors of new shapes.
        recompute: whether to keep of a unit only its arguments, and to compute the rest again for its gradients.
    """

    def __init__(self, *, compiled: bool, recompute: bool):
        self.compiled, self.recompute = compiled, recompute
        self._programs: dict[Any, _Program] = {}
        self._lock = threading.Lock()

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """function(*args)."""
        leaves, spec = tree_flatten(args)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        constants = tuple(None if isinstance(leaf, Tensor) else (leaf, type(leaf)) for leaf in leaves)  # 1 is True
        call = _Call(self, function, constants, spec)
        results = _Unit.apply(call, torch.is_grad_enabled(), *tensors)
        return call.program.results(results)

    def program(self, call: "_Call", tensors: tuple[Tensor, ...]) -> "_Program":
        """What a call runs; made when it is first needed."""
        shapes = tuple((t.shape, t.stride(), t.dtype, t.requires_grad) for t in tensors) if self.compiled else None
        key = (*call.key, shapes)
        with self._lock:
            if key not in self._programs:
                self._programs[key] = _Program(call, self.compiled)
            return self._programs[key]


class _Call:
    """A call of a unit: the function, its arguments but for the tensors, and over which of those it is mapped."""

    def __init__(
        self, runner: Runner, function: Callable[..., Any], constants: tuple, spec: TreeSpec, maps: tuple = ()
    ):
        self.runner, self.function, self.constants, self.spec, self.maps = runner, function, constants, spec, maps
        self.parent: _Call | None = None
        self.program: _Program
        self.kept: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] | None = None

    @property
    def key(self) -> tuple:
        """Calls with the same key run the same program."""
        owner = getattr(self.function, "__self__", None)
        function = getattr(self.function, "__func__", self.function)
        # Of some algorithms there is one for each outer step, all with the same units.
        return function, getattr(owner, "origin", owner), self.constants, self.spec, self.maps

    def mapped(self, in_dims: tuple[int | None, ...]) -> "_Call":
        """The call for all values along a first axis of some of the tensors."""
        call = _Call(self.runner, self.function, self.constants, self.spec, (*self.maps, in_dims))
        call.parent = self
        return call

    def found(self, program: "_Program") -> None:
        """Keeps the program, also for the calls that this one is the mapping of."""
        call: _Call | None = self
        while call is not None:
            call.program, call = program, call.parent


class _Program:
    """A unit on flat tuples of tensors."""

    def __init__(self, call: _Call, compiled: bool):
        self.out_spec: TreeSpec | None = None
        self.out_constants: list[Any] = []

        def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
            rest = iter(tensors)
            leaves = [next(rest) if constant is None else constant[0] for constant in call.constants]
            with running(None):  # a unit's own units are part of it
                out, self.out_spec = tree_flatten(call.function(*tree_unflatten(leaves, call.spec)))
            self.out_constants = [None if isinstance(value, Tensor) else (value,) for value in out]
            return tuple(value for value in out if isinstance(value, Tensor))

        run: Callable[..., tuple[Tensor, ...]] = flat
        for in_dims in call.maps:
            run = vmap(run, in_dims=in_dims)
        self.run = Compiled(run) if compiled else run

    def results(self, tensors: tuple[Tensor, ...]) -> Any:
        """The tensors, and whatever else the function gave, as it gave them."""
        assert self.out_spec is not None, "a program has run before its results are asked for"
        rest = iter(tensors)
        return tree_unflatten([next(rest) if c is None else c[0] for c in self.out_constants], self.out_spec)


class _Unit(torch.autograd.Function):
    """Runs a call on plain tensors, below every vmap, and knows its gradients."""

    @staticmethod
    def forward(call: _Call, differentiable: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
        program = call.runner.program(call, tensors)
        call.found(program)
        if not differentiable or not any(tensor.requires_grad for tensor in tensors):
            return program.run(*tensors)
        if call.runner.recompute:
            with torch.no_grad():
                return program.run(*tensors)
        call.kept = _outputs(program, tensors)
        return tuple(value.detach() for value in call.kept[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.call = inputs[0]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(value for value in output if not value.is_floating_point()))
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        call = ctx.call
        inputs, outputs = call.kept or _outputs(call.program, ctx.saved_tensors)
        call.kept = None  # frees memory as the backward pass goes; a second one computes again
        wanted = [value for value in inputs if value.requires_grad]
        given = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if c is not None and o.requires_grad]
        if not given or not wanted:
            return (None,) * (2 + len(inputs))
        found = iter(torch.autograd.grad([o for o, _ in given], wanted, [c for _, c in given], allow_unused=True))
        return (None, None, *(next(found) if value.requires_grad else None for value in inputs))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        call, differentiable, *tensors = args
        dims = in_dims[2:]
        first = [t if d is None else t.movedim(d, 0) for t, d in zip(tensors, dims, strict=True)]
        mapped = call.mapped(tuple(None if d is None else 0 for d in dims))
        results = _Unit.apply(mapped, differentiable, *first)
        return results, (0,) * len(results)


def _outputs(program: _Program, tensors: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The tensors as leaves of a graph of their own, and the program's results from them."""
    leaves = tuple(tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors)
    with torch.enable_grad():
        return leaves, program.run(*leaves)
