"""Stopping a run when a signal asks for it: after the outer step and a save in training, at once elsewhere."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from metarun.errors import MetarunError, StoppedError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[dict[int, Any]]:
    """Handles the signals inside; yields the handlers from before. Python allows this in the main thread only."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # and then the end of the terminal is not ours
        heard = [signum for signum in SIGNALS if not (nohup and signum == signal.SIGHUP)]
        before.update({signum: signal.signal(signum, handler) for signum in heard})
    try:
        yield before
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)


class Interruption(KeyboardInterrupt):
    """A signal on its way to stop_at_once(): no library, and nothing here, takes it for an error and goes on."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum


@contextmanager
def stop_at_once(remedy: str) -> Iterator[None]:
    """A signal ends what is inside, and is a StoppedError outside."""

    def handler(signum: int, frame: FrameType | None) -> None:
        raise Interruption(f"{signal.Signals(signum).name}: stopped; {remedy}", signum)

    with _handled_by(handler):
        try:
            yield
        except Interruption as interruption:
            raise StoppedError(str(interruption), interruption.signum) from None


@contextmanager
def until_ctrl_c() -> Iterator[None]:
    """What is inside goes on until ctrl-C, which is its good end; other signals stop it as they stop anything."""
    try:
        yield
    except KeyboardInterrupt as error:
        if getattr(error, "signum", signal.SIGINT) != signal.SIGINT:
            raise


@contextmanager
def stop_between_steps() -> Iterator[Callable[[], int]]:
    """Inside, a signal is only remembered; a second one of its kind acts as it would have outside.

    Yields:
        A function that returns the signal received, or 0.
    """
    received = [0]

    def handler(signum: int, frame: FrameType | None) -> None:
        received[0] = signum
        signal.signal(signum, before[signum])

    with _handled_by(handler) as before:
        yield lambda: received[0]


@contextmanager
def handing_on(signum: int) -> Iterator[None]:
    """A run inside that this signal has stopped gives it on to submitit, if that began it: it requeues the job.

    Raises MetarunError, with the words of StoppedError, where submitit does not: the job has failed then.
    """
    try:
        yield
    except StoppedError as error:
        if error.code == 128 + signum and "SUBMITIT_EXECUTOR" in os.environ:
            try:
                signal.raise_signal(signum)
            except Exception as refusal:
                raise MetarunError(str(error)) from refusal
        raise
