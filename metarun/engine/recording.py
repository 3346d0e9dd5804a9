"""Recordings: the operations that a function of tensors does, written down once and done again without the function.

Whatever goes through Python, vmap and autograd on its way, twice where there are second derivatives, what reaches
torch's kernels in the end is one and the same list of operations for all tensors of the same shapes. Done by the list
alone, a small learner's meta-gradient takes half the time, to the same last bit.

A function may be recorded whose operations do not depend on the numbers in its tensors, as vmap demands anyway.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from metarun.algos.base import Algorithm
from metarun.models.functional import Params
from metarun.tasks import Task

Function = Callable[..., Sequence[Tensor]]


def record(function: Function, inputs: Sequence[Tensor]) -> Function:
    """The operations of function(*inputs), as a function of other inputs of the same shapes, strides and types.

    Raises:
        ValueError: a result is an input or a constant, and no new tensor; or the recording does something else.
    """
    module = trace(function, inputs)
    with torch.no_grad():
        layouts = _Layouts(module)
        results = layouts.run(*inputs)
    given = {tensor.untyped_storage()._cdata for tensor in (*inputs, *module.buffers())}
    if any(result.untyped_storage()._cdata in given for result in results):
        raise ValueError("expected new tensors as results, and one is an input or a constant")
    if not any(_is_operation(node) and node.target._schema.is_mutable for node in module.graph.nodes):
        _fold_views(module.graph, layouts.found)
        module.graph.eliminate_dead_code()
    module.recompile()
    with torch.no_grad():
        again = module(*inputs)
    if not same(results, again):
        raise ValueError("expected the same results without the function")
    return module.forward


def same(results: Iterable[Tensor], others: Iterable[Tensor]) -> bool:
    """Whether all tensors are the same to the last bit; nan is the same as nan."""
    return all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(results, others, strict=True))


def trace(function: Function, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """The operations of function(*inputs), as they come. Changes torch for all threads while it is at work."""
    return make_fx(function)(*inputs)


class Layout(NamedTuple):
    """Where the numbers of a tensor lie in its memory."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class _Layouts(fx.Interpreter):
    """Runs the operations one by one; afterwards `found` has the layout and type of each tensor, by its node."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.found: dict[fx.Node, tuple[Layout, torch.dtype]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """See Interpreter."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n] = Layout(tuple(value.shape), value.stride(), value.storage_offset()), value.dtype
        return value


def _is_operation(node: fx.Node) -> bool:
    return node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)


def _is_view(node: fx.Node) -> bool:
    return _is_operation(node) and (node.target.is_view or node.target is torch.ops.aten._unsafe_view.default)


def _fold_views(graph: fx.Graph, found: dict[fx.Node, tuple[Layout, torch.dtype]]) -> None:
    """Makes a view of views one of what owns the memory; leaves out repeated ones, and those that change nothing."""
    owners: dict[fx.Node, fx.Node] = {}
    views: dict[tuple[fx.Node, Layout], fx.Node] = {}
    for node in list(graph.nodes):
        if node not in found or not _is_view(node):
            continue
        owner = owners.get(node.args[0], node.args[0])
        layout, dtype = found[node]
        if found[node] == found[owner]:
            same = owner
        elif not _is_operation(owner) or _is_view(owner) or dtype != found[owner][1]:
            continue  # where in its memory an input begins, and so any view of it, differs from call to call
        elif (owner, layout) in views:
            same = views[owner, layout]
        else:
            with graph.inserting_before(node):
                same = graph.call_function(torch.ops.aten.as_strided.default, (owner, *layout))
            views[owner, layout] = same
            found[same], owners[same] = found[node], owner
        node.replace_all_uses_with(same)
        graph.erase_node(node)


Gradients = tuple[tuple[Tensor, ...], Tensor, Tensor]  # of a chunk of tasks: gradients, losses and scores
Work = Callable[..., Gradients]  # work(algorithm, meta=meta, tasks=chunk)


def flatten(work: Work, algorithm: Algorithm, meta: Params) -> Function:
    """The work as a function of the meta-parameters and the tasks' tensors, in order."""

    def flat(*tensors: Tensor) -> list[Tensor]:
        given = dict(zip(meta, tensors, strict=False))
        grads, losses, scores = work(algorithm, meta=given, tasks=Task(*tensors[len(meta) :]))
        return [*grads, losses, scores]

    return flat


def unflatten(flat: Function, meta: Params, tasks: Task) -> Gradients:
    """What the work gave, by a flat function of the same."""
    with torch.no_grad():
        *grads, losses, scores = flat(*meta.values(), *tasks)
    return tuple(grads), losses, scores


def form(algorithm: Algorithm, meta: Params, tasks: Task) -> tuple:
    """What a recording is made for: the algorithm, as long as it is there; names, shapes, strides and types."""
    tensors = (*meta.values(), *tasks)
    return id(algorithm.origin), *meta, *((t.shape, t.stride(), t.dtype, t.device) for t in tensors)
