"""From one task to a meta-batch: the only place that knows how.

    meta-gradient = 1/T Σ_t ∇_θ meta_loss(θ, task_t)

T tasks. `vmap` runs the one-task function on a chunk of tasks at once. `compile` does so too, but has the algorithm's
units (its inner step, say) compiled. `loop` runs it task by task: the reference that the others are tested against, and
the mode to step through with a debugger. All add up the chunks' gradients, in the order of the tasks.

On a CPU chunks are worked on two at a time, each with half of the threads: while one waits for Python, the other
computes, and fewer threads share an operation. Each chunk's gradient, and the order in which they are added up, is the
same as ever.
"""

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from metarun.algos.base import Algorithm
from metarun.engine.chunking import budget, peak_bytes
from metarun.engine.units import Runner
from metarun.errors import MemoryShortError, SettingError, UsageError, at_least, boolean, one_of
from metarun.models.functional import Params
from metarun.models.unit import running, unit
from metarun.tasks import Task

log = logging.getLogger(__name__)
AT_ONCE = 2  # chunks, on a CPU
WORTH = 16 << 20  # bytes of a meta-batch from which it is cut for that; the sinusoid's 25 tasks need 3 MiB


class MetaGradient(NamedTuple):
    """What one meta-batch gives."""

    grads: Params  # averaged over tasks
    losses: Tensor  # [T] meta-loss of each task
    scores: Tensor  # [T] query metric of each task


