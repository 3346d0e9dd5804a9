"""How much memory a computation needs, so that a meta-batch can be cut into chunks that fit."""

import os
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU_BYTES = 256 << 20


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


def budget(device: torch.device) -> int:
    """Bytes that a chunk of tasks may take.

    Half of a GPU's memory, whatever its load, so that a command chooses the same chunk every time. On a CPU
    at most CPU_BYTES: more never helps there.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory // 2
    return min(CPU_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)
