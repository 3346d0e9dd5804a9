"""metarun report: runs beside each other as one HTML page that needs nothing else, made from report.html.j2."""

import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from metarun.errors import RunDirError
from metarun.files import write_atomically
from metarun.results import figures, table
from metarun.results.compare import Row
from metarun.results.runs import LeftOut, Run, leave_out
from metarun.results.sections import SECTIONS, Cell, Entry, Section, Table
from metarun.run import words
from metarun.storage.metrics import Event, last_timing, read_events
from metarun.text import count_of, format_duration, reason

GENERATOR = '<meta name="generator" content="metarun">'


def write_report(rows: list[Row], left_out: list[LeftOut], out: Path) -> None:
    """Writes the page, and prints in a line what is on it.

    Raises:
        RunDirError: it cannot be written, or would replace a file that is no report.
    """
    try:
        if out.is_file() and GENERATOR.encode() not in out.read_bytes()[:2000]:
            raise RunDirError(
                f"{out}: is a file, and no report of metarun's; expected a new name, or a report's: out=FILE"
            )
        left_out = list(left_out)
        write_atomically(out, _render(rows, left_out).encode(errors="replace"))
    except OSError as error:
        raise RunDirError(
            f"{out} ({reason(error)}): expected a place that can be written; choose another out=FILE"
        ) from error
    runs = sum(len(row.runs) for row in rows)
    missing = f", {len(left_out)} left out" if left_out else ""
    print(f"{out}: {count_of(len(rows), 'configuration')}, {count_of(runs, 'run')}{missing}")


def _render(rows: list[Row], left_out: list[LeftOut]) -> str:
    """The page; what cannot be shown is added to `left_out`."""
    sections, entries = [], []
    metrics = list(dict.fromkeys(row.metric for row in rows))
    for metric in metrics:
        alike = [row for row in rows if row.metric == metric]
        names = [name_row(row, alike).encode(errors="replace").decode() for row in alike]
        group = [Entry(row, names[n], n, _read_events(row, left_out)) for n, row in enumerate(alike)]
        entries += group
        kind = f": {'classification' if metric == 'accuracy' else 'regression'}" if len(metrics) > 1 else ""
        for section in (show(metric, group) for show in SECTIONS):
            if section.table or section.pictures or section.examples:
                sections.append(replace(section, anchor=f"{section.anchor}-{metric}", heading=section.heading + kind))
    sections.append(Section("cost", "Time and memory", _tabulate_cost(entries)))
    titles = list(dict.fromkeys(words.name_of(row.runs[0].summary) for row in rows))
    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters["breakable"] = _make_breakable
    return jinja.get_template("report.html.j2").render(
        title=titles[0] if len(titles) == 1 else f"{len(rows)} configurations compared",
        count=f"{count_of(sum(len(row.runs) for row in rows), 'run')} of {count_of(len(rows), 'configuration')}",
        generator=Markup(GENERATOR),
        light=figures.LIGHT,
        dark=figures.DARK,
        sections=sections,
        settings=[(entry.name, _describe(entry.row)) for entry in entries],
        environments=_describe_environments(entries),
        left_out=left_out,
    )


def _make_breakable(text: str) -> Markup:
    """A name that may go on in the next line after a slash, an underscore or a comma."""
    found = escape(text)
    for sign in "/_,":
        found = found.replace(sign, Markup(f"{sign}<wbr>"))
    return found


def name_row(row: Row, alike: list[Row]) -> str:
    """The words that tell a row from the others with its metric; where nothing has to, its algorithm."""
    others = [other.keys for other in alike]
    experiment = row.keys.get("experiment")
    if experiment and [other.get("experiment") for other in others].count(experiment) == 1:
        return experiment
    found = []
    for key, value in row.keys.items():
        if key == "experiment" or any(other.get(key, ...) != value for other in others):
            name = "" if key in ("experiment", "algo", "data", "model") else f"{key.rpartition('.')[2]} "
            found.append(name + table.cell(value))
    return ", ".join(found) or row.runs[0].summary.algorithm or words.name_of(row.runs[0].summary)


def _read_events(row: Row, left_out: list[LeftOut]) -> list[list[Event]]:
    """The events of each run of a row; [] of an evaluation, and where they cannot be read."""
    found = []
    for run in row.runs:
        try:
            found.append([] if run.evaluation else read_events(run.rundir, row.metric))
        except RunDirError as error:
            left_out.append(leave_out(run.rundir.path, f"no learning curve: {error}"))
            found.append([])
    return found


def _tabulate_cost(entries: list[Entry]) -> Table:
    """What each run took."""
    head = ["", "outer steps", "wall time", "tasks / s", "memory", "device", "parameters"]
    rows = []
    for entry in entries:
        for run in entry.row.runs:
            timing = last_timing(run.rundir)
            seed = f", seed {run.config.seed}" if len(entry.row.runs) > 1 else ""
            cells = [
                "" if run.summary.steps is None else f"{run.summary.steps}",
                format_duration(run.summary.wall_seconds) if run.summary.wall_seconds else "",
                f"{timing.tasks_per_second:,.0f}" if timing else "",
                f"{timing.memory_mb:,} MiB" if timing else "",
                _describe_devices(run),
                f"{run.summary.parameters:,}",
            ]
            rows.append([Cell(entry.name + seed, dot=entry.number), *map(Cell, cells)])
    return Table([(name, name not in ("", "device")) for name in head], rows)


def _describe_devices(run: Run) -> str:
    """The devices that a run was computed on, from its begin to its end."""
    found = []
    for session in (run.environment, *run.environment.continued):
        threads = count_of(session.threads, "thread") if session.threads is not None else ""
        found.append(f"{session.device}, {threads}" if session.device == "cpu" and threads else session.device)
    return ", then ".join(dict.fromkeys(filter(None, found)))


def _describe(row: Row) -> list[tuple[str, str]]:
    """The effective settings of a row, and for each of its runs the commands and the files: words by name."""
    settings = words.settings(row.runs[0].summary)
    found = [(name, text) for name, text in settings.items() if name != "checkpoint"]
    for run in row.runs:
        found += [("", ""), ("seed", f"{run.trained.seed}")] if len(row.runs) > 1 else []
        found += [("checkpoint", words.settings(run.summary).get("checkpoint", ""))]
        for session in run.environment.continued:
            if session.changed:
                found += [("went on", f"after outer step {session.after_step} with other {', '.join(session.changed)}")]
        found += [("files", str(run.rundir.short))]
        argv = run.environment.argv
        found += [("typed", shlex.join(["python", *argv] if argv[0] == "-m" else argv))] if argv else []
        found += [] if run.evaluation else [("once more", f"metarun -cp {run.rundir.typed}/.hydra")]
    return found


def _describe_environments(entries: Iterable[Entry]) -> list[tuple[str, str]]:
    """Versions and platforms, each with the names of the rows that were computed with them; '' for all rows."""
    found: dict[str, dict[str, None]] = {}
    for entry in entries:
        for environment in (run.environment for run in entry.row.runs):
            git = environment.git
            parts = [f"{name} {version}" for name, version in environment.versions.items()]
            parts += [f"commit {git.commit[:12]}{' with changes' if git.dirty else ''}"] if git else []
            parts += [text for text in (environment.platform, environment.cpu_capability) if text]
            found.setdefault(", ".join(parts) or "unknown", {})[entry.name] = None
    return [("" if len(found) == 1 else ", ".join(names), text) for text, names in found.items()]
