"""Recordings: the operations that a function of tensors does, written down once and done again without the function.

Whatever goes through Python, vmap and autograd on its way, twice where there are second derivatives, what reaches
torch's kernels in the end is one and the same list of operations for all tensors of the same shapes. Done by the list
alone, a small learner's meta-gradient takes less than half the time, to the same last bit.

A function may be recorded whose operations do not depend on the numbers in its tensors, as vmap demands anyway.
"""

import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from metarun.algos.base import Algorithm
from metarun.models.functional import Params
from metarun.tasks import Task

Function = Callable[..., Sequence[Tensor]]


def record(function: Function, inputs: Sequence[Tensor]) -> Function:
    """The operations of function(*inputs), as a function of other inputs of the same shapes, strides and types.

    Raises:
        ValueError: a result is an input or a constant, or would be another result, and no new tensor; or the recording
            does something else.
    """
    module = trace(function, inputs)
    with torch.no_grad():
        layouts = _Layouts(module)
        results = layouts.run(*inputs)
    if not any(_is_operation(node) and node.target._schema.is_mutable for node in module.graph.nodes):
        _leave_out_ones(module.graph, layouts.found)
        _fold_views(module.graph, layouts.found)
        module.graph.eliminate_dead_code()
        with torch.no_grad():
            _ShortCuts(module).run(*inputs)
    module.recompile()
    with torch.no_grad():
        again = module(*inputs)
    if not same(results, again):
        raise ValueError("expected the same results without the function")
    given, before, made = (_memory_of(tensors) for tensors in ([*inputs, *module.buffers()], results, again))
    if made & given or len(made) < len(before):
        raise ValueError("expected new tensors as results, and one is an input, a constant or another result")
    return module.forward


def _memory_of(tensors: Iterable[Tensor]) -> set[int]:
    return {tensor.untyped_storage()._cdata for tensor in tensors}


def same(results: Iterable[Tensor], others: Iterable[Tensor]) -> bool:
    """Whether all tensors are the same to the last bit; nan is the same as nan."""
    return all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(results, others, strict=True))


def trace(function: Function, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """The operations of function(*inputs), as they come."""
    recorder = _Recorder(inputs)
    with recorder:
        results = function(*inputs)
    recorder.graph.output([recorder.find(result) for result in results])
    return fx.GraphModule(recorder.constants, recorder.graph)


class _Recorder(TorchDispatchMode):
    """Writes down what reaches torch's kernels, below vmap and autograd. Torch's make_fx takes forty times as long."""

    def __init__(self, inputs: Iterable[Tensor]):
        super().__init__()
        self.graph, self.constants = fx.Graph(), nn.Module()
        self.nodes = WeakTensorKeyDictionary()  # of tensors, as long as they are there
        for n, tensor in enumerate(inputs):
            self.nodes[tensor] = self.graph.placeholder(f"input_{n}")

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """See TorchDispatchMode."""
        node = self.graph.call_function(func, *fx.node.map_aggregate((args, kwargs or {}), self.find))
        value = func(*args, **(kwargs or {}))
        if isinstance(value, Tensor):
            self.nodes[value] = node
        elif isinstance(value, (list, tuple)):
            for n, part in enumerate(value):
                if isinstance(part, Tensor):
                    self.nodes[part] = self.graph.call_function(operator.getitem, (node, n))
        elif value is not None:
            raise ValueError(f"expected operations that give tensors, and {func} gives {type(value).__name__}")
        return value

    def find(self, value: Any) -> Any:
        """The node of a tensor; one that no operation gave is a constant."""
        if not isinstance(value, Tensor):
            return value
        if value not in self.nodes:
            name = f"constant_{len(self.graph.nodes)}"
            self.constants.register_buffer(name, value)
            self.nodes[value] = self.graph.get_attr(name)
        return self.nodes[value]


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


def _leave_out_ones(graph: fx.Graph, found: dict[fx.Node, tuple[Layout, torch.dtype]]) -> None:
    """Leaves out products with the number 1 and quotients by it, of which linear layers and means have many.

    Those stay that change the type, or the order in memory, on which views further on depend.
    """
    times, by = torch.ops.aten.mul, torch.ops.aten.div
    for node in list(graph.nodes):
        by_one = node.target in (times.Scalar, times.Tensor, by.Scalar, by.Tensor) and node.args[1] == 1
        if by_one and node in found and found.get(node.args[0]) == found[node]:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


class _ShortCuts(fx.Interpreter):
    """Runs the operations one by one, and puts torch.add in place of torch.ops.aten.add.Tensor, and so on.

    It is the same kernel, found in half the time. Where it takes other arguments the operation stays.
    """

    def run_node(self, n: fx.Node) -> Any:
        """See Interpreter."""
        value = super().run_node(n)
        direct = getattr(torch, n.target.overloadpacket.__name__, None) if _is_operation(n) else None
        if isinstance(value, Tensor) and inspect.isbuiltin(direct):
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            try:
                again = direct(*args, **kwargs)
            except (TypeError, ValueError, RuntimeError):
                return value
            if same([value], [again]) and value.stride() == again.stride():
                n.target = direct
        return value


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
