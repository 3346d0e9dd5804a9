"""Several processes (ranks) that share the tasks of every meta-batch, as `torchrun -m metarun` starts them.

    meta-gradient = 1/T Σ_p Σ_{t in share p} ∇_θ meta_loss(θ, task_t)

P processes, T tasks. Each makes and computes its share of the tasks, and all take the same outer step, so that their
states stay equal. Tasks have addresses, so the result does not depend on P, but for the last digits of a sum.
"""

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from metarun.engine.ranks import world_size
from metarun.errors import ProcessEndedError
from metarun.models.functional import Params

PATIENCE = timedelta(minutes=30)  # for the slowest process: it may be packing data
# How gloo, which raises plain RuntimeErrors, says that a process is gone.
GONE = r"(Connection|Socket) (was )?(closed|reset|refused)|Broken pipe|[Tt]imed out|[Rr]emote (process|peer)"


@contextmanager
def _naming_a_dead_process() -> Iterator[None]:
    """Replaces torch's pages on a process that is gone by one line with a remedy; other errors go through.

    Raises:
        ProcessEndedError: another process of the run has ended.
    """
    try:
        yield
    except RuntimeError as error:
        network = isinstance(error, (dist.DistBackendError, dist.DistNetworkError)) and "EADDRINUSE" not in str(error)
        if not network and not re.search(GONE, str(error)):
            raise
        raise ProcessEndedError(
            f"another process of this run has ended (rank {os.environ.get('RANK')} was waiting for it): expected all "
            "to go on; its own words say why; the same command goes on from the last checkpoint"
        ) from error


class Processes:
    """The processes of this command. All of them make the same calls in the same order.

    Attributes:
        rank: the number of this one. Rank 0 writes, and decides.
        size: how many there are.
    """

    def __init__(self) -> None:
        joined = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)

    def share(self, items: Tensor) -> Tensor:
        """The part of [T] that is this process's, as even as can be, in the order of ranks."""
        return items.tensor_split(self.size)[self.rank]

    @_naming_a_dead_process()
    def sum(self, values: Params) -> Params:
        """The sum over processes of each tensor."""
        if self.size == 1:
            return values
        flat = torch.cat([value.flatten() for value in values.values()])
        dist.all_reduce(flat)
        parts = flat.split([value.numel() for value in values.values()])
        named = zip(values.items(), parts, strict=True)
        return {name: part.view_as(value).to(value.dtype) for (name, value), part in named}

    @_naming_a_dead_process()
    def join(self, part: Tensor, total: int) -> Tensor:
        """[T, ...] in all of which this process has `part`, its [share(), ...]."""
        if self.size == 1:
            return part
        shares = [len(share) for share in torch.arange(total).tensor_split(self.size)]
        padded = part.new_zeros(max(shares), *part.shape[1:])
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, shares, strict=True)])

    @_naming_a_dead_process()
    def from_rank_zero(self, value: Any) -> Any:
        """Rank 0's value: tensors and plain values."""
        if self.size == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    @_naming_a_dead_process()
    def first_not_none(self, value: Any) -> Any:
        """The value of the first rank that has another than None; None if none has."""
        if self.size == 1:
            return value
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return next((value for value in found if value is not None), None)

    @_naming_a_dead_process()
    def largest(self, number: int, device: torch.device) -> int:
        """The largest number that any process has."""
        if self.size == 1:
            return number
        holder = torch.tensor([number], device=device)
        dist.all_reduce(holder, op=dist.ReduceOp.MAX)
        return int(holder)


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Inside, the processes that torchrun started can talk to each other."""
    if world_size() == 1 or dist.is_initialized():
        yield
        return
    with _naming_a_dead_process():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()
        gc.collect()  # its threads end with it; left to the interpreter's end, they may abort the process
