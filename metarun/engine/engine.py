"""Runs a one-task algorithm on a whole meta-batch, and averages the gradients; the only place that knows how.

    meta-gradient = 1/T Σ_t ∇_θ meta_loss(θ, task_t)

T tasks. `vmap` runs the one-task function on a chunk of tasks at once, or replays what that asks of torch's kernels
(replay.py). `compile` makes one program of it (compile.py). `loop` runs it task by task: the reference that the others
are tested against, and the mode to step through with a debugger. All add up the chunks' gradients, in the order of the
tasks.

On a CPU two chunks are worked on at a time, each with half of the threads: while one waits for Python, the other
computes, and fewer threads share an operation. Without that an outer step takes longer on two cores: conv4 MAML with
one inner step 1.27 times as long, with five 1.69, 20-way 1.48. Each chunk's gradient, and the order in which they are
added up, do not depend on it.
"""

import copy
import logging
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from metarun.algos.base import Algorithm
from metarun.engine.chunking import CPU_WORKERS, Chunks, choose_size, cut, explaining_short_memory
from metarun.engine.compile import Programs
from metarun.engine.recompute import recompute
from metarun.engine.replay import Replay
from metarun.errors import SettingError, UsageError, at_least, boolean, one_of
from metarun.models.functional import Params
from metarun.models.unit import running
from metarun.tasks import Task

log = logging.getLogger(__name__)

REPLAY_FROM = 1000  # meta_steps from which a run repays recording its meta-gradient, which takes 0.3 to some 10 seconds
STAGES = (0.0, 0.5, 1.0)  # of meta-training, at which an algorithm is looked at


class MetaGradient(NamedTuple):
    """The gradient of a meta-batch."""

    grads: Params  # averaged over tasks
    losses: Tensor  # [T] meta-loss of each task
    scores: Tensor  # [T] query metric of each task


