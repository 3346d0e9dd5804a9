"""The sections of a report: what runs of one metric have to show, as a table and pictures."""

import base64
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from metarun import intervals
from metarun.results import figures, table
from metarun.results.compare import Row, make_row
from metarun.results.experiment import keys_of, spell_setting
from metarun.results.figures import Bar, Picture, Series
from metarun.results.notes import notes
from metarun.results.runs import Run, find_runs, read_runs
from metarun.storage.metrics import Event
from metarun.storage.records import Metric
from metarun.text import format_metric

MOST_KEYS = 3  # with a column each; more are a text
MOST_DRAWN = 20  # rows in a picture
MOST_SPOKEN = 6  # in a caption
SHOTS = {"data.shots", "data.eval_shots"}


@dataclass(frozen=True)
class Entry:
    """A row of the table with its name and a short one, the events of its runs, its colour; None: it is not drawn."""

    row: Row
    name: str
    short: str
    number: int | None
    events: list[list[Event]]

    @property
    def label(self) -> str:
        """Its number and its short name."""
        return f"{self.row.number} {self.short}"

    @property
    def color(self) -> int:
        """The number of its colour, of an entry that is drawn."""
        assert self.number is not None
        return self.number

    def name_run(self, run: Run) -> str:
        """The name of a run of this row."""
        return f"{self.name}, seed {run.config.seed}" if len(self.row.runs) > 1 else self.name


@dataclass(frozen=True)
class Table:
    """The results: the cells of each column, for these rows; which columns are numbers; sentences below."""

    columns: dict[str, list[str]]
    entries: list[Entry]
    numbers: set[str]
    notes: list[str]


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
    columns, keys = table.columns(rows), keys_of(rows)
    columns.pop("paper", None)  # stands below what it reports
    if len(keys) > MOST_KEYS or not keys:
        others = {name: cells for name, cells in columns.items() if name not in ("row", *keys)}
        columns = {"row": columns["row"], "configuration": [entry.name for entry in entries], **others}
    found = Table(columns, entries, columns.keys() - {"row", *keys, "configuration", "verdict"}, notes(rows))
    pictures = []
    if len(rows) > 1 or rows[0].published:
        drawn = _drawn(entries)
        spoken = "; ".join(f"{e.label} {format_metric(metric, e.row.mean, e.row.ci95)}" for e in drawn)
        several = any(row.ci95_seeds is not None for row in rows)
        caption = (
            "Mean with the wider of its intervals, over seeds or over test tasks"
            if several
            else "Mean with its interval over test tasks"
        )
        caption += "; a dot for each seed." if several else "."
        caption += " Hollow diamonds are what the papers report." if any(row.published for row in rows) else ""
        caption += (
            f" Of {len(rows)} rows, those {len(drawn)} that are best by validation." if len(drawn) < len(rows) else ""
        )
        bars = [_as_bar(entry) for entry in drawn]
        pictures.append(
            (figures.draw_bars(f"Test results: {spoken}", metric, bars), [caption, describe_axis(metric, rows)])
        )
    return Section("results", "Results", found, pictures)


def _as_bar(entry: Entry) -> Bar:
    row, seeds = entry.row, [run.summary.test.mean for run in entry.row.runs]
    return Bar(entry.label, entry.color, row.mean, row.ci95, seeds, row.published)


def describe_axis(metric: Metric, rows: Sequence[Row]) -> str:
    """Whether up is good, and where chance lies."""
    if metric == "mse":
        return "Less is better."
    ways = sorted({source.ways for row in rows if (source := row.runs[0].summary.source) and source.ways})
    chance = ", ".join(f"{100 / way:.3g} % of {way} ways" for way in ways)
    return f"More is better; chance is {chance}." if chance else "More is better."


