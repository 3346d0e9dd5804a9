"""Runs while they go on, as lines for a terminal."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from metarun.results.grid import Column, cut, format_grid
from metarun.results.listing import Listed, list_runs, read_listed
from metarun.results.listing_text import count_states
from metarun.text import format_duration, format_metric

SHARE = 20  # a search for new runs takes at most one second in so many: a thousand runs are read in half a second


class Watch:
    """The runs that go on in folders, and those that have ended meanwhile. A run that is named itself is always there.

    Args:
        folders: as typed; they need not be there yet.
    """

    def __init__(self, folders: Iterable[str]):
        self.folders = list(folders)
        self.named = {str(Path(name)) for name in self.folders}  # without the slash that a shell completes
        self.runs: dict[str, Listed] = {}
        self._search_at = 0.0

    def look(self) -> list[Listed]:
        """The runs as they are now, those that go on first."""
        began = time.monotonic()
        if began >= self._search_at:
            for run in list_runs(self.folders):
                if run.status == "running" or run.folder in self.runs or run.folder in self.named:
                    self.runs[run.folder] = run
            self._search_at = time.monotonic() + SHARE * (time.monotonic() - began)
        else:
            self.runs = {folder: read_listed(Path(folder)) for folder in self.runs}
        return sorted(self.runs.values(), key=lambda run: (run.status != "running", -(run.began or 0), run.folder))


def draw(runs: Sequence[Listed], folders: Sequence[str], width: int | None = None, height: int | None = None) -> str:
    """The runs, in at most `height` lines of at most `width` letters."""
    if not runs:
        return cut(f"no run is going on in {' and '.join(folders)}", width or 1000)
    most = len(runs) if height is None else max(1, height - 3)  # beside the heading and the last line
    first, hidden = runs[:most], len(runs) - most
    columns = [
        Column("step", [_describe_step(run) for run in first], right=True),
        Column("", [_describe_state(run) for run in first], least=12),
        Column("left", [_duration(run.seconds_left) for run in first], right=True),
        Column("loss", [_number(run.position and run.position.loss) for run in first], right=True),
        Column("val", [_describe_validation(run) for run in first], right=True),
        Column("tasks/s", [_number(run.position and run.position.tasks_per_second) for run in first], right=True),
        Column("memory", [_memory(run.position and run.position.memory_mb) for run in first], right=True),
        Column("algo", [run.algorithm for run in first], least=4),
        Column("data", [run.source for run in first], least=4),
        Column("folder", [run.folder for run in first], least=12, keep_end=True),
    ]
    lines = format_grid([column for column in columns if any(column.cells)], width)
    last = f"{f'{hidden} not shown; ' if hidden > 0 else ''}{count_states(runs)}"
    return "\n".join(cut(line, width or 1000) for line in [*lines, "", last][:height])


def _describe_step(run: Listed) -> str:
    return f"{run.step}/{run.steps}" if run.steps else str(run.step)


def _describe_state(run: Listed) -> str:
    if run.status == "running":
        return run.position.doing if run.position else "running"
    if run.status == "done" and run.test is not None and run.metric:
        return f"done: test {format_metric(run.metric, run.test, run.ci95)}"
    return f"{run.status}: {run.reason}" if run.reason else run.status


def _describe_validation(run: Listed) -> str:
    return "" if run.validation is None or run.metric is None else format_metric(run.metric, run.validation)


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else format_duration(seconds)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _memory(mb: int | None) -> str:
    return "" if mb is None else f"{mb / 1024:.1f} GiB" if mb >= 1024 else f"{mb} MiB"
