"""Whether to replay a meta-gradient: recorded once, seen to be the same, and kept where that is faster.

The answer changes no bit of a result, so that it may depend on a clock.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from metarun.algos.base import Algorithm
from metarun.engine.recording import Function, Gradients, Work, flatten, form, record, same, unflatten
from metarun.models.functional import Params
from metarun.tasks import Task

log = logging.getLogger(__name__)

WARM = 4  # outer steps before the recording
TRIALS = 6  # outer steps that are done both ways after it
FASTER = 0.95  # share of the time that a replay may take
SLOWER = 1.5  # times that of a replay in all threads, from which one in a single thread is not tried again


class Replay:
    """The meta-gradient of a run, as it goes from outer step to outer step."""

    def __init__(self):
        self.made_for: Any = None
        self._forget()

    def _forget(self) -> None:
        self.step, self.given_up = 0, False
        self.recordings: dict[int, Function] = {}  # by the tasks of a chunk, in which alone chunks of a step differ
        self.usual: list[float] = []  # seconds of a chunk as it is,
        self.replayed: dict[int | None, list[float]] = {}  # and replayed in so many threads; None: in all of them
        self.threads: int | None = None  # those of replays, once that is decided

    def choose(self, work: Work, algorithm: Algorithm, meta: Params, pieces: list[Task], total: int) -> Work:
        """What to do in this outer step in place of `work`, which divides by `total`.

        Called by one thread while no other computes: the chunks of all threads are replayed, or none is.
        """
        made_for = total, [form(algorithm, meta, piece) for piece in pieces]
        if made_for != self.made_for:
            self._forget()
            self.made_for, self.algorithm = made_for, algorithm
        self.step += 1
        if self.step == WARM + 1:
            self._record(work, algorithm, meta, pieces)
            # A lone chunk of tiny tensors waits for its threads longer than they save: sinusoids, 1.2 times as fast.
            lone = len(pieces) == 1 and not pieces[0].query_y.is_cuda and torch.get_num_threads() > 1
            self.replayed = {None: [], 1: []} if lone else {None: []}
        if self.given_up or self.step <= WARM + 1:
            return work
        if self.step <= WARM + 1 + TRIALS:
            return lambda algorithm, meta, tasks: self._try(work, algorithm, meta, tasks)
        if self.step == WARM + TRIALS + 2:
            self._decide()
        return work if self.given_up else self._replay

    def _record(self, work: Work, algorithm: Algorithm, meta: Params, pieces: list[Task]) -> None:
        for size, piece in {len(piece.key): piece for piece in pieces}.items():
            try:
                self.recordings[size] = record(flatten(work, algorithm, meta), [*meta.values(), *piece])
            except Exception as error:  # whatever it is, the work can be done as it was
                log.debug("no recording of the meta-gradient: %s", error)
                self.given_up = True

    def _replay(self, algorithm: Algorithm, meta: Params, tasks: Task) -> Gradients:
        with _limited(self.threads):
            return unflatten(self.recordings[len(tasks.key)], meta, tasks)

    def _try(self, work: Work, algorithm: Algorithm, meta: Params, tasks: Task) -> Gradients:
        """The chunk's gradients as they always were; notes how long they and replays take, and what differs."""
        began = _now(losses := tasks.query_y)
        grads, losses, scores = work(algorithm, meta=meta, tasks=tasks)
        self.usual.append(_now(losses) - began)
        for threads, seconds in list(self.replayed.items()):
            began = _now(losses)
            try:
                with _limited(threads):
                    again = unflatten(self.recordings[len(tasks.key)], meta, tasks)
            except Exception as error:
                log.debug("no replay of the meta-gradient: %s", error)
                self.given_up = True
                break
            seconds.append(_now(losses) - began)
            equal = same((*grads, losses, scores), (*again[0], *again[1:]))
            if threads is None and not equal:
                log.debug("a replay of the meta-gradient has other numbers")
                self.given_up = True
                break
            if threads is not None and (not equal or seconds[-1] > SLOWER * self.replayed[None][-1]):
                del self.replayed[threads]
        return grads, losses, scores

    def _decide(self) -> None:
        means = {threads: fmean(seconds) for threads, seconds in self.replayed.items()}
        self.threads = min(means, key=means.__getitem__)
        share = means[self.threads] / fmean(self.usual)
        log.debug("a replay takes %.2f of the time, in %s threads", share, self.threads or "all")
        self.given_up |= share > FASTER


@contextmanager
def _limited(threads: int | None) -> Iterator[None]:
    """Inside, torch computes in so many threads; None: in as many as before."""
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if threads:
            torch.set_num_threads(before)


def _now(tensor: Tensor) -> float:
    """Seconds, once the tensor's device has done what it was given."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    return time.perf_counter()
