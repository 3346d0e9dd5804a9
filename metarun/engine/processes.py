"""Several processes that share the tasks of every meta-batch, as `torchrun -m metarun` starts them.

    meta-gradient = 1/T Σ_p Σ_{t in share p} ∇_θ meta_loss(θ, task_t)

P processes, T tasks. Each makes and computes its share of the tasks, and all take the same outer step, so that their
states stay equal. Tasks have addresses, so the result does not depend on P, but for the last digits of a sum.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from metarun.engine.ranks import count
from metarun.errors import ProcessEndedError
from metarun.models.functional import Params

PATIENCE = timedelta(minutes=30)  # for the slowest process: it may be packing data


class Processes:
    """The processes of this command.

    Attributes:
        rank: the number of this one. Number 0 writes, and decides.
        size: how many there are.
    """

    def __init__(self) -> None:
        joined = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)

    def share(self, items: Tensor) -> Tensor:
        """The part of [T] that is this process's, as even as can be, in the order of ranks."""
        return items.tensor_split(self.size)[self.rank]

    def sum(self, values: Params) -> Params:
        """The sum over processes of each tensor."""
        if self.size == 1:
            return values
        flat = torch.cat([value.flatten() for value in values.values()])
        with _told():
            dist.all_reduce(flat)
        parts = flat.split([value.numel() for value in values.values()])
        named = zip(values.items(), parts, strict=True)
        return {name: part.view_as(value).to(value.dtype) for (name, value), part in named}

    def join(self, part: Tensor, total: int) -> Tensor:
        """The whole of which each process has its share().

        Args:
            part: [share, ...].
            total: T.
        """
        if self.size == 1:
            return part
        shares = [len(some) for some in torch.arange(total).tensor_split(self.size)]
        padded = part.new_zeros(max(shares), *part.shape[1:])
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in shares]
        with _told():
            dist.all_gather(parts, padded)
        return torch.cat([some[:length] for some, length in zip(parts, shares, strict=True)])

    def from_first(self, value: Any) -> Any:
        """What process 0 has: tensors and plain values."""
        if self.size == 1:
            return value
        holder = [value]
        with _told():
            dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def first_of(self, value: Any) -> Any:
        """What the first process has that has something else than None."""
        if self.size == 1:
            return value
        found: list[Any] = [None] * self.size
        with _told():
            dist.all_gather_object(found, value)
        return next((some for some in found if some is not None), None)

    def largest(self, number: int, device: torch.device) -> int:
        """The largest number that any process has."""
        if self.size == 1:
            return number
        holder = torch.tensor([number], device=device)
        with _told():
            dist.all_reduce(holder, op=dist.ReduceOp.MAX)
        return int(holder)


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Inside, the processes that torchrun started can talk to each other."""
    if count() == 1 or dist.is_initialized():
        yield
        return
    with _told():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()
        gc.collect()  # its threads end with it; left to the interpreter's end, they may abort the process


@contextmanager
def _told() -> Iterator[None]:
    """What torch raises when another process is gone has pages, and no remedy."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessEndedError(
            f"another process of this run has ended (rank {os.environ.get('RANK')} was waiting for it): expected all "
            "to go on; its own words say why; the same command goes on from the last checkpoint"
        ) from error
