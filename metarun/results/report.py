"""metarun report: runs beside each other as one HTML page that needs nothing else, made from report.html.j2."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from metarun.errors import RunDirError
from metarun.files import check_parent, write_atomically
from metarun.results import experiment, table
from metarun.results.compare import Row
from metarun.results.entries import MOST_DRAWN, Entry
from metarun.results.experiment import best_by_validation, name_rows
from metarun.results.figures import PAGE
from metarun.results.page import is_page, render
from metarun.results.runs import LARGEST, LeftOut, Run, leave_out
from metarun.results.sections import SECTIONS
from metarun.run import words
from metarun.storage.metrics import Event, last_timing, read_events
from metarun.text import count_of, reason


def write_report(rows: list[Row], left_out: list[LeftOut], out: Path) -> None:
    """Writes the page, adds runs without a learning curve to `left_out`, and prints in a line what is on the page.

    Raises:
        RunDirError: it cannot be written, or would replace a file that is no report.
    """
    before = len(left_out)
    check_place(out)
    page = render_report(rows, left_out)
    with _naming(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page.encode(errors="replace"))
    missing = f", {before} left out" if before else ""
    missing += f", {len(left_out) - before} without a learning curve" if len(left_out) > before else ""
    print(
        f"{out}: {count_of(len(rows), 'configuration')}, {count_of(sum(len(row.runs) for row in rows), 'run')}{missing}"
    )


def check_place(out: Path) -> None:
    """Raises RunDirError where a report could not be written, or would replace a file that is none."""
    with _naming(out):
        if out.exists() and not out.is_file():
            raise RunDirError(f"{out}: is no regular file, which a report would replace; expected a new name: out=FILE")
        if out.is_file() and not is_page(out):
            raise RunDirError(
                f"{out}: is a file, and no report of metarun's; expected a new name, or a report's: out=FILE"
            )
        check_parent(out)


@contextmanager
def _naming(out: Path) -> Iterator[None]:
    """Whatever the system refuses inside is a RunDirError that names the file."""
    try:
        yield
    except OSError as error:
        raise RunDirError(
            f"{out} ({reason(error)}): expected a place that can be written; choose another out=FILE"
        ) from error


def render_report(rows: list[Row], left_out: list[LeftOut]) -> str:
    """The page; what cannot be shown is added to `left_out`."""
    sections, entries = [], []
    metrics = list(dict.fromkeys(row.metric for row in rows))
    for metric in metrics:
        alike = [row for row in rows if row.metric == metric]
        group = _enter(alike, left_out)
        entries += group
        kind = f": {'classification' if metric == 'accuracy' else 'regression'}" if len(metrics) > 1 else ""
        for section in (show(metric, group) for show in SECTIONS):
            if section.table or section.pictures or section.examples:
                sections.append(replace(section, anchor=f"{section.anchor}-{metric}", heading=section.heading + kind))
    return render(
        "report.html.j2",
        title=experiment.title(rows).encode(errors="replace").decode(),
        settings=experiment.common_settings(rows),
        dates=experiment.describe_dates(rows),
        count=f"{count_of(sum(len(row.runs) for row in rows), 'run')} of {count_of(len(rows), 'configuration')}",
        tested=_describe_tests(rows),
        sections=sections,
        entries=entries,
        environments=_describe_environments(entries),
        left_out=left_out,
        legend=table.legend,
        title_of=words.title,
        settings_of=words.settings,
        last_timing=last_timing,
        describe_devices=_describe_devices,
    )


def _describe_tests(rows: list[Row]) -> str:
    runs = [run for row in rows for run in row.runs]
    if any(run.evaluation or run.summary.earlier for run in runs):
        return "Each result is of the checkpoint that did best in validation."
    return "Test tasks were evaluated once, with the checkpoint that did best in validation."


def _enter(rows: list[Row], left_out: list[LeftOut]) -> list[Entry]:
    """The rows of a metric as entries of the page; of many, those are drawn that are best by validation."""
    colors = {row.number: color for color, row in enumerate(best_by_validation(rows, MOST_DRAWN))}
    found = []
    for row, *names in zip(rows, name_rows(rows), name_rows(rows, PAGE.name - 4), strict=True):
        color = colors.get(row.number)
        events = [] if color is None else _read_events(row, left_out)
        found.append(Entry(row, *(name.encode(errors="replace").decode() for name in names), color, events))
    return found


def _read_events(row: Row, left_out: list[LeftOut]) -> list[list[Event]]:
    """The events of the runs of a row that can be read; evaluations have none."""
    found = []
    for run in (run for run in row.runs if not run.evaluation):
        try:
            events = read_events(run.rundir, row.metric)
            if any(abs(value) > LARGEST for e in events for value in (e.value, e.ci95 or 0, e.loss or 0, *e.by_step)):
                raise RunDirError(f"metrics.jsonl: expected numbers of at most {LARGEST:g}, that can be drawn")
            found.append(events)
        except RunDirError as error:
            left_out.append(leave_out(run.rundir.path, f"no learning curve: {error}"))
    return found


def _describe_devices(run: Run) -> str:
    """The devices that a run was computed on, from its begin to its end."""
    found = []
    for session in run.environment.sessions:
        threads = f", {count_of(session.threads, 'thread')}" if session.threads is not None else ""
        found.append(session.device + (threads if session.device == "cpu" else ""))
    return ", then ".join(dict.fromkeys(filter(None, found)))


def _describe_environments(entries: list[Entry]) -> list[tuple[str, str]]:
    """Versions and platforms, each with the names of the rows that were computed with them; '' for all rows."""
    found: dict[str, dict[str, None]] = {}
    for entry in entries:
        for session in (s for run in entry.row.runs for s in run.environment.sessions):
            git = session.git
            parts = [f"{name} {version}" for name, version in session.versions.items()]
            parts += [f"commit {git.commit[:12]}{' with changes' if git.dirty else ''}"] if git else []
            parts += filter(None, (session.platform, session.cpu_capability))
            found.setdefault(", ".join(parts) or "unknown", {})[entry.label] = None
    return [("" if len(found) == 1 else ", ".join(names), text) for text, names in found.items()]
