"""Units: the pieces of an algorithm that an engine may run in its own way, such as an inner step.

An algorithm calls `unit(function, *args)` for what it does over and over, and gets function(*args). Alone that is all.
An engine may decide otherwise: forget what the function computed on its way, and compute that again when gradients need
it. So a unit has to be a pure function of its arguments: tensors, in any nesting of dicts and tuples, and plain values,
which are constants to it. What it reads of the algorithm must not change during a run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Runner = Callable[..., Any]  # runner(function, *args) gives function(*args)

_runner: ContextVar[Runner | None] = ContextVar("runner", default=None)
_tracing: ContextVar[bool] = ContextVar("tracing", default=False)


def unit(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args), in the way that the engine has chosen."""
    runner = _runner.get()
    return function(*args) if runner is None else runner(function, *args)


@contextmanager
def running(runner: Runner | None) -> Iterator[None]:
    """Units called within are run by this runner, or with None as they are."""
    token = _runner.set(runner)
    try:
        yield
    finally:
        _runner.reset(token)


def compiling() -> bool:
    """Whether what runs now is being compiled: modules may then take the form that compiles best."""
    return _tracing.get()


@contextmanager
def tracing() -> Iterator[None]:
    """Inside, compiling() is true."""
    token = _tracing.set(True)
    try:
        yield
    finally:
        _tracing.reset(token)
