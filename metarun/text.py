"""How values, names and paths are written for people."""

import difflib
import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

DIGITS = 7  # of float32


def spell(value: Any) -> str:
    """A value as one types it: null, true and false as in YAML, else as Python has it; cut after 200 characters."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def spell_plain(value: Any) -> str:
    """A value of a config as one types it, but for quotes around a text: null, true, 0.1, [1, 2], maml."""
    return value if isinstance(value, str) else json.dumps(value)


def reason(error: Exception) -> str:
    """What an exception says, in one line, without the path that the message around it names."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200]


def printable(text: str) -> str:
    """A text in which nothing can move a terminal's cursor or change its colours; lines stay lines."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def closest(name: str, names: Iterable[str]) -> list[str]:
    """The name most like `name`, whatever its case; where none is, up to three that end so: lr of meta_lr."""
    by_case = {other.lower(): other for other in reversed(list(names))}
    found = difflib.get_close_matches(name.lower(), list(by_case), n=1, cutoff=0.65)
    found = found or [other for other in reversed(by_case) if re.split(r"[._]", other)[-1] == name.lower()][:3]
    return [by_case[other] for other in found]


def nearest(name: str, names: Iterable[str]) -> str:
    """'; did you mean X?' for the name closest to `name`, or ''."""
    return did_you_mean(closest(name, names))


def did_you_mean(names: list[str]) -> str:
    """'; did you mean X or Y?', or '' without names."""
    return f"; did you mean {' or '.join(names)}?" if names else ""


def first_of(names: Sequence[str]) -> str:
    """The first names of a list, such as 'a, b and 3 more'."""
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def count_of(number: int, noun: str) -> str:
    """A number with its noun: '1 run', '2 runs', '2 classes'."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{plural if number != 1 else ''}"


def format_metric(metric: str, value: float, ci95: float | None = None) -> str:
    """A metric for people: accuracy in %, mean squared error as it is; with its interval if there is one.

    Such as '98.70 ± 0.43 %' and '0.378 ± 0.049'; see format_alike().
    """
    numbers = format_alike(metric, [value] if ci95 is None else [value, ci95], ci95)
    return " ± ".join(numbers) + (" %" if metric == "accuracy" else "")


def format_alike(metric: str, values: Sequence[float], ci95: float | None = None) -> list[str]:
    """Values of a metric without a unit, all with the decimals that two significant digits of the interval have.

    The interval is that of the first value.

    Without an interval, or with one of no width, an accuracy has one decimal, and a squared error four digits. Very
    large and very small errors have a power of ten in common: 3.00e-07 ± 0.21e-07.
    """
    scale = 100 if metric == "accuracy" else 1
    scaled = [scale * value for value in values]
    if not ci95 or not all(
        map(math.isfinite, (*scaled, scale * ci95))
    ):  # of a share of 1e308, say, in a stranger's file
        return [f"{value:.1f}" if metric == "accuracy" else f"{value:.4g}" for value in scaled]
    decimals = 1 - _power_of(scale * ci95, 1)
    power = _power_of(max(abs(scaled[0]), scale * ci95), max(0, decimals))
    decimals = min(decimals, DIGITS - 1 - power)  # an interval that rounding alone makes is 0
    if -5 < power < 6:
        return [f"{round(value, decimals):.{max(0, decimals)}f}" for value in scaled]
    return [f"{value / 10.0**power:.{max(0, decimals + power)}f}e{power:+03d}" for value in scaled]


def _power_of(value: float, decimals: int) -> int:
    """The power of ten of a number's first digit, once it is rounded to so many decimals in that notation."""
    return int(f"{value:.{min(decimals, 15)}e}".partition("e")[2])


def format_duration(seconds: float) -> str:
    """Seconds for people, such as '2 min 05 s'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def format_bytes(count: int) -> str:
    """Bytes for people, such as '1.2 MB': units of 1000."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


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
    """The short path for a command line: no shell and no option can mistake it.

    The working directory itself has its whole name: hydra.job.chdir=true is in a run's, and no shell is there.
    """
    found = short_path(path)
    short = str(path if found == Path(".") else found)
    return shlex.quote(f"./{short}" if short.startswith("-") else short)
