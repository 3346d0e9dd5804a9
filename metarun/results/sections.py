"""The sections of a report: what runs of one metric have to show, as a table and pictures."""

import base64
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from metarun import intervals
from metarun.results import figures, table
from metarun.results.compare import Row
from metarun.results.figures import Picture, Series
from metarun.results.runs import Run, find_runs, read_runs
from metarun.storage.metrics import Event
from metarun.storage.records import Metric
from metarun.text import format_metric

MOST_KEYS = 3  # with a column each; more are a text
SHOTS = {"data.shots", "data.eval_shots"}


@dataclass(frozen=True)
class Entry:
    """A row of the table with its name and number on the page, and the events of its runs."""

    row: Row
    name: str
    number: int
    events: list[list[Event]]

    def name_run(self, run: Run) -> str:
        """The name of a run of this row."""
        return f"{self.name}, seed {run.config.seed}" if len(self.row.runs) > 1 else self.name


@dataclass(frozen=True)
class Table:
    """The results: the cells of each column, for these rows; which columns are numbers."""

    columns: dict[str, list[str]]
    entries: list[Entry]
    numbers: set[str]


@dataclass(frozen=True)
class Section:
    """A part of the page: pictures have the lines of their captions, examples their run, data address and text."""

    anchor: str
    heading: str
    table: Table | None = None
    pictures: list[tuple[Picture, list[str]]] = field(default_factory=list)
    examples: list[tuple[str, str, str]] = field(default_factory=list)


def _show_results(metric: Metric, entries: list[Entry]) -> Section:
    """The table, and the same as a picture."""
    rows = [entry.row for entry in entries]
    columns, keys = table.columns(rows), table.keys_of(rows)
    columns.pop("paper", None)  # stands below what it reports
    if len(keys) > MOST_KEYS:
        others = {name: cells for name, cells in columns.items() if name not in keys}
        columns = {"configuration": [entry.name for entry in entries], **others}
    found = Table(columns, entries, columns.keys() - {*keys, "configuration", "run", "verdict"})
    pictures = []
    if len(rows) > 1 or rows[0].published:
        spoken = "; ".join(f"{e.name} {format_metric(metric, e.row.mean, e.row.ci95_tasks)}" for e in entries)
        caption = "Mean with its interval over test tasks."
        caption += " Diamonds are what the papers report." if any(row.published for row in rows) else ""
        bars = [(entry.name, entry.number, entry.row) for entry in entries]
        pictures.append((figures.draw_bars(f"Test results: {spoken}", metric, bars), [caption]))
    return Section("results", "Results", found, pictures)


def _show_learning(metric: Metric, entries: list[Entry]) -> Section:
    """Validation over outer steps, averaged over seeds where they validated at the same step."""
    series = []
    for entry in entries:
        found = defaultdict(list)
        for event in (event for events in entry.events for event in events if event.split == "val"):
            found[event.step].append((event.value, event.ci95 or 0.0))
        clustered = any(run.summary.test.clusters for run in entry.row.runs)  # then seeds share classes or tables
        points = [(step, *intervals.pooled(seeds, clustered)) for step, seeds in sorted(found.items())]
        series += [Series(entry.name, entry.number, points)] if points else []
    spoken = [f"{line.name} ends at {format_metric(metric, line.points[-1][1])}" for line in series]
    caption = "The same validation tasks every time, after all inner steps; the band is the interval over them."
    pictures = _draw_lines(metric, "Learning curves", spoken, "outer step", series, caption)
    return Section("learning", "Meta-training", pictures=pictures)


def _show_adaptation(metric: Metric, entries: list[Entry]) -> Section:
    """The test metric over inner steps."""
    series = []
    for entry in entries:
        points = [(step, *point) for step, point in enumerate(entry.row.curve)]
        series += [Series(entry.name, entry.number, points)] if len(points) > 1 else []
    ends = [[format_metric(metric, line.points[end][1]) for end in (0, -1)] for line in series]
    spoken = [f"{line.name} goes from {first} to {last}" for line, (first, last) in zip(series, ends, strict=True)]
    caption = "Test tasks after each inner step on the support set."
    pictures = _draw_lines(metric, "Adaptation", spoken, "inner step", series, caption)
    return Section("adaptation", "Adaptation to new tasks", pictures=pictures)


