"""Stopping a run between two outer steps, when a signal asks for it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Collects SIGINT, SIGTERM and SIGUSR1; a second one of a kind acts at once, as it would have.

    Yields:
        A function that returns the signal received, or 0.
    """
    received = [0]
    old: dict[int, Any] = {}

    def receive(signum: int, frame: FrameType | None) -> None:
        received[0] = signum
        signal.signal(signum, old[signum])

    if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
        old.update(
            {signum: signal.signal(signum, receive) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
        )
    try:
        yield lambda: received[0]
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
