"""Which runs are wanted, of those that are listed, and in which order."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from metarun.errors import UsageError
from metarun.results.listing import Listed
from metarun.text import nearest

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LOWEST_FIRST = ("mse",)  # metrics of which less is better


@dataclass(frozen=True)
class Wanted:
    """What a listed run has to be: of each field one of the values, where there are any; letters in any case.

    Attributes:
        since: seconds since 1970; None: any.
    """

    status: Sequence[str] = ()
    algo: Sequence[str] = ()
    data: Sequence[str] = ()
    tag: Sequence[str] = ()
    since: float | None = None

    def takes(self, run: Listed) -> bool:
        """Whether a run is wanted."""
        return (
            _among(self.status, [run.status])
            and _among(self.algo, [run.algorithm])
            and _among(self.data, [run.source])
            and _among(self.tag, run.tags)
            and (self.since is None or (run.began or 0) >= self.since)
        )

    def describe(self) -> str:
        """It as typed, such as 'status=failed algo=maml'; '' where everything is wanted."""
        lists = {name: ",".join(getattr(self, name)) for name in ("status", "algo", "data", "tag")}
        since = None if self.since is None else datetime.fromtimestamp(self.since).strftime("%Y-%m-%d %H:%M")
        return " ".join([*(f"{name}={value}" for name, value in lists.items() if value), *_pair("since", since)])


def _among(wanted: Sequence[str], values: Sequence[str]) -> bool:
    return not wanted or bool({value.lower() for value in wanted} & {value.lower() for value in values})


def _pair(name: str, value: str | None) -> list[str]:
    return [] if value is None else [f"{name}={value}"]


def read_since(word: str, now: datetime | None = None) -> float:
    """The time that a word names, in seconds since 1970: so long before now as 7d, 12h or 30m, or a date.

    Raises:
        UsageError: it is neither.
    """
    now = now or datetime.now()
    try:
        if match := re.fullmatch(r"(\d+(?:\.\d+)?) ?([smhdw])", word.lower()):
            return (now - timedelta(**{UNITS[match[2]]: float(match[1])})).timestamp()
        return datetime.fromisoformat(word).timestamp()
    except (ValueError, OverflowError) as error:
        rule = "expected so long ago as 30m, 12h, 7d or 2w, or a date as 2026-01-31"
        raise UsageError(f"{word!r} (since): {rule}") from error


def _by_metric(field: str) -> Callable[[Listed], Any]:
    """The key by which runs are sorted, best first: accuracies, then squared errors, then those without a value."""

    def key(run: Listed) -> tuple[bool, str, float]:
        value = getattr(run, field)
        sign = 1 if run.metric in LOWEST_FIRST else -1
        return value is None, run.metric or "", sign * (value or 0.0)

    return key


# By name: the key, and the words for it.
ORDERS: dict[str, tuple[Callable[[Listed], Any], str]] = {
    "began": (lambda run: -(run.began or 0), "newest first"),
    "val": (_by_metric("validation"), "best validation first"),
    "test": (_by_metric("test"), "best test first (to choose a setting, take sort=val)"),
    "step": (lambda run: -run.step, "most outer steps first"),
    "status": (lambda run: run.status, "by status"),
    "algo": (lambda run: run.algorithm.lower(), "by algorithm"),
    "data": (lambda run: run.source.lower(), "by task source"),
    "folder": (lambda run: run.folder, "by folder"),
}


def order_by(word: str) -> str:
    """The name of an order. Raises UsageError: there is no such one."""
    name = {"validation": "val", "age": "began", "new": "began", "algorithm": "algo"}.get(word.lower(), word.lower())
    if name not in ORDERS:
        raise UsageError(f"{word!r} (sort): expected one of {', '.join(ORDERS)}{nearest(word, ORDERS)}")
    return name


def sort_runs(runs: Sequence[Listed], order: str) -> list[Listed]:
    """The runs in that order; equal ones stay as they are, newest first."""
    return sorted(runs, key=ORDERS[order][0])
