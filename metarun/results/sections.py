"""The sections of a report: what runs of one metric have to show, as tables and pictures."""

import base64
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from metarun import intervals
from metarun.errors import MetarunError
from metarun.results import figures, table
from metarun.results.compare import Row
from metarun.results.figures import Bar, Picture, Series
from metarun.results.runs import Run, collect
from metarun.storage.metrics import Event
from metarun.storage.records import Metric
from metarun.text import format_metric

MOST_KEYS = 3  # with a column each; more are a text
SHOTS = {"data.shots", "data.eval_shots"}
NUMBERS = ("±", "accuracy", "mse", "tasks", "seeds", "after", "published", "to the best")  # how their headings begin


@dataclass(frozen=True)
class Entry:
    """A row of the table with its name and number on the page, and the events of its runs."""

    row: Row
    name: str
    number: int
    events: list[list[Event]]


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, a CSS class, smaller text below, and the number of a row for its coloured dot."""

    text: str
    kind: str = ""
    below: str = ""
    dot: int | None = None


@dataclass(frozen=True)
class Table:
    """A table: for each column its heading and whether it holds numbers; the cells by row; what the headings mean."""

    columns: list[tuple[str, bool]]
    rows: list[list[Cell]]
    legend: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page; empty ones are left out.

    Attributes:
        anchor: for links to it.
        heading: its title.
        table: above its pictures.
        pictures: each with the lines of its caption.
        examples: pictures of test tasks: for each the name of the run, the data address, and its text.
    """

    anchor: str
    heading: str
    table: Table | None = None
    pictures: list[tuple[Picture, list[str]]] = field(default_factory=list)
    examples: list[tuple[str, str, str]] = field(default_factory=list)


def _show_results(metric: Metric, entries: list[Entry]) -> Section:
    """The table, and the same as a picture."""
    rows = [entry.row for entry in entries]
    found, keys = table.columns(rows), table.keys_of(rows)
    found.pop("paper", None)  # stands below what it reports
    if len(keys) > MOST_KEYS:
        names = {"configuration": [entry.name for entry in entries]}
        found = names | {name: cells for name, cells in found.items() if name not in keys}
    lines = []
    for n, entry in enumerate(entries):
        first, *others = found
        lines.append([Cell(found[first][n], dot=n), *(_make_cell(name, found[name][n], entry.row) for name in others)])
    columns = [(name, name not in keys and name.startswith(NUMBERS)) for name in found]
    drawn = [Bar(e.name, e.number, e.row.mean, e.row.ci95_tasks, *_published_of(e.row)) for e in entries]
    picture = []
    if len(entries) > 1 or entries[0].row.published:
        spoken = "; ".join(f"{bar.name} {format_metric(metric, bar.mean, bar.ci95)}" for bar in drawn)
        caption = "Mean with its interval over test tasks."
        caption += " Diamonds are what the papers report." if any(bar.published is not None for bar in drawn) else ""
        picture = [(figures.draw_bars(f"Test results: {spoken}", metric, drawn), [caption])]
    return Section("results", "Results", Table(columns, lines, table.legend(found)), picture)


def _published_of(row: Row) -> tuple[float | None, float | None]:
    return (row.published.mean, row.published.ci95) if row.published else (None, None)


def _make_cell(name: str, text: str, row: Row) -> Cell:
    """A cell of the results, with its colour, and below it the paper or the published number."""
    if name == "published":
        return Cell(text, below=row.published.paper if row.published else "")
    if name.startswith("after "):
        ours, bracket, theirs = text.partition(" (")
        return Cell(ours, below=bracket.strip() + theirs)
    if name == "verdict" and text:
        return Cell(text, "inside" if text == "inside" else "outside")
    return Cell(text, "best" if name == "to the best" and row.to_best and row.to_best.best else "")


def _show_learning(metric: Metric, entries: list[Entry]) -> Section:
    """Validation over outer steps, averaged over seeds where they validated at the same step."""
    series = []
    for entry in entries:
        found: dict[int, list[tuple[float, float]]] = {}
        for event in (event for events in entry.events for event in events if event.split == "val"):
            found.setdefault(event.step, []).append((event.value, event.ci95 or 0.0))
        series.append(Series(entry.name, entry.number, [(s, *intervals.pooled(p)) for s, p in sorted(found.items())]))
    series = [line for line in series if line.points]
    spoken = [f"{line.name} ends at {format_metric(metric, line.points[-1][1])}" for line in series]
    caption = "The same validation tasks every time, after all inner steps; the band is the interval over them."
    if metric == "mse" and series and max(p[1] for line in series for p in line.points) > figures.top_of_frame(series):
        caption += " What leaves the frame is over a thousand times the median."
    pictures = _draw_lines(metric, "Learning curves", spoken, "outer step", series, caption)
    return Section("learning", "Meta-training", pictures=pictures)


def _show_adaptation(metric: Metric, entries: list[Entry]) -> Section:
    """The test metric over inner steps."""
    series = []
    for entry in entries:
        curves = [[(point.mean, point.ci95) for point in run.test.by_step] for run in entry.row.runs]
        points = [(k, *intervals.pooled(seeds)) for k, seeds in enumerate(zip(*curves, strict=False))]
        series += [Series(entry.name, entry.number, points)] if len(points) > 1 else []
    spoken = [
        f"{line.name} goes from {format_metric(metric, line.points[0][1])} to "
        f"{format_metric(metric, line.points[-1][1])}"
        for line in series
    ]
    caption = "Test tasks after each inner step on the support set."
    pictures = _draw_lines(metric, "Adaptation", spoken, "inner step", series, caption)
    return Section("adaptation", "Adaptation to new tasks", pictures=pictures)