class Engine:
    """Maps an algorithm over the tasks of a meta-batch.

    Args:
        mode: vmap, compile or loop.
        chunk: how many tasks of a meta-batch to train on at once, which decides the last digits of a gradient. `auto`:
            as many as fit (memory.budget: half of a GPU's memory; on a CPU what runs fastest), in chunks of equal size.
        eval_chunk: the same for validation and test.
        checkpoint_inner: whether to keep of each inner step only where it began, and to compute it again for its
            gradient: memory then grows by one learner an inner step, and time by about a third.
        autocast: `bfloat16`: in meta-training products and convolutions round to 8 bits of mantissa (torch.autocast),
            which is faster where the processor knows that format; a setting that shows in results. None: they do not.
            Validation and test never do.
        compiled: with mode=compile what is compiled as one: `step`, each of the algorithm's units, above all the inner
            step, so that more inner steps take no longer to compile; or `task`, all that happens in a task.
        compile_from: with mode=compile, the meta_steps from which a run repays compiling; shorter ones run as vmap.
    """

    def __init__(
        self,
        mode: str = "vmap",
        chunk: int | str = "auto",
        eval_chunk: int | str = "auto",
        checkpoint_inner: bool = False,
        autocast: str | None = None,
        compiled: str | None = None,
        compile_from: int | None = None,
    ):
        one_of("mode", mode, ["vmap", "compile", "loop"])
        boolean(checkpoint_inner=checkpoint_inner)
        if autocast is not None:
            one_of("autocast", autocast, ["bfloat16"])
        for name, value in {"chunk": chunk, "eval_chunk": eval_chunk}.items():
            if value != "auto" and (isinstance(value, (bool, str)) or not isinstance(value, int) or value < 1):
                raise SettingError(value, name, "auto, or an integer of at least 1")
            if value != "auto" and mode == "loop":
                raise SettingError(value, name, "auto with mode=loop, which takes one task at a time")
        for name, value in {"compiled": compiled, "compile_from": compile_from}.items():
            if value is not None and mode != "compile":
                raise SettingError(value, name, "null without mode=compile")
        if compiled is not None:
            one_of("compiled", compiled, ["step", "task"])
        if compile_from is not None:
            at_least(0, compile_from=compile_from)
        self.mode = mode
        self.chunk = 1 if mode == "loop" else chunk
        self.eval_chunk = 1 if mode == "loop" else eval_chunk
        self.whole, self.compile_from = compiled == "task", compile_from or 0
        self.autocast = autocast is not None
        self.runner = None
        if mode == "compile" or checkpoint_inner:
            self.runner = Runner(compiled=mode == "compile", recompute=checkpoint_inner)
        self._threads: ThreadPoolExecutor | None = None

    def compiles(self, meta_steps: int | None) -> bool:
        """Whether a run of so many outer steps is compiled; None: more than enough."""
        return self.mode == "compile" and (meta_steps is None or meta_steps >= self.compile_from)

    def check(self, algorithm: Algorithm, meta_steps: int) -> None:
        """Raises UsageError if this algorithm cannot be compiled, or nothing can, in a run that would be."""
        if not self.compiles(meta_steps):
            return
        if not shutil.which(compiler := os.environ.get("CXX", "g++")):
            raise UsageError(
                f"{compiler!r} (CXX): engine=compile expected a C++ compiler and found no such program; install g++, "
                f"set CXX to one, or use engine=vmap"
            )
        if self.whole and algorithm.at(0.0) is not algorithm:
            why = f"{algorithm.name} changes during meta-training"
            raise UsageError(f"task (engine.compiled): expected step, as {why}")

    def plan(
        self,
        algorithm: Algorithm,
        meta: Params,
        tasks: Task,
        meta_batch: int,
        most: int,
        meta_steps: int | None = None,
        eval_tasks: Task | None = None,
    ) -> None:
        """Chooses what is left to choose: whether to compile, and the chunks that are `auto`.

        Args:
            algorithm: what will run.
            meta: its meta-parameters.
            tasks: a few tasks (three at least) to measure with; they train nothing.
            meta_batch: tasks of an outer step.
            most: most tasks that are ever evaluated at once.
            meta_steps: outer steps of the run; None: more than enough to compile for.
            eval_tasks: as tasks, where those of validation and test have other sizes.
        """
        device = tasks.support_x.device
        if self.runner and self.mode == "compile":
            self.runner.compiled = self.compiles(meta_steps)
            if self.runner.compiled:
                what = "all that happens in a task" if self.whole else "each inner step"
                log.info("compiling %s, which may take the first outer step a minute or two", what)
            else:
                few = "not compiled: %d outer steps, fewer than engine.compile_from=%d"
                log.info(few, meta_steps, self.compile_from)
        if self.chunk == "auto":
            stages = {id(a): a for a in map(algorithm.at, (0.0, 0.5, 1.0))}.values()  # one, but for who changes

            def train(some: Task) -> None:
                for stage in stages:
                    self._gradient(stage, meta, some, len(some.support_x))

            with self.interpreted():
                self.chunk = _fitting(train, tasks, meta_batch, device)
        if self.eval_chunk == "auto":
            self.eval_chunk = _fitting(lambda t: self._curves(algorithm, meta, t), eval_tasks or tasks, most, device)

    def meta_gradient(self, algorithm: Algorithm, meta: Params, tasks: Task, total: int | None = None) -> MetaGradient:
        """The meta-gradient, averaged over the tasks, with each task's meta-loss and metric.

        Args:
            algorithm: whose meta-loss.
            meta: the meta-parameters.
            tasks: T tasks.
            total: what the sum over the tasks is divided by, if not by T: those of all processes.
        """
        total = total or len(tasks.support_x)
        chunks = _chunks(tasks, self.chunk)
        grads, losses, scores = zip(
            *self._each("engine.chunk", lambda chunk: self._gradient(algorithm, meta, chunk, total), chunks),
            strict=True,
        )
        sums = grads[0]
        for more in grads[1:]:
            sums = tuple(a + b for a, b in zip(sums, more, strict=True))
        return MetaGradient(dict(zip(meta, sums, strict=True)), torch.cat(losses), torch.cat(scores))

    def _gradient(
        self, algorithm: Algorithm, meta: Params, chunk: Task, total: int
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """The sum of a chunk's gradients divided by `total`, and each task's loss and metric."""
        leaves = {name: value.detach().requires_grad_() for name, value in meta.items()}
        meta_loss = partial(unit, algorithm.meta_loss) if self.whole else algorithm.meta_loss
        # The backward pass too: there checkpoint_inner computes again what has to be the same as before.
        with running(self.runner), torch.autocast(chunk.support_x.device.type, torch.bfloat16, enabled=self.autocast):
            loss, score = self._map(meta_loss, leaves, chunk)
            grads = torch.autograd.grad(loss.sum() / total, list(leaves.values()), materialize_grads=True)
        return grads, loss.detach(), score.detach()

    def adaptation_curves(self, algorithm: Algorithm, meta: Params, tasks: Task) -> Tensor:
        """[T, K+1]: the query metric of each task after each inner step. Changes nothing."""
        chunks = _chunks(tasks, self.eval_chunk)
        return torch.cat(self._each("engine.eval_chunk", lambda chunk: self._curves(algorithm, meta, chunk), chunks))

    def _curves(self, algorithm: Algorithm, meta: Params, chunk: Task) -> Tensor:
        with torch.no_grad():
            return self._map(algorithm.adaptation_curve, meta, chunk)

    def _each(self, setting: str, function: Callable[[Task], Any], chunks: list[Task]) -> list[Any]:
        """function(chunk) for each chunk, in order; in several threads where that pays."""

        def one(chunk: Task) -> Any:
            with _fitting_memory(setting, len(chunk.support_x)):
                return function(chunk)

        threads = torch.get_num_threads()
        if self.mode == "loop" or chunks[0].support_x.is_cuda or threads < AT_ONCE or len(chunks) < AT_ONCE:
            return [one(chunk) for chunk in chunks]
        if self._threads is None:
            self._threads = ThreadPoolExecutor(AT_ONCE, "chunk", torch.set_num_threads, (threads // AT_ONCE,))
            # One after the other: what is made once, compiled code above all, is made here.
            return [self._threads.submit(one, chunk).result() for chunk in chunks]
        return list(self._threads.map(one, chunks))

    @contextmanager
    def interpreted(self) -> Iterator[None]:
        """Nothing is compiled within: what is done once or twice would not repay it."""
        if self.runner is None:
            yield
            return
        compiled, self.runner.compiled = self.runner.compiled, False
        try:
            yield
        finally:
            self.runner.compiled = compiled

    def _map(self, function: Callable[[Params, Task], Any], meta: Params, tasks: Task) -> Any:
        """function(meta, task) for each task, its results stacked along a new first axis."""
        if self.mode != "loop":
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
    """The largest even share of `wanted` tasks whose memory, extrapolated from one and three tasks, fits.

    On a CPU there is an even number of chunks, but of a small meta-batch.
    """
    one, three = (peak_bytes(lambda n=n: work(tasks.select(slice(0, n)))) for n in (1, 3))
    each = max((three - one) // 2, 1)
    fits = max((budget(device) - (one - each)) // each, 1)
    pieces = -(-wanted // min(fits, wanted))
    if device.type == "cpu" and torch.get_num_threads() >= AT_ONCE and (pieces > 1 or each * wanted > WORTH):
        pieces = -(-pieces // AT_ONCE) * AT_ONCE
    return -(-wanted // pieces)
