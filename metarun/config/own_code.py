"""Errors in classes of the user's: names the class, the file and the line. Imports no torch.

The user's own is what METARUN_TRUST names. Whatever else fails on the way, such as torch in a layer of a learner, is
put down to the nearest part of the user's that called it.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from metarun.errors import DataError, MetarunError, UsageError
from metarun.text import reason, short_path, spell_class

NOT_OWN = ("metarun", "torch")  # the user's they cannot be, whatever is trusted


def trusted() -> list[str]:
    """The packages whose classes a config may name. Only the environment can add to them; a config cannot."""
    named = os.environ.get("METARUN_TRUST", "").split(",")
    return ["metarun", "torch.optim", *(name.strip() for name in named if name.strip())]


def within(name: str, packages: list[str]) -> bool:
    """Whether a dotted name is, or lies in, one of these packages."""
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def is_own(module: str | None) -> bool:
    """Whether a module belongs to a package that the user trusts, beside metarun and torch."""
    packages = [name for name in trusted() if name.partition(".")[0] not in NOT_OWN]
    return bool(module) and within(str(module), packages)


def class_name(part: Any) -> str:
    """The name of an object's class, or of a class: `net.Flat` as one types it in `_target_`; of metarun's `MLP`."""
    cls = part if isinstance(part, type) else type(part)
    name = getattr(part, "own_class", None)  # of a learner, which may have taken in a module
    return spell_target(name if isinstance(name, str) else spell_class(cls))


def spell_target(name: str) -> str:
    """A `_target_` for people: of a class of metarun's its own name, else all of it."""
    return name.rpartition(".")[2] if within(name, ["metarun"]) else name


def place_of(error: BaseException) -> str:
    """`net.py:12`, the line of the user's own code that an error comes from; "" where none took part."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{short_path(Path(error.filename))}:{error.lineno}"
    own = [(frame, line) for frame, line in _frames(error) if is_own(frame.f_globals.get("__name__"))]
    if own:
        frame, line = own[-1]
        return f"{short_path(Path(frame.f_code.co_filename))}:{line}"
    for part in _own_parts(error):  # a class without a line of its own there, such as a Sequential
        return str(short_path(Path(getattr(sys.modules.get(type(part).__module__), "__file__", None) or "?")))
    return ""


def explain(error: Exception) -> MetarunError | None:
    """The error that names the user's class in which this one was raised; None where it is not of the user's.

    It is a DataError if a task source took part, else a UsageError. Errors of metarun's own kinds say all there is to
    say, and give None.
    """
    place = "" if isinstance(error, MetarunError) else place_of(error)
    if not place:
        return None
    parts = _own_parts(error)
    source = next((part for part in parts if hasattr(part, "sample") and hasattr(part, "prepare")), None)
    own = [frame for frame, _ in _frames(error) if is_own(frame.f_globals.get("__name__"))]
    name = class_name(parts[0]) if parts else str(own[-1].f_globals["__name__"])
    method = f".{own[-1].f_code.co_name}" if own else ""
    kind = UsageError if source is None else DataError
    return kind(
        f"{name}{method}: {type(error).__name__}: {reason(error)} ({place}): expected no error there; mend the class, "
        f"and see metarun check"
    )


@contextmanager
def explaining() -> Iterator[None]:
    """Raises in place of an error what explain() gives for it, if anything."""
    try:
        yield
    except Exception as error:
        if (explained := explain(error)) is not None:
            raise explained from error
        raise


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """The frames of an error with their lines, the innermost last; without what a dataclass has generated."""
    frames = traceback.walk_tb(error.__traceback__)
    return [(frame, line) for frame, line in frames if not frame.f_code.co_filename.startswith("<")]


def _own_parts(error: BaseException) -> list[Any]:
    """The objects of the user's classes whose methods the error went through, the innermost first."""
    found = [frame.f_locals.get("self") for frame, _ in reversed(_frames(error))]
    return [part for part in found if part is not None and is_own(type(part).__module__)]
