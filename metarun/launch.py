"""What torchrun tells each process that it starts, by the environment. Imports no torch."""

import os

from metarun.errors import UsageError


def _number(name: str, default: int, least: int) -> int:
    value = os.environ.get(name, "") or str(default)
    if not value.isdecimal() or int(value) < least:
        raise UsageError(f"{value!r} ({name}): expected an integer of at least {least}, as torchrun sets it; unset it")
    return int(value)


def count() -> int:
    """How many processes share this run."""
    return _number("WORLD_SIZE", 1, 1)


def is_first() -> bool:
    """Whether this process is the one of them that writes and speaks."""
    return _number("RANK", 0, 0) == 0


def number_here() -> int:
    """The number of this process among those on this machine."""
    return _number("LOCAL_RANK", 0, 0)