def _drawn(entries: list[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.number is not None]


def _show_learning(metric: Metric, entries: list[Entry]) -> Section:
    """Validation over outer steps, averaged over seeds where they validated at the same step."""
    series = []
    for entry in _drawn(entries):
        found = defaultdict(list)
        for event in (event for events in entry.events for event in events if event.split == "val"):
            found[event.step].append((event.value, event.ci95 or 0.0))
        clustered = any(run.summary.test.clusters for run in entry.row.runs)  # then seeds share classes or tables
        points = [(step, *intervals.pooled(seeds, clustered)) for step, seeds in sorted(found.items())]
        series += [Series(entry.label, entry.color, points)] if points else []
    spoken = [f"{line.name} ends at {format_metric(metric, line.points[-1][1])}" for line in series]
    caption = "Validation: the same tasks every time, after all inner steps."
    pictures = _draw_lines(metric, "Learning curves", spoken, "outer step", {"": series}, [caption], entries)
    return Section("learning", "Meta-training", pictures=pictures)


def _show_adaptation(metric: Metric, entries: list[Entry]) -> Section:
    """The test metric over inner steps."""
    series = []
    for entry in _drawn(entries):
        points = [(step, *point) for step, point in enumerate(entry.row.curve)]
        series += [Series(entry.label, entry.color, points)] if len(points) > 1 else []
    ends = [[format_metric(metric, line.points[end][1]) for end in (0, -1)] for line in series]
    spoken = [f"{line.name} goes from {first} to {last}" for line, (first, last) in zip(series, ends, strict=True)]
    caption = "Test tasks after each inner step on the support set."
    pictures = _draw_lines(metric, "Adaptation", spoken, "inner step", {"": series}, [caption], entries)
    return Section("adaptation", "Adaptation to new tasks", pictures=pictures)


def _show_shots(metric: Metric, entries: list[Entry]) -> Section:
    """The test metric over shots: of rows that differ in nothing else, and of evaluations that a row's runs have."""
    found = [entry for entry in entries if entry.row.runs[0].changes.keys() <= SHOTS]
    keys = [key for key in keys_of([entry.row for entry in found]) if key not in (*SHOTS, "eval")]
    keys = [key for key in keys if len({repr(entry.row.keys.get(key)) for entry in found}) > 1]
    lines: dict[str, dict[int, Row]] = {}
    for entry in found:
        row, own = entry.row, [spell_setting(key, entry.row.keys[key]) for key in keys if key in entry.row.keys]
        points = lines.setdefault(", ".join(own) or row.runs[0].summary.algorithm, {})
        for shots, result in _read_shots(metric, row, search=entry.number is not None).items():
            points.setdefault(shots, result)
    many = [(name, sorted(points.items())) for name, points in lines.items() if len(points) > 1][:MOST_DRAWN]
    series = [
        Series(name, n, [(shots, row.mean, row.ci95_tasks) for shots, row in points])
        for n, (name, points) in enumerate(many)
    ]
    spoken = [_speak_points(metric, line, " shots") for line in series]
    caption = "The same tasks but for the shots, over the seeds that were tested with all of them (metarun eval)."
    pictures = _draw_lines(metric, "Results by shots", spoken, "shots in test", {"": series}, [caption], entries, True)
    return Section("shots", "More and fewer shots", pictures=pictures)


def _read_shots(metric: Metric, row: Row, search: bool) -> dict[int, Row]:
    """A row by shots in the test: its own, or with `search` the evaluations too that its runs have, of those seeds."""
    by_seed = []
    for trained in row.runs:
        tests = [trained]
        if search and not trained.evaluation:
            again, _ = read_runs(find_runs(trained.rundir.path / "eval"))
            tests += [run for run in again if run.summary.metric == metric and run.changes.keys() <= SHOTS]
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


def _show_spread(metric: Metric, entries: list[Entry]) -> Section:
    """How the metric is distributed over test tasks."""
    section, side = Section("spread", "From task to task"), "more" if metric == "mse" else "less"
    rows, spoken = [], []
    for entry in _drawn(entries):
        if each := sorted((value for run in entry.row.runs for value in run.each), reverse=metric == "mse"):
            rows.append((entry.label, entry.color, each))
            worst, middle = (format_metric(metric, each[len(each) // part]) for part in (20, 2))
            spoken.append(f"{entry.label}: median {middle}, worst twentieth at {worst} or {side}")
    if rows:
        picture = figures.draw_histograms(f"Distribution over test tasks: {'; '.join(spoken)}", metric, rows)
        section.pictures.append(
            (
                picture,
                ["Each test task counts once.", describe_axis(metric, [e.row for e in entries]), *spoken[:MOST_SPOKEN]],
            )
        )
    return section


def _show_swept(metric: Metric, entries: list[Entry]) -> Section:
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
        section.pictures.extend(_draw_lines(metric, f"By {key}", spoken, key, panels, caption, entries, True))
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


def _draw_lines(
    metric: Metric,
    subject: str,
    spoken: list[str],
    xlabel: str,
    panels: dict[str, list[Series]],
    caption: list[str],
    entries: list[Entry],
    swept: bool = False,
) -> list[tuple[Picture, list[str]]]:
    """The picture of the curves with its caption; none where no curve has two points."""
    series = [line for found in panels.values() for line in found]
    if all(len(line.points) < 2 for line in series):
        return []
    if any(0 < len(found) <= figures.MOST_BANDS for found in panels.values()):
        caption = [*caption, "Bands are 95% intervals."]
    if metric == "mse" and max(mean for line in series for _, mean, _ in line.points) > figures.top_of_frame(series):
        caption = [*caption, "What leaves the frame is over a thousand times the median."]
    picture = figures.draw_lines(f"{subject}: {'; '.join(spoken)}", metric, xlabel, panels, swept)
    return [(picture, [*caption, describe_axis(metric, [entry.row for entry in entries])])]


def _show_examples(metric: Metric, entries: list[Entry]) -> Section:
    """The pictures of test tasks that the runs drew when they ended."""
    section = Section("tasks", "Test tasks, looked at")
    for entry in _drawn(entries):
        run = entry.row.runs[0]
        if run.rundir.examples.is_file():
            content = run.rundir.examples.read_bytes()
            address = f"data:image/png;base64,{base64.b64encode(content).decode()}"
            words = read_description(content) or "Test tasks of the run"
            section.examples.append((f"{entry.row.number} {entry.name_run(run)}", address, words))
    return section


def read_description(png: bytes) -> str:
    """The `Description` in a PNG file, as run/pictures.py writes it; '' where there is none."""
    place = png.find(b"tEXtDescription\0")  # a chunk: the length of its content, its kind, its content
    length = int.from_bytes(png[max(0, place - 4) : place], "big")
    return png[place + 16 : place + 4 + length].decode("latin-1") if place > 0 else ""


SECTIONS: tuple[Callable[[Metric, list[Entry]], Section], ...] = (
    *(_show_results, _show_learning, _show_adaptation, _show_shots, _show_spread, _show_swept, _show_examples),
)
