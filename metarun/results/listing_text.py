"""Listed runs as a table for a terminal, as CSV, or as JSON."""

import csv
import io
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from metarun.results.grid import Column, format_grid
from metarun.results.listing import Listed
from metarun.storage.records import Count, Record
from metarun.text import count_of, format_duration, format_metric, short_path

LONGEST = 60  # letters of a status with its reason; JSON has all of it
FLAT = [name for name in Listed.model_fields if name != "position"]  # the columns of CSV


class Listing(Record):
    """What `metarun ls format=json` prints."""

    runs: list[Listed] = Field(default=[])
    not_shown: Count = 0  # further runs that are wanted, over limit=N


def as_csv(runs: Sequence[Listed]) -> str:
    """A line for each run: settings as words, several words with blanks between them, what is not known empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FLAT)
    for run in runs:
        plain = run.model_dump(include=set(FLAT))
        plain |= {"differs": " ".join(_words(run.differs)), "tags": " ".join(run.tags)}
        writer.writerow([plain[name] for name in FLAT])
    return out.getvalue().rstrip("\n")


def as_text(runs: Sequence[Listed], width: int | None) -> str:
    """A table with a line for each run; settings that all of them share are said below it."""
    first = _settings(runs[0])
    alike = set.intersection(*(set(_settings(run).items()) for run in runs)) if len(runs) > 1 else set()
    shared = {key: value for key, value in first.items() if (key, value) in alike}
    now = time.time()
    states = [describe_state(run) for run in runs]
    without_reason = [state.partition(": ")[0] for state in states]
    own = [{k: v for k, v in _settings(run).items() if k not in ("algo", "data", *shared)} for run in runs]
    short = _shorten_keys({key for settings in own for key in settings}) if width is not None else {}
    settings = [" ".join(f"{short.get(key, key)}={value}" for key, value in words.items()) for words in own]
    columns = [
        Column("status", states, least=max(len("status"), *map(len, without_reason)), most=LONGEST),
        *([] if "algo" in shared else [Column("algo", [run.algorithm for run in runs], least=6)]),
        *([] if "data" in shared else [Column("data", [run.source for run in runs], least=5)]),
        Column("settings", settings, least=8),
        Column("val", [_number(run, run.validation) for run in runs], right=True),
        Column("test", [_number(run, run.test, run.ci95) for run in runs], right=True),
        Column("age", [describe_age(now - run.began) if run.began else "" for run in runs], right=True),
        Column("tags", [" ".join(run.tags) for run in runs], least=4),
        Column("folder", [run.folder for run in runs], least=20, keep_end=True),
    ]
    lines = format_grid([column for column in columns if any(column.cells)], width)
    return "\n".join([*lines, *(["", f"all: {' '.join(_words(shared))}"] if shared else [])])


def describe_state(run: Listed) -> str:
    """How it is with a run, such as 'running 200/600, 3 min 05 s left' or 'failed 12/600: a loss is not finite'."""
    at = f" {run.step}/{run.steps}" if run.steps else f" {run.step}" if run.step else ""
    if run.status == "running":
        doing = f" {run.position.doing}" if run.position and run.position.doing != "training" else ""
        left = f", {format_duration(run.seconds_left)} left" if run.seconds_left is not None else ""
        return f"running{at}{doing}{left}"
    if run.status in ("failed", "damaged"):
        return f"{run.status}{at if run.status == 'failed' else ''}: {run.reason or 'no reason is known'}"
    return run.status if run.status == "done" else f"{run.status}{at}"


def _settings(run: Listed) -> dict[str, str]:
    """What tells a run from others, by key: its choices and what was typed for it."""
    choices = {"algo": run.algorithm, "data": run.source, "experiment": run.experiment}
    choices["repeats"] = str(short_path(Path(run.reproduces))) if run.reproduces else None
    return {key: value for key, value in choices.items() if value} | run.differs


def _shorten_keys(keys: set[str]) -> dict[str, str]:
    """The last parts of dotted keys, where no two are the same: a terminal has little room."""
    last = {key: key.rpartition(".")[2] for key in keys}
    counts = Counter(last.values())
    return {key: name for key, name in last.items() if counts[name] == 1}


def _words(settings: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def _number(run: Listed, value: float | None, ci95: float | None = None) -> str:
    return "" if value is None or run.metric is None else format_metric(run.metric, value, ci95)


def describe_age(seconds: float) -> str:
    """How long ago, in its largest unit: '5 s', '12 min', '3 h', '8 d'."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def count_states(runs: Sequence[Listed]) -> str:
    """How many there are of each status: '12 runs: 9 done, 3 failed'."""
    counts = sorted(Counter(run.status for run in runs).items(), key=lambda entry: (-entry[1], entry[0]))
    return f"{count_of(len(runs), 'run')}: {', '.join(f'{number} {status}' for status, number in counts)}"
