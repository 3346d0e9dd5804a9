"""The sections of a report: what runs of one metric have to show, as a table and pictures."""

import base64
from collections import defaultdict
from collections.abc import Callable

from metarun import intervals
from metarun.results import figures, table
from metarun.results.entries import Entry, Section, Table, describe_axis, draw_lines, drawn
from metarun.results.experiment import best_by_validation, keys_of
from metarun.results.figures import Bar, Series
from metarun.results.notes import notes
from metarun.results.swept import show_shots, show_swept
from metarun.storage.records import Metric
from metarun.text import format_metric

MOST_KEYS = 3  # with a column each; more are a text
MOST_PANELS = 9  # with a panel each


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
        bars = [_as_bar(entry) for entry in drawn(entries)]
        spoken = "; ".join(f"{bar.name} {format_metric(metric, bar.mean, bar.ci95)}" for bar in bars)
        picture = figures.draw_bars(f"Test results: {spoken}", metric, bars)
        pictures.append((picture, [*_describe_bars(entries), describe_axis(metric, rows)]))
    return Section("results", "Results", found, pictures)


def _describe_bars(entries: list[Entry]) -> list[str]:
    rows = [entry.row for entry in entries]
    lines = ["Mean with its interval over test tasks."]
    if any(row.ci95_seeds is not None for row in rows):
        lines = ["Mean with the wider of its intervals, over seeds or over test tasks; a dot for each seed."]
    lines += ["Hollow diamonds are what the papers report."] if any(row.published for row in rows) else []
    if (count := len(drawn(entries))) < len(rows):
        lines.append(f"Pictures have the {count} of {len(rows)} rows that are best by validation.")
    return lines


def _as_bar(entry: Entry) -> Bar:
    row, seeds = entry.row, [run.summary.test.mean for run in entry.row.runs]
    return Bar(entry.label, entry.color, row.mean, row.ci95, seeds, row.published)


def _show_learning(metric: Metric, entries: list[Entry]) -> Section:
    """Validation over outer steps, averaged over seeds where they validated at the same step."""
    series = []
    for entry in drawn(entries):
        found = defaultdict(list)
        for event in (event for events in entry.events for event in events if event.split == "val"):
            found[event.step].append((event.value, event.ci95 or 0.0))
        clustered = any(run.summary.test.clusters for run in entry.row.runs)  # then seeds share classes or tables
        points = [(step, *intervals.pooled(seeds, clustered)) for step, seeds in sorted(found.items())]
        series += [Series(entry.label, entry.color, points)] if points else []
    spoken = [f"{line.name} ends at {format_metric(metric, line.points[-1][1])}" for line in series]
    caption = "Validation: the same tasks every time, after all inner steps."
    pictures = draw_lines(metric, "Learning curves", spoken, "outer step", {"": series}, [caption], entries)
    return Section("learning", "Meta-training", pictures=pictures)


def _show_adaptation(metric: Metric, entries: list[Entry]) -> Section:
    """The test metric over inner steps."""
    series = []
    for entry in drawn(entries):
        points = [(step, *point) for step, point in enumerate(entry.row.curve)]
        series += [Series(entry.label, entry.color, points)] if len(points) > 1 else []
    ends = [[format_metric(metric, line.points[end][1]) for end in (0, -1)] for line in series]
    spoken = [f"{line.name} goes from {first} to {last}" for line, (first, last) in zip(series, ends, strict=True)]
    caption = "Test tasks after each inner step on the support set."
    pictures = draw_lines(metric, "Adaptation", spoken, "inner step", {"": series}, [caption], entries)
    return Section("adaptation", "Adaptation to new tasks", pictures=pictures)


def _show_spread(metric: Metric, entries: list[Entry]) -> Section:
    """How the metric is distributed over test tasks."""
    section, side = Section("spread", "From task to task"), "more" if metric == "mse" else "less"
    rows, spoken = [], []
    best = {row.number for row in best_by_validation([entry.row for entry in drawn(entries)], MOST_PANELS)}
    for entry in (entry for entry in entries if entry.row.number in best):
        if each := sorted((value for run in entry.row.runs for value in run.each), reverse=metric == "mse"):
            rows.append((entry.label, entry.color, each))
            worst, middle = (format_metric(metric, each[len(each) // part]) for part in (20, 2))
            spoken.append(f"{entry.label}: median {middle}, worst twentieth at {worst} or {side}")
    if rows:
        picture = figures.draw_histograms(f"Distribution over test tasks: {'; '.join(spoken)}", metric, rows)
        caption = ["Each test task counts once.", describe_axis(metric, [entry.row for entry in entries])]
        caption += [f"The {MOST_PANELS} rows that are best by validation."] if len(entries) > MOST_PANELS else []
        section.pictures.append((picture, [*caption, *spoken]))
    return section


def _show_examples(metric: Metric, entries: list[Entry]) -> Section:
    """The pictures of test tasks that the runs drew when they ended."""
    section = Section("tasks", "Test tasks, looked at")
    for entry in drawn(entries):
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
    *(_show_results, _show_learning, _show_adaptation, show_shots, _show_spread, show_swept, _show_examples),
)
