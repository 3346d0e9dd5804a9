"""The parts of a report that are curves and bars, each as HTML; '' where there is nothing to draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from metarun.errors import MetarunError
from metarun.results import figures, table
from metarun.results.compare import Row, pooled
from metarun.results.page import figure
from metarun.results.runs import Run, collect
from metarun.text import format_metric as shown

SHOTS = ("data.shots", "data.eval_shots")


@dataclass
class Entry:
    """A row of the table with what is drawn of it: its name, its number for colours, its metrics.jsonl by seed."""

    row: Row
    name: str
    number: int
    events: list[list[dict[str, Any]]]


Series = list[tuple[str, int, Sequence[tuple[float, float, float]]]]  # name, colour, and (x, mean, ci95)


def learning(metric: str, entries: list[Entry]) -> str:
    """Validation over outer steps, averaged over seeds where they validated at the same step."""
    series: Series = []
    for entry in entries:
        validations: dict[int, list[dict[str, Any]]] = {}
        for event in (event for events in entry.events for event in events if event["split"] == "val"):
            validations.setdefault(event["step"], []).append({"mean": event[metric], "ci95": event["ci95"]})
        points = [(step, *pooled(some)) for step, some in sorted(validations.items())]
        series += [(entry.name, entry.number, points)] if points else []
    spoken = [f"{name} ends at {shown(metric, points[-1][1])}" for name, _, points in series]
    caption = "The same validation tasks every time, after all inner steps; the band is the interval over them."
    if metric == "mse" and series and max(p[1] for *_, points in series for p in points) > figures.frame(series):
        caption += " What leaves the frame is over a thousand times the median."
    return _figure("learning", metric, "Learning curves", spoken, "outer step", series, caption)


def adaptation(metric: str, entries: list[Entry]) -> str:
    """The test metric over inner steps."""
    series: Series = []
    for entry in entries:
        tests = [run.test["by_step"] for run in entry.row.runs]
        points = [(k, *pooled(list(some))) for k, some in enumerate(zip(*tests, strict=False))]
        series += [(entry.name, entry.number, points)] if len(points) > 1 else []
    spoken = [
        f"{name} goes from {shown(metric, points[0][1])} to {shown(metric, points[-1][1])}"
        for name, _, points in series
    ]
    caption = "Test tasks after each inner step on the support set."
    return _figure("adaptation", metric, "Adaptation", spoken, "inner step", series, caption)


def shots(metric: str, entries: list[Entry]) -> str:
    """The test metric over shots, where a run was evaluated with several."""
    series: Series = []
    for entry in entries:
        tests: dict[int, dict[str, Any]] = {}
        for trained in entry.row.runs[:1]:
            for run in [trained, *_evaluations(trained)]:
                data = run.config.data
                found = data.get("shots") if data.get("eval_shots") is None else data["eval_shots"]
                if isinstance(found, int) and run.metric == metric and run.changes.keys() <= set(SHOTS):
                    tests.setdefault(found, run.test)
        points = [(found, test["mean"], test["ci95"]) for found, test in sorted(tests.items())]
        series += [(entry.name, entry.number, points)] if len(points) > 1 else []
    spoken = [
        f"{name}: " + ", ".join(f"{x:g} shots {shown(metric, mean)}" for x, mean, _ in points)
        for name, _, points in series
    ]
    caption = "One trained run each, evaluated with other numbers of shots (metarun eval)."
    return _figure("shots", metric, "Results by shots", spoken, "shots in test", series, caption)


def _evaluations(run: Run) -> list[Run]:
    folder = run.rundir.path / "eval"
    try:
        return [] if run.evaluation or not folder.is_dir() else collect([str(folder)])[0]
    except MetarunError:
        return []  # none is in it


def spread(metric: str, entries: list[Entry]) -> str:
    """How the metric is distributed over test tasks."""
    rows = [(entry.name, entry.number, [v for run in entry.row.runs for v in run.each]) for entry in entries]
    rows = [row for row in rows if row[2]]
    if not rows:
        return ""
    spoken = [f"{name}: {_tail(metric, each)}" for name, _, each in rows]
    picture = figures.histograms(f"spread{metric}", f"Distribution over test tasks: {'; '.join(spoken)}", metric, rows)
    return figure(picture, "<br>".join(["Each test task counts once.", *map(escape, spoken)]))


def _tail(metric: str, each: list[float]) -> str:
    ordered = sorted(each, reverse=metric == "mse")
    worst, middle = ordered[len(ordered) // 20], ordered[len(ordered) // 2]
    side = "more" if metric == "mse" else "less"
    return f"median {shown(metric, middle)}, worst twentieth at {shown(metric, worst)} or {side}"


def swept(metric: str, entries: list[Entry]) -> str:
    """The metric over every key that takes at least three numbers, all else being equal."""
    pictures = []
    for place, key in enumerate(dict.fromkeys(key for entry in entries for key in entry.row.keys)):
        groups: dict[str, list[tuple[float, float, float]]] = {}
        for entry in entries:
            value = entry.row.keys.get(key)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                rest = ", ".join(f"{k} {table.cell(v)}" for k, v in entry.row.keys.items() if k != key)
                groups.setdefault(rest, []).append((value, entry.row.mean, entry.row.ci95_tasks))
        many = [(name or "all", sorted(points)) for name, points in groups.items() if len(points) > 2]
        series: Series = [(name, n, points) for n, (name, points) in enumerate(many)]
        spoken = [
            f"{name}: " + ", ".join(f"{x:g}: {shown(metric, mean)}" for x, mean, _ in points)
            for name, _, points in series
        ]
        pictures.append(_figure(f"swept{place}", metric, f"Test result by {key}", spoken, key, series, f"By {key}."))
    return "".join(pictures)


def _figure(name: str, metric: str, what: str, spoken: list[str], xlabel: str, series: Series, caption: str) -> str:
    if all(len(points) < 2 for *_, points in series):
        return ""
    alt = f"{what}: {'; '.join(spoken)}"
    return figure(figures.lines(f"{name}{metric}", alt, metric, xlabel, series), escape(caption))
