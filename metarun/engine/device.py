"""Device, threads and memory."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from metarun.engine.ranks import local_gpu
from metarun.errors import SettingError, at_least, boolean, one_of

MOST_THREADS = 1024  # far more crash OpenMP
FILL = "fill_uninitialized_memory"
M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX = -4, -1, -8  # of malloc.h
DEFAULT_THREADS = torch.get_num_threads()
_before: list[Callable[[], object]] = []  # calls that give torch the settings that it had before set_up()


class Device:
    """Where a run computes.

    Args:
        name: auto (the GPU if there is one), cpu or cuda.
        threads: CPU threads, None for torch's choice.
        deterministic: use only algorithms that repeat themselves to the bit.
        tf32: let a GPU round the factors of float32 products to 10 bits of mantissa, which is several times as fast.
    """

    def __init__(self, name: str = "auto", threads: int | None = None, deterministic: bool = True, tf32: bool = False):
        one_of("name", name, ["auto", "cpu", "cuda"])
        boolean(deterministic=deterministic, tf32=tf32)
        if threads is not None:
            at_least(1, threads=threads)
            if threads > MOST_THREADS:
                raise SettingError(threads, "threads", f"at most {MOST_THREADS}")
        if name == "cuda" and not torch.cuda.is_available():
            raise SettingError(
                name, "name", "an NVIDIA GPU that torch can use, and found none; use device=cpu or device=auto"
            )
        gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
        self.torch_device = torch.device(f"cuda:{local_gpu(torch.cuda.device_count())}" if gpu else "cpu")
        if tf32 and not gpu:
            raise SettingError(tf32, "tf32", "false on a CPU, which has no such format")
        self.threads, self.deterministic, self.tf32 = threads, deterministic, tf32

    def set_up(self) -> torch.device:
        """Makes torch follow these settings, for the whole process, until put_back()."""
        if not _before:
            cudnn, cuda, matmul = torch.backends.cudnn, torch.backends.cuda, torch.backends.cuda.matmul
            _before.extend(
                [
                    partial(torch.set_num_threads, torch.get_num_threads()),
                    partial(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled()),
                    partial(setattr, torch.utils.deterministic, FILL, getattr(torch.utils.deterministic, FILL)),
                    partial(setattr, cudnn, "deterministic", cudnn.deterministic),
                    partial(setattr, cudnn, "allow_tf32", cudnn.allow_tf32),
                    partial(setattr, matmul, "allow_tf32", matmul.allow_tf32),
                    partial(cuda.enable_flash_sdp, cuda.flash_sdp_enabled()),  # which learners of the user's turn off
                    partial(cuda.enable_mem_efficient_sdp, cuda.mem_efficient_sdp_enabled()),
                    partial(cuda.enable_cudnn_sdp, cuda.cudnn_sdp_enabled()),
                    partial(keep_memory, False),
                ]
            )
        torch.set_num_threads(self.threads or DEFAULT_THREADS)  # an earlier job of a sweep may have changed it
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(self.deterministic)
        # It would fill new tensors, for operations that read what nobody has written; here that is none.
        setattr(torch.utils.deterministic, FILL, False)
        torch.backends.cudnn.deterministic = self.deterministic
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self.tf32
        keep_memory()
        return self.torch_device


@contextmanager
def borrowed() -> Iterator[None]:
    """Inside, torch follows set_up(); afterwards it has the settings that it had before, as in a user's notebook."""
    outermost = not _before
    try:
        yield
    finally:
        if outermost:
            put_back()


def put_back() -> None:
    """Gives torch the settings that it had before a set_up(), for whoever else uses this process."""
    while _before:
        _before.pop()()


def keep_memory(keep: bool = True) -> None:
    """Tells glibc to keep freed memory for the next tensor, and not to give it back to the system and fetch it again.

    An outer step frees and takes the same large tensors over and over; fetching takes a fault for every 4 KiB.
    keep=False restores glibc's defaults.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0 if keep else 65536)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1 if keep else 128 << 10)
        mallopt(M_ARENA_MAX, 1 if keep else 0)  # one store for all threads


def memory_mb(device: torch.device) -> int:
    """The most memory that the process (on a GPU: its tensors) has taken so far, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)
