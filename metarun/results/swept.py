"""The sections of a report on what was varied: shots in the test, and settings that were swept."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from metarun.results.compare import Row, make_row
from metarun.results.entries import MOST_DRAWN, Entry, Section, draw_lines
from metarun.results.experiment import keys_of, spell_setting, spell_value
from metarun.results.figures import PAGE, Series
from metarun.results.runs import Run, find_runs, read_runs
from metarun.storage.records import Metric
from metarun.text import format_metric

SHOTS = {"data.shots", "data.eval_shots"}
Tested = tuple[Entry, dict[int, Row]]  # a row, and its results by shots in the test


def show_shots(metric: Metric, entries: list[Entry]) -> Section:
    """The test metric over shots: of rows that differ in nothing else, and of evaluations that a row's runs have."""
    found = [entry for entry in entries if entry.row.runs[0].changes.keys() <= SHOTS]
    keys = [key for key in keys_of([entry.row for entry in found]) if key not in (*SHOTS, "eval")]
    keys = [key for key in keys if len({repr(entry.row.keys.get(key)) for entry in found}) > 1]
    lines: dict[str, list[Tested]] = {}
    for entry in found:
        by_shots = _read_shots(metric, entry.row, search=entry.number is not None)
        lines.setdefault(repr([(key, entry.row.keys.get(key)) for key in keys]), []).append((entry, by_shots))
    parts = [part for group in lines.values() for part in _part_by_training(group)]
    series = [line for part in parts if len((line := _draw_shots(part, keys)).points) > 1][:MOST_DRAWN]
    spoken = [_speak_points(metric, line, " shots") for line in series]
    caption = "The same tasks but for the shots, over the seeds that were tested with all of them (metarun eval)."
    pictures = draw_lines(metric, "Results by shots", spoken, "shots in test", {"": series}, [caption], entries, True)
    return Section("shots", "More and fewer shots", pictures=pictures)


def _part_by_training(group: list[Tested]) -> list[list[Tested]]:
    """The rows of a line by the shots that they were trained with, where one was tested with others than its own.

    Else each is trained and tested with its own, and they are one line.
    """
    own = not any(entry.row.runs[0].evaluation or len(by_shots) > 1 for entry, by_shots in group)
    parts: dict[Any, list[Tested]] = defaultdict(list)
    for entry, by_shots in group:
        parts[None if own else entry.row.runs[0].trained.data.get("shots")].append((entry, by_shots))
    return list(parts.values())


def _draw_shots(tested: list[Tested], keys: Sequence[str]) -> Series:
    """The curve of rows that differ in shots alone, named by these keys; of one that was trained as that row is.

    A name that does not fit has the values of its keys alone, as those of rows have.
    """
    points: dict[int, Row] = {}
    for _, by_shots in tested:
        points = by_shots | points
    group = [entry for entry, _ in tested]
    trained = [entry for entry in group if not entry.row.runs[0].evaluation] or group
    own = {key: value for key, value in group[0].row.keys.items() if key in keys}
    name = ", ".join(spell_setting(key, own[key]) for key in keys if key in own)
    if len(name) > PAGE.name - 4:
        name = ", ".join(spell_value(own[key]) for key in keys if key in own)
    name = name or group[0].row.runs[0].summary.algorithm
    name = f"{trained[0].row.number} {name}" if len(trained) == 1 else name
    color = next((entry.color for entry in trained if entry.number is not None), MOST_DRAWN)
    return Series(name, color, [(shots, row.mean, row.ci95_tasks) for shots, row in sorted(points.items())])


def _read_shots(metric: Metric, row: Row, search: bool) -> dict[int, Row]:
    """A row by shots in the test: its own, or with `search` the evaluations too that its runs have, of those seeds."""
    by_seed = []
    for trained in row.runs:
        tests = [trained]
        if search and not trained.evaluation:
            again, _ = read_runs(find_runs(trained.rundir.path / "eval"))
            again = [run for run in again if run.summary.metric == metric and not run.outdated]
            tests += [run for run in again if run.changes.keys() <= SHOTS]
        found: dict[int, Run] = {}
        for run in tests:
            if (shots := shots_of(run)) is not None:
                found.setdefault(shots, run)
        by_seed.append(found)
    several = [found for found in by_seed if len(found) > 1] or by_seed
    common = [shots for shots in several[0] if all(shots in found for found in several)]
    return {shots: make_row([found[shots] for found in several], {}) for shots in common}


def shots_of(run: Run) -> int | None:
    """The shots of a class in the test, in regression of a task; None where the config does not say."""
    data = run.config.data
    shots = data.get("shots") if data.get("eval_shots") is None else data["eval_shots"]
    return shots if isinstance(shots, int) else None


def show_swept(metric: Metric, entries: list[Entry]) -> Section:
    """Validation, and the test beside it, over every key that takes at least three numbers, all else being equal."""
    section, rows = Section("swept", "What was swept"), [entry.row for entry in entries]
    for key in keys_of(rows):
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if type(row.keys.get(key)) in (int, float):
                rest = [spell_setting(k, v) for k, v in row.keys.items() if k != key]
                groups[", ".join(rest)].append(row)
        many = [
            (name, sorted(found, key=lambda row: row.keys[key])) for name, found in groups.items() if len(found) > 2
        ]
        many = many[:MOST_DRAWN]
        panels = {"validation": _sweep(key, many, "validation"), "test": _sweep(key, many, "mean")}
        panels = {title: series for title, series in panels.items() if series}
        spoken = [f"{title}, {_speak_points(metric, line)}" for title, series in panels.items() for line in series]
        caption = [f"By {key}. Choose by validation: the best of several tests is no test."]
        section.pictures.extend(draw_lines(metric, f"By {key}", spoken, key, panels, caption, entries, True))
    return section


def _sweep(key: str, groups: Sequence[tuple[str, Sequence[Row]]], value: str) -> list[Series]:
    """A curve for each group whose rows all have the value, `validation` or `mean` of the test."""
    found = []
    for number, (name, rows) in enumerate(groups):
        values = [getattr(row, value) for row in rows]
        widths = [row.ci95 if value == "mean" else 0.0 for row in rows]
        if None not in values:
            points = [
                (row.keys[key], *point) for row, point in zip(rows, zip(values, widths, strict=True), strict=True)
            ]
            found.append(Series(name or "all", number, points))
    return found


def _speak_points(metric: Metric, line: Series, unit: str = "") -> str:
    return f"{line.name}: " + ", ".join(f"{x:g}{unit}: {format_metric(metric, mean)}" for x, mean, _ in line.points)
