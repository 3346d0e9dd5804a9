"""How values, names and paths are written for people."""

import difflib
import json
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def spell(value: Any) -> str:
    """A value as one types it: null, true and false as in YAML, else as Python has it; cut after 200 characters."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def reason(error: Exception) -> str:
    """What an exception says, in one line, without the path that the message around it names."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200]


def printable(text: str) -> str:
    """A text in which nothing can move a terminal's cursor or change its colours; lines stay lines."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def nearest(name: str, names: Iterable[str]) -> str:
    """'; did you mean X?' for the name most like `name`, or ''."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def count_of(number: int, noun: str) -> str:
    """A number with its noun: '1 run', '2 runs', '2 classes'."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{plural if number != 1 else ''}"


def format_metric(metric: str, value: float, ci95: float | None = None) -> str:
    """A metric for people: accuracy in %, mean squared error as it is; with its interval if there is one."""
    if metric == "accuracy":
        return f"{100 * value:.1f}" + (f" ± {100 * ci95:.1f}" if ci95 is not None else "") + " %"
    return f"{value:.4g}" + (f" ± {ci95:.2g}" if ci95 is not None else "")


def format_duration(seconds: float) -> str:
    """Seconds for people, such as '2 min 05 s'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def spell_class(cls: type) -> str:
    """The name of a class as one types it in `_target_`, such as net.Flat."""
    return f"{cls.__module__}.{cls.__qualname__}"


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal on which something can be drawn: some have no size, and are like a pipe."""
    try:
        return stream.isatty() and all(os.get_terminal_size(stream.fileno()))
    except (AttributeError, OSError, ValueError):
        return False


def short_path(path: Path) -> Path:
    """The path relative to the working directory where it lies below that, else as it is."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # it was removed
        return path
    return path.relative_to(here) if path.is_relative_to(here) else path


def typed_path(path: Path) -> str:
    """The short path for a command line: no shell and no option can mistake it."""
    short = str(short_path(path))
    return shlex.quote(f"./{short}" if short.startswith("-") else short)