def _show_shots(metric: Metric, entries: list[Entry]) -> Section:
    """The test metric over shots, where a run was evaluated with several."""
    series = []
    for entry in entries:
        found: dict[int, tuple[float, float]] = {}
        for run in _with_evaluations(entry.row.runs[0]):
            data = run.config.data
            shots = data.get("shots") if data.get("eval_shots") is None else data["eval_shots"]
            if isinstance(shots, int) and run.metric == metric and run.changes.keys() <= SHOTS:
                found.setdefault(shots, (run.test.mean, run.test.ci95))
        points = [(shots, *point) for shots, point in sorted(found.items())]
        series += [Series(entry.name, entry.number, points)] if len(points) > 1 else []
    spoken = [_speak_points(metric, line, " shots") for line in series]
    caption = "One trained run each, evaluated with other numbers of shots (metarun eval)."
    pictures = _draw_lines(metric, "Results by shots", spoken, "shots in test", series, caption)
    return Section("shots", "More and fewer shots", pictures=pictures)


def _with_evaluations(run: Run) -> list[Run]:
    """A run and its evaluations."""
    folder = run.rundir.path / "eval"
    try:
        return [run, *(collect([str(folder)])[0] if folder.is_dir() and not run.evaluation else [])]
    except MetarunError:
        return [run]  # there are none in the folder


def _show_spread(metric: Metric, entries: list[Entry]) -> Section:
    """How the metric is distributed over test tasks."""
    rows = [(entry.name, entry.number, [v for run in entry.row.runs for v in run.each]) for entry in entries]
    rows = [row for row in rows if row[2]]
    section = Section("spread", "From task to task")
    if rows:
        spoken = [f"{name}: {_speak_spread(metric, each)}" for name, _, each in rows]
        picture = figures.draw_histograms(f"Distribution over test tasks: {'; '.join(spoken)}", metric, rows)
        section.pictures.append((picture, ["Each test task counts once.", *spoken]))
    return section


def _speak_spread(metric: Metric, each: list[float]) -> str:
    ordered = sorted(each, reverse=metric == "mse")
    worst, middle = ordered[len(ordered) // 20], ordered[len(ordered) // 2]
    side = "more" if metric == "mse" else "less"
    return f"median {format_metric(metric, middle)}, worst twentieth at {format_metric(metric, worst)} or {side}"


def _show_swept(metric: Metric, entries: list[Entry]) -> Section:
    """The metric over every key that takes at least three numbers, all else being equal."""
    pictures = []
    for key in table.keys_of([entry.row for entry in entries]):
        groups: dict[str, list[tuple[float, float, float]]] = {}
        for row in (entry.row for entry in entries):
            value = row.keys.get(key)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                rest = ", ".join(f"{k} {table.cell(v)}" for k, v in row.keys.items() if k != key)
                groups.setdefault(rest, []).append((value, row.mean, row.ci95_tasks))
        many = [(name or "all", sorted(points)) for name, points in groups.items() if len(points) > 2]
        series = [Series(name, n, points) for n, (name, points) in enumerate(many)]
        spoken = [_speak_points(metric, line) for line in series]
        pictures += _draw_lines(metric, f"Test result by {key}", spoken, key, series, f"By {key}.")
    return Section("swept", "What was swept", pictures=pictures)


def _speak_points(metric: Metric, line: Series, unit: str = "") -> str:
    return f"{line.name}: " + ", ".join(f"{x:g}{unit}: {format_metric(metric, mean)}" for x, mean, _ in line.points)


def _draw_lines(
    metric: Metric, subject: str, spoken: list[str], xlabel: str, series: list[Series], caption: str
) -> list[tuple[Picture, list[str]]]:
    """The picture of the curves with its caption; none where no curve has two points."""
    if all(len(line.points) < 2 for line in series):
        return []
    return [(figures.draw_lines(f"{subject}: {'; '.join(spoken)}", metric, xlabel, series), [caption])]


def _show_examples(metric: Metric, entries: list[Entry]) -> Section:
    """The pictures of test tasks that the runs drew when they ended."""
    section = Section("tasks", "Test tasks, looked at")
    for entry in entries:
        run = entry.row.runs[0]
        seed = f", seed {run.config.seed}" if len(entry.row.runs) > 1 else ""
        try:
            content = run.rundir.examples.read_bytes()
        except OSError:
            continue
        address = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        section.examples.append((entry.name + seed, address, read_description(content) or "Test tasks of the run"))
    return section


def read_description(png: bytes) -> str:
    """The `Description` in a PNG file, as run/pictures.py writes it; '' where there is none."""
    place = 8  # behind the signature come chunks: length, kind, content, checksum
    while place + 8 <= len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        key, _, text = png[place + 8 : place + 8 + length].partition(b"\0")
        if kind == b"tEXt" and key == b"Description":
            return text.decode("latin-1")
        place += 12 + length
    return ""


SECTIONS: tuple[Callable[[Metric, list[Entry]], Section], ...] = (
    *(_show_results, _show_learning, _show_adaptation, _show_shots, _show_spread, _show_swept, _show_examples),
)
