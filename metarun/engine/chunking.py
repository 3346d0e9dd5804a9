"""Meta-batches in chunks that fit into memory."""

import os
import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metarun.errors import MemoryShortError
from metarun.tasks import Task

CPU_WORKERS = 2  # chunks that a CPU works on at the same time; see engine.py
CPU_BYTES = 256 << 20
SMALL_BYTES = 16 << 20  # a meta-batch that takes less is not cut on a CPU; the sinusoid's 25 tasks take 3 MiB


class Chunks(NamedTuple):
    """Tasks of a chunk, in training and in validation or test. They decide the last digits of a gradient."""

    train: int
    test: int  # in validation too


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that live at once. The count is the same on every device and every machine."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        number, size = storage._cdata, storage.nbytes()
        if number not in self.seen:
            self.seen.add(number)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._drop, number, size)

    def _drop(self, number: int, size: int) -> None:
        self.seen.discard(number)
        self.live -= size


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes of new tensors that live at once while `work` runs."""
    with _LiveBytes() as count:
        work()
    return count.peak


def bytes_for_a_chunk(device: torch.device) -> int:
    """Bytes that a chunk of tasks may take; on a CPU at most CPU_BYTES, as more never helps there."""
    if device.type == "cuda":  # whatever its load, so that a command chooses the same chunk every time
        return torch.cuda.get_device_properties(device).total_memory // 2
    return min(CPU_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)


def choose_size(work: Callable[[Task], object], tasks: Task, total: int, device: torch.device) -> int:
    """The largest chunk size that fits into memory, with chunks of about equal size for `total` tasks.

    The memory of `work` on a chunk is extrapolated from that on one and on three tasks; where three do not fit, tasks
    go one by one. On a CPU the number of chunks is a multiple of CPU_WORKERS, unless the meta-batch is small.
    """
    try:
        one, three = (peak_bytes(lambda n=n: work(tasks.select(slice(0, n)))) for n in (1, 3))
    except (MemoryError, RuntimeError) as error:
        if not _is_short_memory(error):
            raise
        return 1
    each = max((three - one) // 2, 1)
    fits = max((bytes_for_a_chunk(device) - (one - each)) // each, 1)
    pieces = -(-total // min(fits, total))
    if device.type == "cpu" and torch.get_num_threads() >= CPU_WORKERS and (pieces > 1 or each * total > SMALL_BYTES):
        pieces = -(-pieces // CPU_WORKERS) * CPU_WORKERS
    return -(-total // pieces)


def cut(tasks: Task, size: int) -> list[Task]:
    """The tasks in chunks of this size."""
    return [tasks.select(slice(start, start + size)) for start in range(0, len(tasks.support_x), size)]


def _is_short_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or bool(re.search("out of memory|can't allocate memory", str(error)))


@contextmanager
def explaining_short_memory(setting: str, tasks: int) -> Iterator[None]:
    """Turns torch's three ways to say that memory is short into one error, with the setting to be made smaller.

    Raises:
        MemoryShortError: memory is short.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_short_memory(error):
            raise
        remedy = f"{setting}={tasks // 2}" if tasks > 1 else "a smaller learner, fewer shots or fewer inner steps"
        raise MemoryShortError(
            f"out of memory with {tasks} tasks at once ({setting}): expected them to fit; try {remedy}"
        ) from error
