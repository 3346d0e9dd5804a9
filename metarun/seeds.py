"""Random numbers as pure functions of what they are for, such as (seed, "train", "classes") and the number of a task.

    word j of item i at an address  =  Philox4x32-10(key = hash(address), counter = (j, i))

Nothing here keeps a state, and nothing draws from the global generators, so neither the order of generation, nor
prefetching, nor the number of processes, nor a crash can change a number. Everything up to the random words is integer
arithmetic and is the same on every device.

Reference: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (the generator and its test vectors).

T items (tasks), n numbers for each.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
FEW = 64  # numbers that distinct_of_sizes() draws from by sorting all of them


def key(*address: object) -> int:
    """The 64-bit key of an address, such as (seed, "train", "classes")."""
    text = "/".join(map(str, address))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def philox(key: int, counter: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10.

    Args:
        key: 64 bits; the low half is the first key word.
        counter: four int64 tensors of one shape (or broadcastable), values in [0, 2^32).

    Returns:
        Four int64 tensors of that shape, values in [0, 2^32).
    """
    k0, k1 = key & _MASK, key >> 32
    c0, c1, c2, c3 = counter
    for _ in range(_ROUNDS):
        # The products wrap around in int64, which keeps all their 64 bits; the mask makes the shift a logical one.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def words(address: tuple, index: Tensor, n: int) -> Tensor:
    """Random words.

    Args:
        address: what they are for.
        index: [T] int64, which items; at least 0.
        n: how many words for each.

    Returns:
        [T, n] int64, uniform in [0, 2^32). Row t depends on the address and index[t] alone.
    """
    block = torch.arange(math.ceil(n / 4), device=index.device)[None, :]
    low, high = (index & _MASK)[:, None], (index >> 32)[:, None]
    block, low = torch.broadcast_tensors(block, low)
    out = philox(key(*address), (block, torch.zeros_like(block), low, high.expand_as(low)))
    return torch.stack(out, dim=-1).flatten(1)[:, :n]


def uniform(address: tuple, index: Tensor, n: int) -> Tensor:
    """[T, n] float64, uniform in [0, 1), with 53 random bits each."""
    high, low = words(address, index, 2 * n).chunk(2, dim=1)
    return ((high >> 5) * 2**26 + (low >> 6)).double() * 2.0**-53


def normal(address: tuple, index: Tensor, n: int) -> Tensor:
    """[T, n] float64, standard normal (Box and Muller)."""
    radius, angle = uniform(address, index, 2 * n).chunk(2, dim=1)
    return torch.sqrt(-2 * torch.log1p(-radius)) * torch.cos(2 * math.pi * angle)


def distinct(address: tuple, index: Tensor, rows: int, n: int, k: int) -> Tensor:
    """Draws without replacement.

    Returns:
        [T, rows, k] int64: in each row k different numbers out of range(n), in random order.
    """
    draws = words(address, index, rows * n).view(-1, rows, n)
    # The position in the low digits makes all keys different, so that the order never depends on the sort.
    keys = draws * n + torch.arange(n, device=index.device)
    return keys.topk(k, dim=-1, largest=False).values % n


def distinct_of_sizes(address: tuple, index: Tensor, sizes: Tensor, most: int, k: int) -> Tensor:
    """Draws without replacement, from as many numbers as each row has, in time that does not grow with them.

    Where no row has over 64 numbers they are drawn as distinct() does; else one after the other (Floyd's sampling, in
    Bentley & Floyd 1987, "A sample of brilliance"), and shuffled.

    Args:
        address: what they are for.
        index: [T] int64, which items.
        sizes: [T, rows] int64, at least k: how many numbers each row has.
        most: the largest size that there can be, for any item.
        k: how many are drawn.

    Returns:
        [T, rows, k] int64: in each row k different numbers out of range(size), in random order.
    """
    rows = sizes.shape[1]
    if most <= FEW:
        place = torch.arange(most, device=index.device)
        keys = words(address, index, rows * most).view(-1, rows, most) * most + place
        absent = place >= sizes[..., None]
        return keys.masked_fill(absent, torch.iinfo(torch.int64).max).topk(k, dim=-1, largest=False).values % most
    chances, order = uniform(address, index, 2 * rows * k).view(-1, rows, k, 2).unbind(dim=-1)
    drawn = sizes.new_empty(*sizes.shape, 0)
    for n in range(k):
        last = sizes - k + n  # so far the numbers up to here could be drawn
        number = (chances[..., n] * (last + 1)).long()
        taken = (drawn == number[..., None]).any(dim=-1)
        drawn = torch.cat([drawn, torch.where(taken, last, number)[..., None]], dim=-1)
    return drawn.gather(-1, order.argsort(dim=-1))


@contextmanager
def forked(*address: object) -> Iterator[None]:
    """Inside, torch's CPU generator is seeded by the address; outside, it is as it was.

    For building a learner, whose modules initialise themselves from that generator.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(*address) >> 1)
        yield
