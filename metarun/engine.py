"""From one task to a meta-batch: the only place that knows how.

    meta-gradient = 1/T Σ_t ∇_θ meta_loss(θ, task_t)

T tasks. `vmap` runs the one-task function on a chunk of tasks at once. `loop` runs it task by task: the reference that
vmap is tested against, and the mode to step through with a debugger. Both add up the chunks' gradients.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from metarun.algos.base import Algorithm
from metarun.errors import MemoryShortError, SettingError, one_of
from metarun.inner import Params
from metarun.memory import budget, peak_bytes
from metarun.tasks import Task


class MetaGradient(NamedTuple):
    """What one meta-batch gives."""

    grads: Params  # averaged over tasks
    losses: Tensor  # [T] meta-loss of each task
    scores: Tensor  # [T] query metric of each task


class Engine:
    """Maps an algorithm over the tasks of a meta-batch.

    Args:
        mode: vmap or loop.
        chunk: how many tasks of a meta-batch to train on at once, which decides the last digits of a gradient. `auto`:
            as many as fit (memory.budget: half of a GPU's memory; on a CPU what runs fastest), in chunks of equal size.
        eval_chunk: the same for validation and test.
    """

    def __init__(self, mode: str = "vmap", chunk: int | str = "auto", eval_chunk: int | str = "auto"):
        one_of("mode", mode, ["vmap", "loop"])
        for name, value in {"chunk": chunk, "eval_chunk": eval_chunk}.items():
            if value != "auto" and (isinstance(value, (bool, str)) or not isinstance(value, int) or value < 1):
                raise SettingError(value, name, "auto, or an integer of at least 1")
            if value != "auto" and mode == "loop":
                raise SettingError(value, name, "auto with mode=loop, which takes one task at a time")
        self.mode = mode
        self.chunk = 1 if mode == "loop" else chunk
        self.eval_chunk = 1 if mode == "loop" else eval_chunk

    def plan(self, algorithm: Algorithm, meta: Params, tasks: Task, meta_batch: int, most: int) -> None:
        """Chooses the chunks that are `auto`.

        Args:
            algorithm: what will run.
            meta: its meta-parameters.
            tasks: a few tasks (three at least) to measure with; they train nothing.
            meta_batch: tasks of an outer step.
            most: most tasks that are ever evaluated at once.
        """
        device = tasks.support_x.device
        if self.chunk == "auto":
            stages = {id(a): a for a in map(algorithm.at, (0.0, 0.5, 1.0))}.values()  # one, but for who changes

            def train(some: Task) -> None:
                for stage in stages:
                    self.meta_gradient(stage, meta, some)

            self.chunk = _fitting(train, tasks, meta_batch, device)
        if self.eval_chunk == "auto":
            self.eval_chunk = _fitting(lambda t: self.adaptation_curves(algorithm, meta, t), tasks, most, device)

    def meta_gradient(self, algorithm: Algorithm, meta: Params, tasks: Task, total: int | None = None) -> MetaGradient:
        """The meta-gradient, averaged over the tasks, with each task's meta-loss and metric.

        Args:
            algorithm: whose meta-loss.
            meta: the meta-parameters.
            tasks: T tasks.
            total: what the sum over the tasks is divided by, if not by T: those of all processes.
        """
        total = total or len(tasks.support_x)
        leaves = {name: value.detach().requires_grad_() for name, value in meta.items()}
        sums, losses, scores = None, [], []
        for chunk in _chunks(tasks, self.chunk):
            with _fitting_memory("engine.chunk", len(chunk.support_x)):
                loss, score = self._map(algorithm.meta_loss, leaves, chunk)
                grads = torch.autograd.grad(loss.sum() / total, list(leaves.values()), materialize_grads=True)
            sums = grads if sums is None else tuple(a + b for a, b in zip(sums, grads, strict=True))
            losses.append(loss.detach())
            scores.append(score.detach())
        assert sums is not None, "a meta-batch has at least one task"
        return MetaGradient(dict(zip(meta, sums, strict=True)), torch.cat(losses), torch.cat(scores))

    @torch.no_grad()
    def adaptation_curves(self, algorithm: Algorithm, meta: Params, tasks: Task) -> Tensor:
        """[T, K+1]: the query metric of each task after each inner step. Changes nothing."""
        curves = []
        for chunk in _chunks(tasks, self.eval_chunk):
            with _fitting_memory("engine.eval_chunk", len(chunk.support_x)):
                curves.append(self._map(algorithm.adaptation_curve, meta, chunk))
        return torch.cat(curves)

    def _map(self, function: Callable[[Params, Task], Any], meta: Params, tasks: Task) -> Any:
        """function(meta, task) for each task, its results stacked along a new first axis."""
        if self.mode == "vmap":
            return vmap(function, in_dims=(None, 0))(meta, tasks)
        results = [function(meta, tasks.select(t)) for t in range(len(tasks.support_x))]
        if isinstance(results[0], Tensor):
            return torch.stack(results)
        return tuple(map(torch.stack, zip(*results, strict=True)))


def _chunks(tasks: Task, size: int | str) -> list[Task]:
    """The tasks in pieces of `size`, or whole while the size is still to be chosen."""
    total = len(tasks.support_x)
    size = total if size == "auto" else int(size)
    return [tasks.select(slice(start, start + size)) for start in range(0, total, size)]


@contextmanager
def _fitting_memory(setting: str, tasks: int) -> Iterator[None]:
    """Says what to do where memory is short; torch has three ways to say that it is."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("out of memory|can't allocate memory", str(error)):
            raise
        remedy = f"{setting}={tasks // 2}" if tasks > 1 else "a smaller learner, fewer shots or fewer inner steps"
        raise MemoryShortError(
            f"out of memory with {tasks} tasks at once ({setting}): expected them to fit; try {remedy}"
        ) from error


def _fitting(work: Callable[[Task], object], tasks: Task, wanted: int, device: torch.device) -> int:
    """The largest even share of `wanted` tasks whose memory, extrapolated from one and three tasks, fits."""
    one, three = (peak_bytes(lambda n=n: work(tasks.select(slice(0, n)))) for n in (1, 3))
    each = max((three - one) // 2, 1)
    fits = max((budget(device) - (one - each)) // each, 1)
    pieces = -(-wanted // min(fits, wanted))
    return -(-wanted // pieces)
