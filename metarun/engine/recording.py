"""Recordings: the operations that a function of tensors does, written down once and done again without the function.

Whatever goes through Python, vmap and autograd on its way, twice where there are second derivatives, what reaches
torch's kernels in the end is one and the same list of operations for all tensors of the same shapes. Done by the list
alone, a small learner's meta-gradient takes half the time, to the same last bit.

A function may be recorded whose operations do not depend on the numbers in its tensors, as vmap demands anyway.
"""

from collections.abc import Callable, Sequence
from typing import Any

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
        ValueError: a result is an input or a constant, and no new tensor.
    """
    module = trace(function, inputs)
    with torch.no_grad():
        tensors = _Tensors(module)
        tensors.run(*inputs)
    _check_results(module.graph, tensors.found)
    if not any(_is_operation(node) and node.target._schema.is_mutable for node in module.graph.nodes):
        _fold_views(module.graph, tensors.found)
        module.graph.eliminate_dead_code()
    module.recompile()
    return module.forward


def trace(function: Function, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """The operations of function(*inputs), as they come. Changes torch for all threads while it is at work."""
    return make_fx(function)(*inputs)


class _Tensors(fx.Interpreter):
    """Runs the operations one by one; afterwards `found` has each tensor, by the node that made it."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module, garbage_collect_values=False)
        self.found: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """See Interpreter."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n] = value
        return value


def _is_operation(node: fx.Node) -> bool:
    return node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)


def _is_view(node: fx.Node) -> bool:
    return _is_operation(node) and (node.target.is_view or node.target is torch.ops.aten._unsafe_view.default)


def _check_results(graph: fx.Graph, tensors: dict[fx.Node, Tensor]) -> None:
    [results] = (node.args[0] for node in graph.nodes if node.op == "output")
    given = [node for node in graph.nodes if node.op in ("placeholder", "get_attr")]
    storages = {tensors[node].untyped_storage()._cdata for node in given if node in tensors}
    for node in results:
        if tensors[node].untyped_storage()._cdata in storages:
            raise ValueError(f"{node}: expected a new tensor as a result")


def _fold_views(graph: fx.Graph, tensors: dict[fx.Node, Tensor]) -> None:
    """Makes a view of views one of what owns the memory; leaves out repeated ones, and those that change nothing."""
    owners: dict[fx.Node, fx.Node] = {}
    views: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node not in tensors or not _is_view(node):
            continue
        source = node.args[0]
        owner = owners[node] = owners.get(source, source)
        shape, before = _shape(tensors[node]), _shape(tensors[owner])
        if shape == before:
            same = owner
        elif not _is_operation(owner) or tensors[owner].dtype != tensors[node].dtype:
            del owners[node]  # where in its memory an input begins, differs from call to call
            continue
        else:
            same = views.get((owner, shape))
            if same is None:
                with graph.inserting_before(node):
                    same = graph.call_function(torch.ops.aten.as_strided.default, (owner, *shape))
                views[owner, shape] = same
                tensors[same], owners[same] = tensors[node], owner
        node.replace_all_uses_with(same)
        graph.erase_node(node)


def _shape(tensor: Tensor) -> tuple[list[int], list[int], int]:
    return (tuple(tensor.shape), tuple(tensor.stride()), tensor.storage_offset())


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
    """What a recording is made for: the algorithm, names, shapes, strides and types."""
    tensors = (*meta.values(), *tasks)
    return algorithm.origin, *meta, *((t.shape, t.stride(), t.dtype, t.device) for t in tensors)