@dataclass(frozen=True)
class Engine:
    """Maps an algorithm over the tasks of a meta-batch.

    Args:
        mode: vmap, compile or loop.
        chunk: how many tasks of a meta-batch to train on at once, which decides the last digits of a gradient. `auto`:
            as many as fit (half of a GPU's memory; on a CPU what runs fastest), in chunks of equal size.
        eval_chunk: the same for validation and test.
        checkpoint_inner: whether to keep of each inner step only where it began, and to compute it again for its
            gradient: memory then grows by one learner an inner step, and time by about a third.
        autocast: `bfloat16`: in meta-training, and never in validation and test, products and convolutions round to 8
            bits of mantissa (torch.autocast). None: they do not.
        compile_from: with mode=compile, the meta_steps from which a run repays compiling; shorter ones run as vmap.
        replay: with mode=vmap, whether to record what torch's kernels are asked to do in an outer step, and to replay
            that where it is faster and the same to the last bit (engine/replay.py). Not done in runs of less than
            REPLAY_FROM outer steps, with checkpoint_inner, and for algorithms that change on the way.
    """

    mode: str = "vmap"
    chunk: int | str = "auto"
    eval_chunk: int | str = "auto"
    checkpoint_inner: bool = False
    autocast: str | None = None
    compile_from: int | None = None
    replay: bool = True

    def __post_init__(self):
        one_of("mode", self.mode, ["vmap", "compile", "loop"])
        boolean(checkpoint_inner=self.checkpoint_inner, replay=self.replay)
        if self.autocast is not None:
            one_of("autocast", self.autocast, ["bfloat16"])
        for name in ("chunk", "eval_chunk"):
            if (value := getattr(self, name)) != "auto":
                if type(value) is not int or value < 1:
                    raise SettingError(value, name, "auto, or an integer of at least 1")
                if self.mode == "loop":
                    raise SettingError(value, name, "auto with mode=loop, which takes one task at a time")
        if self.compile_from is not None:
            at_least(0, compile_from=self.compile_from)
            if self.mode != "compile":
                raise SettingError(self.compile_from, "compile_from", "null without mode=compile")
        if self.checkpoint_inner and self.mode == "compile":
            raise SettingError(True, "checkpoint_inner", "false with mode=compile, which decides that itself")

    def for_run(self, algorithm: Algorithm, meta_steps: int) -> "Engine":
        """The engine of a run of so many outer steps: one that does not compile where that would not repay.

        Raises:
            UsageError: this algorithm cannot be compiled, or nothing can.
        """
        if self.mode != "compile":
            return self if meta_steps >= REPLAY_FROM else replace(self, replay=False)
        if meta_steps < (self.compile_from or 0):
            return self.interpreted.for_run(algorithm, meta_steps)
        if not shutil.which(compiler := os.environ.get("CXX", "g++")):
            raise UsageError(
                f"{compiler!r} (CXX): engine=compile expected a C++ compiler and found no such program; install g++, "
                f"set CXX to one, or use engine=vmap"
            )
        if not _is_constant(algorithm):
            rule = f"vmap: {algorithm.name} changes during meta-training, and would be compiled again for each change"
            raise UsageError(f"compile (engine): expected {rule}")
        return self

    @cached_property
    def interpreted(self) -> "Engine":
        """The same engine without compiling."""
        return self if self.mode != "compile" else replace(self, mode="vmap", compile_from=None)

    @cached_property
    def direct(self) -> "Engine":
        """The same engine without compiling and recording, for what is done once or twice."""
        return replace(self.interpreted, replay=False)

    def plan(
        self, algorithm: Algorithm, meta: Params, train: Task, test: Task, *, meta_batch: int, eval_batch: int
    ) -> Chunks:
        """The chunks: those that are set, and for `auto` what fits into memory.

        Three training tasks and three of the sizes of validation and test are measured, and train nothing. An outer
        step has `meta_batch` tasks; at most `eval_batch` tasks are ever evaluated at once.
        """
        if self.mode == "loop":
            return Chunks(1, 1)
        if self.mode == "compile":
            log.info("compiling the meta-gradient, which may take the first outer step some minutes")
        device = train.support_x.device
        stages = {id(a): a for a in map(algorithm.at, STAGES)}.values()  # of most algorithms there is one

        def gradients(tasks: Task) -> None:
            for stage in stages:
                self.direct._gradient(stage, meta, tasks, len(tasks.support_x))

        def curves(tasks: Task) -> None:
            self._curves(algorithm, meta, tasks)

        return Chunks(
            choose_size(gradients, train, meta_batch, device) if isinstance(self.chunk, str) else self.chunk,
            choose_size(curves, test, eval_batch, device) if isinstance(self.eval_chunk, str) else self.eval_chunk,
        )

    def meta_gradient(
        self, algorithm: Algorithm, meta: Params, tasks: Task, chunks: Chunks | None = None, total: int | None = None
    ) -> MetaGradient:
        """The meta-gradient, averaged over T tasks, with each task's meta-loss and metric.

        Chunks are from plan(); without them the sizes are those that are set, and all tasks at once for `auto`. `total`
        is the number of tasks on all ranks, by which the sum is divided in place of T.
        """
        total = total or len(tasks.support_x)
        work = partial(self._gradient, total=total)
        pieces = cut(tasks, chunks.train if chunks else self._size(self.chunk, tasks))
        if self.mode == "compile":
            work = self._programs.choose(work, algorithm, meta, pieces, total)
        elif self.replay and self.mode == "vmap" and _is_constant(algorithm) and not self.checkpoint_inner:
            work = self._replay.choose(work, algorithm, meta, pieces, total)
        done = self._each("engine.chunk", partial(work, meta=meta), algorithm, pieces)
        grads, losses, scores = zip(*done, strict=True)
        sums = grads[0]
        for more in grads[1:]:
            sums = tuple(a + b for a, b in zip(sums, more, strict=True))
        return MetaGradient(dict(zip(meta, sums, strict=True)), torch.cat(losses), torch.cat(scores))

    def adaptation_curves(
        self, algorithm: Algorithm, meta: Params, tasks: Task, chunks: Chunks | None = None
    ) -> Tensor:
        """[T, K+1]: the query metric of each task after each inner step. Changes nothing. See meta_gradient()."""
        pieces = cut(tasks, chunks.test if chunks else self._size(self.eval_chunk, tasks))
        return torch.cat(self._each("engine.eval_chunk", partial(self._curves, meta=meta), algorithm, pieces))

    def _size(self, chunk: int | str, tasks: Task) -> int:
        return 1 if self.mode == "loop" else len(tasks.support_x) if isinstance(chunk, str) else chunk

    def _gradient(
        self, algorithm: Algorithm, meta: Params, tasks: Task, total: int
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """The sum of a chunk's gradients divided by `total`, and each task's loss and metric."""
        leaves = {name: value.detach().requires_grad_() for name, value in meta.items()}
        device = tasks.support_x.device.type
        # The backward pass too: there checkpoint_inner computes again what has to be the same as before.
        runner = recompute if self.checkpoint_inner else None
        with running(runner), torch.autocast(device, torch.bfloat16, enabled=self.autocast is not None):
            loss, score = self.map_tasks(algorithm.meta_loss, leaves, tasks)
            grads = torch.autograd.grad(loss.sum() / total, list(leaves.values()), materialize_grads=True)
        return grads, loss.detach(), score.detach()

    def _curves(self, algorithm: Algorithm, meta: Params, tasks: Task) -> Tensor:
        with torch.no_grad():
            return self.map_tasks(algorithm.adaptation_curve, meta, tasks)

    def map_tasks(self, function: Callable[[Params, Task], Any], meta: Params, tasks: Task) -> Any:
        """function(meta, task) for each task, its results stacked along a new first axis."""
        if self.mode != "loop":
            return vmap(function, in_dims=(None, 0))(meta, tasks)
        results = [function(meta, tasks.select(t)) for t in range(len(tasks.support_x))]
        if isinstance(results[0], Tensor):
            return torch.stack(results)
        return tuple(map(torch.stack, zip(*results, strict=True)))

    def _each(self, setting: str, work: Callable[..., Any], algorithm: Algorithm, pieces: list[Task]) -> list[Any]:
        """work(algorithm, tasks=piece) for each piece, in order; in two threads where that pays."""

        def work_on(algorithm: Algorithm, piece: Task) -> Any:
            with explaining_short_memory(setting, len(piece.support_x)):
                return work(algorithm, tasks=piece)

        one_thread = torch.get_num_threads() < CPU_WORKERS or pieces[0].support_x.is_cuda
        if self.mode == "loop" or one_thread or len(pieces) < CPU_WORKERS:
            return [work_on(algorithm, piece) for piece in pieces]
        return self._workers.map(work_on, algorithm, pieces)

    @cached_property
    def _programs(self) -> Programs:
        return Programs()

    @cached_property
    def _replay(self) -> Replay:
        return Replay()

    @cached_property
    def _workers(self) -> "_Workers":
        return _Workers(torch.get_num_threads() // CPU_WORKERS)


def _is_constant(algorithm: Algorithm) -> bool:
    """Whether the algorithm is the same all through meta-training."""
    return all(stage is algorithm for stage in (algorithm.origin, *map(algorithm.at, STAGES)))


class _Workers:
    """Threads, each with `threads` of torch's and a copy of the algorithm: torch.func puts parameters into modules."""

    def __init__(self, threads: int):
        self.pool = ThreadPoolExecutor(CPU_WORKERS, "chunk", torch.set_num_threads, (threads,))
        self.local = threading.local()

    def map(self, work: Callable[[Algorithm, Task], Any], algorithm: Algorithm, pieces: list[Task]) -> list[Any]:
        """work(a copy of the algorithm, piece) for each piece, in order."""

        def run(piece: Task) -> Any:
            return work(self._own(algorithm), piece)

        return list(self.pool.map(run, pieces))

    def _own(self, algorithm: Algorithm) -> Algorithm:
        """This thread's copy. Its modules are copied once, however many stages the algorithm has."""
        if getattr(self.local, "origin", None) is not algorithm.origin:
            self.local.origin, self.local.copied = algorithm.origin, {}
            copy.deepcopy(algorithm.origin, self.local.copied)
        own = copy.deepcopy(algorithm, dict(self.local.copied))
        own.origin = algorithm.origin  # by which a recording knows whom it is of
        return own