def _show_shots(metric: Metric, entries: list[Entry]) -> Section:
    """The test metric over shots, where a run was evaluated with several."""
    series = []
    for entry in entries:
        found: dict[int, tuple[float, float]] = {}
        first = entry.row.runs[0]
        for run in (first, *read_runs(find_runs(first.rundir.path / "eval"))[0]):
            data = run.config.data
            shots = data.get("shots") if data.get("eval_shots") is None else data["eval_shots"]
            if isinstance(shots, int) and run.summary.metric == metric and run.changes.keys() <= SHOTS:
                found.setdefault(shots, (run.summary.test.mean, run.summary.test.ci95))
        points = [(shots, *point) for shots, point in sorted(found.items())]
        series += [Series(entry.name, entry.number, points)] if len(points) > 1 else []
    spoken = [_speak_points(metric, line, " shots") for line in series]
    caption = "One trained run each, evaluated with other numbers of shots (metarun eval)."
    pictures = _draw_lines(metric, "Results by shots", spoken, "shots in test", series, caption)
    return Section("shots", "More and fewer shots", pictures=pictures)


def _show_spread(metric: Metric, entries: list[Entry]) -> Section:
    """How the metric is distributed over test tasks."""
    section, side = Section("spread", "From task to task"), "more" if metric == "mse" else "less"
    rows, spoken = [], []
    for entry in entries:
        if each := sorted((value for run in entry.row.runs for value in run.each), reverse=metric == "mse"):
            rows.append((entry.name, entry.number, each))
            worst, middle = (format_metric(metric, each[len(each) // part]) for part in (20, 2))
            spoken.append(f"{entry.name}: median {middle}, worst twentieth at {worst} or {side}")
    if rows:
        picture = figures.draw_histograms(f"Distribution over test tasks: {'; '.join(spoken)}", metric, rows)
        section.pictures.append((picture, ["Each test task counts once.", *spoken]))
    return section


def _show_swept(metric: Metric, entries: list[Entry]) -> Section:
    """The metric over every key that takes at least three numbers, all else being equal."""
    section, rows = Section("swept", "What was swept"), [entry.row for entry in entries]
    for key in table.keys_of(rows):
        groups = defaultdict(list)
        for row in rows:
            if type(value := row.keys.get(key)) in (int, float):
                rest = ", ".join(f"{k} {table.cell(v)}" for k, v in row.keys.items() if k != key)
                groups[rest].append((value, row.mean, row.ci95_tasks))
        many = [(name or "all", sorted(points)) for name, points in groups.items() if len(points) > 2]
        series = [Series(name, n, points) for n, (name, points) in enumerate(many)]
        spoken = [_speak_points(metric, line) for line in series]
        section.pictures.extend(_draw_lines(metric, f"Test result by {key}", spoken, key, series, f"By {key}."))
    return section


def _speak_points(metric: Metric, line: Series, unit: str = "") -> str:
    return f"{line.name}: " + ", ".join(f"{x:g}{unit}: {format_metric(metric, mean)}" for x, mean, _ in line.points)


def _draw_lines(
    metric: Metric, subject: str, spoken: list[str], xlabel: str, series: list[Series], caption: str
) -> list[tuple[Picture, list[str]]]:
    """The picture of the curves with its caption; none where no curve has two points."""
    if all(len(line.points) < 2 for line in series):
        return []
    if metric == "mse" and max(mean for line in series for _, mean, _ in line.points) > figures.top_of_frame(series):
        caption += " What leaves the frame is over a thousand times the median."
    return [(figures.draw_lines(f"{subject}: {'; '.join(spoken)}", metric, xlabel, series), [caption])]


def _show_examples(metric: Metric, entries: list[Entry]) -> Section:
    """The pictures of test tasks that the runs drew when they ended."""
    section = Section("tasks", "Test tasks, looked at")
    for entry in entries:
        run = entry.row.runs[0]
        if run.rundir.examples.is_file():
            content = run.rundir.examples.read_bytes()
            address = f"data:image/png;base64,{base64.b64encode(content).decode()}"
            words = read_description(content) or "Test tasks of the run"
            section.examples.append((entry.name_run(run), address, words))
    return section


def read_description(png: bytes) -> str:
    """The `Description` in a PNG file, as run/pictures.py writes it; '' where there is none."""
    place = png.find(b"tEXtDescription\0")  # a chunk: the length of its content, its kind, its content
    length = int.from_bytes(png[max(0, place - 4) : place], "big")
    return png[place + 16 : place + 4 + length].decode("latin-1") if place > 0 else ""


SECTIONS: tuple[Callable[[Metric, list[Entry]], Section], ...] = (
    *(_show_results, _show_learning, _show_adaptation, _show_shots, _show_spread, _show_swept, _show_examples),
)
