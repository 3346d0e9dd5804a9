"""A function of tensors as one program, by torch.compile."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule

from metarun.errors import MetarunError
from metarun.models.unit import tracing
from metarun.text import reason

Tensors = tuple[Tensor, ...]

_compiler = threading.Lock()  # torch.compile is not for several threads at once


class Compiled:
    """The same function; the first call without gradients, and the first with them, compile it.

    Args:
        function: of tensors alone, always of the same shapes.
    """

    def __init__(self, function: Callable[..., Tensors]):
        self._function = function
        self._program: Callable[..., Tensors] | None = None
        self._to_compile = {False, True}  # without and with gradients

    def __call__(self, *tensors: Tensor) -> Tensors:
        """What the function gives.

        Raises:
            MetarunError: there is no compiler that works, or no place for what it makes.
        """
        if self._program is not None and torch.is_grad_enabled() not in self._to_compile:
            return self._program(*tensors)
        with _compiler:
            with torch.no_grad():
                self._function(*tensors)  # a thread's own copy of a module is made here, not while tracing
            try:
                if self._program is None:
                    self._program = _program(self._function, len(tensors))
                results = self._program(*tensors)
            except Exception as error:
                torchs = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
                if not torchs and not isinstance(error, OSError) and "no compiled frames" not in str(error):
                    raise
                said = reason(error).partition(" Set TORCHDYNAMO_VERBOSE")[0]
                raise MetarunError(
                    f"{said} (torch.compile): expected a compiler that works (CXX), and a folder for what it makes "
                    f"(TORCHINDUCTOR_CACHE_DIR); mend that, or use engine=vmap"
                ) from error
            self._to_compile.discard(torch.is_grad_enabled())
        return results


def _program(function: Callable[..., Tensors], inputs: int) -> Callable[..., Tensors]:
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
