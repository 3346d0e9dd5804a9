"""How an engine runs the units of an algorithm (models/unit.py): compiled, or computed again for their gradients.

    unit(function, *args)             of an algorithm
      Runner(function, *args)         looks up what to run:
        _Program                      the function on flat tuples of tensors, mapped over tasks
          _Compiled                     ... as one program, by torch.compile
      _Unit                           runs a program below every vmap, and knows its gradients:
        forward                       the program's results; its graph is kept, or with `recomputes` only its arguments
        backward                      the gradients, through the kept graph or one that is computed again
        vmap                          the same call, for all tasks at once

Why so: torch.utils.checkpoint does not work inside torch.func.grad (pytorch#122729), and torch.compile of a whole task
of five inner steps took 305 s, of one inner step a few. Compiled, an outer step of 25 sinusoids takes 1.9 instead of
3.3 ms, of first-order conv4 MAML 62 instead of 67 ms on two cores.
"""

import copy
import logging
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.fx import Graph, GraphModule
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from metarun.errors import MetarunError
from metarun.models.unit import running, tracing
from metarun.text import reason

Tensors = tuple[Tensor, ...]

_compiler = threading.Lock()  # torch.compile is not for several threads at once


class Runner:
    """A way to run units.

    Args:
        compiles: whether by torch.compile, which takes a while when a unit is first met with tensors of new shapes.
        recomputes: whether to keep of a unit only its arguments, and to compute the rest again for its gradients.
    """

    def __init__(self, *, compiles: bool, recomputes: bool):
        self.compiles, self.recomputes = compiles, recomputes
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

    def program(self, call: "_Call", tensors: Tensors) -> "_Program":
        """What a call runs; compiled when it is first met with such tensors."""
        if not self.compiles:
            return _Program(call)
        key = (*call.key, tuple((t.shape, t.stride(), t.dtype, t.requires_grad) for t in tensors))
        with self._lock:
            if key not in self._programs:
                self._programs[key] = _Program(call, compiles=True)
            return self._programs[key]


class _Call:
    """A call of a unit: the function, its arguments but for the tensors, and over which of those it is mapped."""

    def __init__(
        self, runner: Runner, function: Callable[..., Any], constants: tuple, spec: TreeSpec, maps: tuple = ()
    ):
        self.runner, self.function, self.constants, self.spec, self.maps = runner, function, constants, spec, maps
        self.parent: _Call | None = None
        self.program: _Program
        self.kept: tuple[Tensors, Tensors] | None = None

    @property
    def key(self) -> tuple:
        """Calls with the same key run the same program."""
        owner = getattr(self.function, "__self__", None)
        function = getattr(self.function, "__func__", self.function)
        # Of some algorithms there is one for each outer step, and one for each thread, all with the same units.
        return function, getattr(owner, "origin", owner), self.constants, self.spec, self.maps

    def mapped(self, in_dims: tuple[int | None, ...]) -> "_Call":
        """The call for all values along a first axis of some of the tensors."""
        call = _Call(self.runner, self.function, self.constants, self.spec, (*self.maps, in_dims))
        call.parent = self
        return call

    def keep(self, program: "_Program") -> None:
        """Keeps the program, also for the calls that this one is the mapping of."""
        call: _Call | None = self
        while call is not None:
            call.program, call = program, call.parent


class _Program:
    """A unit on flat tuples of tensors.

    Args:
        call: of the unit.
        compiles: whether by torch.compile. Any thread may then run it, so that it gets a copy of the algorithm.
    """

    def __init__(self, call: _Call, compiles: bool = False):
        self.out_spec: TreeSpec | None = None
        self.out_constants: list[Any] = []
        function, owner = call.function, getattr(call.function, "__self__", None)
        if compiles and owner is not None:
            function = getattr(copy.deepcopy(owner), function.__name__)

        def flat(*tensors: Tensor) -> Tensors:
            rest = iter(tensors)
            leaves = [next(rest) if constant is None else constant[0] for constant in call.constants]
            with running(None):  # a unit's own units are part of it
                out, self.out_spec = tree_flatten(function(*tree_unflatten(leaves, call.spec)))
            self.out_constants = [None if isinstance(value, Tensor) else (value,) for value in out]
            return tuple(value for value in out if isinstance(value, Tensor))

        run: Callable[..., Tensors] = flat
        for in_dims in call.maps:
            run = vmap(run, in_dims=in_dims)
        self.run = _Compiled(run) if compiles else run

    def results(self, tensors: Tensors) -> Any:
        """The tensors, and whatever else the function gave, as it gave them."""
        assert self.out_spec is not None, "a program has run before its results are asked for"
        rest = iter(tensors)
        return tree_unflatten([next(rest) if c is None else c[0] for c in self.out_constants], self.out_spec)


