"""The experiment that rows are parts of, in words: what they have in common, how each is told apart, where it lies."""

import math
import os
import string
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from itertools import takewhile
from pathlib import Path

from metarun.results.compare import Row
from metarun.results.runs import Run
from metarun.run import words
from metarun.storage.records import Source, Summary
from metarun.text import short_path, spell_plain

NAMES = ("experiment", "algo", "data", "model")  # keys whose values need no name
MOST_NAMES = 4  # in a title
DIGITS = 4


def best_by_validation(rows: Sequence[Row], most: int) -> list[Row]:
    """At most so many rows of one metric, those that are best by validation, in order of their numbers."""
    sign = -1 if rows[0].metric == "accuracy" else 1
    order = sorted(rows, key=lambda row: math.inf if row.model_validation is None else sign * row.model_validation)
    return sorted(order[:most], key=lambda row: row.number)


def title(rows: Sequence[Row]) -> str:
    """What the rows have in common: algorithms, task source, and how long they trained."""
    summaries = [row.runs[0].summary for row in rows]
    sources = [summary.source for summary in summaries if summary.source]
    if len(sources) < len(summaries):  # some are of an earlier version, in words of their own
        names = dict.fromkeys(map(words.name_of, summaries))
        return next(iter(names)) if len(names) == 1 else f"{len(rows)} configurations compared"
    algorithms = _enumerate((summary.algorithm for summary in summaries), "algorithms")
    length = _describe_length(summaries)
    return f"{algorithms} on {_describe_sources(sources)}" + (f", {length}" if length else "")


def common_settings(rows: Sequence[Row]) -> dict[str, str]:
    """The effective settings that all rows have, in words by name."""
    settings = [words.settings(row.runs[0].summary) for row in rows]
    leave = ("checkpoint", "tested before")
    return {k: v for k, v in settings[0].items() if k not in leave and all(other.get(k) == v for other in settings)}


def describe_dates(rows: Sequence[Row]) -> str:
    """When the runs ended, such as '2026-03-01 to 2026-03-04'; '' where that is not known."""
    days = sorted({day for row in rows for run in row.runs if (day := _ended(run))})
    return " to ".join(day.isoformat() for day in dict.fromkeys((days[0], days[-1]))) if days else ""


def _ended(run: Run) -> date | None:
    """The day on which a run ended; of an evaluation that in its folder's name. None: it is not known."""
    try:
        if run.evaluation:
            return date.fromisoformat(run.rundir.path.parent.name)
        return datetime.fromtimestamp((run.rundir.path / "status.json").stat().st_mtime).date()
    except (OSError, ValueError):
        return None


def folders(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """The folder that all runs lie in, and within it the folders of each row, as a shell has them: seed={0,1,2}."""
    paths = [[run.rundir.path for run in row.runs] for row in rows]
    every = [path for found in paths for path in found]
    above = Path(os.path.commonpath(every))
    above = above.parent if above in every else above
    return str(short_path(above)), [_spell_folders([str(p.relative_to(above)) for p in found]) for found in paths]


def _spell_folders(names: list[str]) -> str:
    """Names in one, by what they share before and behind; where that is long, the first and how many more."""
    if len(names) == 1:
        return names[0]
    begin = _begin_of(names).rstrip(string.digits)
    end = _begin_of([name[len(begin) :][::-1] for name in names])[::-1].lstrip(string.digits)
    parts = [name[len(begin) : len(name) - len(end)] for name in names]
    found = f"{begin}{{{','.join(parts)}}}{end}"
    return found if len(found) <= len(names[0]) + 40 else f"{names[0]} and {len(names) - 1} more"


def _begin_of(names: Iterable[str]) -> str:
    """The letters with which all names begin."""
    return "".join(
        letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    )


def keys_of(rows: Sequence[Row]) -> list[str]:
    """The keys of a config that tell rows apart, the most telling first: names, then what has the most values."""
    values: dict[str, set[str]] = {}
    for row in rows:
        for key, value in row.keys.items():
            values.setdefault(key, set()).add(repr(value))
    return sorted(values, key=lambda key: (key not in NAMES, -len(values[key])))


def name_rows(rows: Sequence[Row], most: int | None = None) -> list[str]:
    """The words that tell each row from the others, the most telling first; where nothing has to, its algorithm.

    A name of more than `most` letters has the values of its keys alone.
    """
    keys = keys_of(rows)
    telling = [key for key in keys if any(row.keys.get(key, ...) != rows[0].keys.get(key, ...) for row in rows)]
    experiments = [row.keys.get("experiment") for row in rows]
    found = []
    for row in rows:
        experiment = row.keys.get("experiment")
        if experiment and experiments.count(experiment) == 1:
            found.append(str(experiment))
            continue
        own = [key for key in keys if key in row.keys and (key in telling or key == "experiment")]
        name = ", ".join(spell_setting(key, row.keys[key]) for key in own)
        if most is not None and len(name) > most:
            name = ", ".join(spell_value(row.keys[key]) for key in own)
        found.append(name or row.runs[0].summary.algorithm or words.name_of(row.runs[0].summary))
    return found


def spell_setting(key: str, value: object) -> str:
    """A setting in a name: the value, with the last part of the key unless the value says what it is."""
    return spell_value(value) if key in NAMES else f"{key.rpartition('.')[2]} {spell_value(value)}"


def spell_value(value: object) -> str:
    """A value of a config for people: numbers with at most four digits."""
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else spell_plain(value)


def spell_rows(numbers: Iterable[int]) -> str:
    """Numbers of rows in order: '1, 3, 5 to 9'."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    parts = [str(s[0]) if len(s) == 1 else f"{s[0]}{', ' if len(s) == 2 else ' to '}{s[-1]}" for s in spans]
    return ", ".join(parts)


def _enumerate(names: Iterable[str], noun: str) -> str:
    """Different names in words: 'A, B and C'; their number where there are many."""
    found = list(dict.fromkeys(names))
    if len(found) > MOST_NAMES:
        return f"{len(found)} {noun}"
    return " and ".join(filter(None, [", ".join(found[:-1]), found[-1]]))


def _describe_sources(sources: Sequence[Source]) -> str:
    """The task sources, with the ways and shots that all have."""
    described = {words.describe_source(source) for source in sources}
    if len(described) == 1:
        return described.pop()
    names = _enumerate((source.name for source in sources), "task sources")
    ways, shots = ({getattr(source, name) for source in sources} for name in ("ways", "shots"))
    kind = "" if len(ways) > 1 else " regression" if ways == {None} else f" {min(w for w in ways if w)}-way"
    few = f" {shots.pop()}-shot" if len(shots) == 1 else ""
    return names + (few + kind if "regression" in kind else kind + few)


def _describe_length(summaries: Sequence[Summary]) -> str:
    """How long the runs trained; where that differs, from how many outer steps to how many."""
    trainings = [summary.training for summary in summaries if summary.training]
    described = {words.describe_training(training) for training in trainings}
    if len(described) == 1:
        return described.pop()
    steps = sorted({training.outer_steps for training in trainings})
    return f"{' to '.join(map(str, dict.fromkeys((steps[0], steps[-1]))))} outer steps" if steps else ""