class _Unit(torch.autograd.Function):
    """Runs a call on plain tensors, below every vmap, and knows its gradients."""

    @staticmethod
    def forward(call: _Call, differentiable: bool, *tensors: Tensor) -> Tensors:
        program = call.runner.program(call, tensors)
        call.keep(program)
        if not differentiable or not any(tensor.requires_grad for tensor in tensors):
            return program.run(*tensors)
        if call.runner.recomputes:
            with torch.no_grad():
                return program.run(*tensors)
        call.kept = _compute(program, tensors)
        return tuple(value.detach() for value in call.kept[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensors) -> None:
        ctx.call = inputs[0]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(value for value in output if not value.is_floating_point()))
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        call = ctx.call
        inputs, outputs = call.kept or _compute(call.program, ctx.saved_tensors)
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


def _compute(program: _Program, tensors: Tensors) -> tuple[Tensors, Tensors]:
    """The tensors as leaves of a graph of their own, and the program's results from them."""
    leaves = tuple(tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors)
    with torch.enable_grad():
        return leaves, program.run(*leaves)


class _Compiled:
    """The same function; the first call without gradients, and the first with them, compile it.

    Args:
        function: of tensors alone, always of the same shapes.
    """

    def __init__(self, function: Callable[..., Tensors]):
        self._function = function
        self._program: Callable[..., Tensors] | None = None
        self._to_compile = {False, True}  # without and with gradients

    def __call__(self, *tensors: Tensor) -> Tensors:
        """The function's results.

        Raises:
            MetarunError: there is no compiler that works, or no place for what it makes.
        """
        if self._program is not None and torch.is_grad_enabled() not in self._to_compile:
            return self._program(*tensors)
        with _compiler:
            try:
                if self._program is None:
                    self._program = _compile(self._function, len(tensors))
                results = self._program(*tensors)
            except Exception as error:
                of_torch = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
                if not of_torch and not isinstance(error, OSError) and "no compiled frames" not in str(error):
                    raise
                why = reason(error).partition(" Set TORCHDYNAMO_VERBOSE")[0]
                raise MetarunError(
                    f"{why} (torch.compile): expected a compiler that works (CXX), and a folder for what it makes "
                    f"(TORCHINDUCTOR_CACHE_DIR); mend that, or use engine=vmap"
                ) from error
            self._to_compile.discard(torch.is_grad_enabled())
        return results


def _compile(function: Callable[..., Tensors], inputs: int) -> Callable[..., Tensors]:
    def traced(*tensors: Tensor) -> Tensors:
        # torch.compile would read the Python code and does not know all of it (vmap rules of autograd functions among
        # that); as one operation of its graph, the function is run once, and what it does with tensors is recorded.
        with tracing():
            return function(*tensors)

    torch.compiler.allow_in_graph(traced)
    # The backward pass is compiled with the forward pass, so that one thread at a time compiles.
    torch._functorch.config.force_non_lazy_backward_lowering = True  # pyright: ignore[reportAttributeAccessIssue]
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses CUDA where there is none
    # A graph has code of its own; torch.compile gives up on code that has been compiled for too many purposes.
    graph = Graph()
    graph.output(graph.call_function(traced, tuple(graph.placeholder(f"x{k}") for k in range(inputs))))
    options: dict[str, Any] = {"cpp_wrapper": True}  # it runs without Python, and so leaves it to other threads
    return torch.compile(GraphModule(nn.Module(), graph), fullgraph=True, dynamic=False, options=options)
