"""metarun report: runs beside each other as one HTML page, with pictures of what they do."""

import itertools
import re
import shlex
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from metarun.errors import MetarunError, RunDirError
from metarun.files import write_atomically
from metarun.results import curves, figures, pictures, table
from metarun.results.compare import Row
from metarun.results.curves import Entry
from metarun.results.page import GENERATOR, figure, page
from metarun.results.page import table as html_table
from metarun.results.runs import LeftOut, Run, key_of, left
from metarun.storage.metrics import last_timing, read_events
from metarun.text import format_duration as duration
from metarun.text import format_metric as shown
from metarun.text import reason

MOST_KEYS = 3  # that have a column each; more are one text
FLAGS = ("-cp", "--config-path", "-cd", "--config-dir")


def write(rows: list[Row], left_out: list[LeftOut], out: Path) -> None:
    """Writes the page.

    Raises:
        RunDirError: it cannot be written.
    """
    if out.is_file() and GENERATOR.encode() not in out.read_bytes()[:2000]:
        raise RunDirError(f"{out}: is a file, and no report of metarun's; expected a new name, or a report's: out=FILE")
    left_out = list(left_out)
    sections: list[tuple[str, str, str]] = []
    entries: list[Entry] = []
    metrics = list(dict.fromkeys(row.metric for row in rows))
    for metric in metrics:
        alike = [row for row in rows if row.metric == metric]
        names = [_name(row, alike).encode(errors="replace").decode() for row in alike]
        some = [Entry(row, names[n], n, _events(row, left_out)) for n, row in enumerate(alike)]
        entries += some
        of = f": {'classification' if metric == 'accuracy' else 'regression'}" if len(metrics) > 1 else ""
        for anchor, heading, make in SECTIONS:
            if content := make(metric, some):
                sections.append((f"{anchor}-{metric}", heading + of, content))
    sections.append(("cost", "Time and memory", _cost(entries)))
    sections.append(("how", "Environment and commands", _how(entries, left_out)))
    names = list(dict.fromkeys(row.runs[0].summary["title"].rpartition(", ")[0] for row in rows))
    title = names[0] if len(names) == 1 else f"{len(rows)} configurations compared"
    runs = sum(len(row.runs) for row in rows)
    lead = f"<p class=dim>{_count(runs, 'run')} of {_count(len(rows), 'configuration')}, by metarun."
    lead += " Intervals hold 95 %. Test tasks were evaluated once, with the checkpoint that did best in validation.</p>"
    try:
        write_atomically(out, page(title, lead, sections).encode(errors="replace"))
    except OSError as error:
        raise RunDirError(
            f"{out} ({reason(error)}): expected a place that can be written; choose another out=FILE"
        ) from error
    missing = f", {len(left_out)} left out" if left_out else ""
    print(f"{out}: {_count(len(rows), 'configuration')}, {_count(runs, 'run')}{missing}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _name(row: Row, alike: list[Row]) -> str:
    """What tells a row from the others with its metric; where nothing has to, what it is."""
    named = ("experiment", "algo", "data", "model")
    others = [other.keys for other in alike]
    experiment = row.keys.get("experiment")
    if experiment and [other.get("experiment") for other in others].count(experiment) == 1:
        return experiment
    words = [
        table.cell(value) if key in named else f"{key.rpartition('.')[2]} {table.cell(value)}"
        for key, value in row.keys.items()
        if key == "experiment" or any(other.get(key, ...) != value for other in others)
    ]
    return ", ".join(words) or row.runs[0].summary["title"].partition(" on ")[0]


def _events(row: Row, left_out: list[LeftOut]) -> list[list[dict[str, Any]]]:
    found = []
    for run in row.runs:
        if not run.rundir.metrics.exists():  # evaluations have none
            found.append([])
            continue
        try:
            found.append([{**vars(e), row.metric: e.value} for e in read_events(run.rundir, row.metric)])
        except RunDirError as error:
            left_out.append(left(run.rundir.path, f"no learning curve: {error}"))
            found.append([])
    return found


def _results(metric: str, entries: list[Entry]) -> str:
    """The table, and the same as a picture."""
    rows = [entry.row for entry in entries]
    found, keys = table.columns(rows), table.keys_of(rows)
    found.pop("paper", None)  # stands with what it reports
    if len(keys) > MOST_KEYS:
        names = {"configuration": [entry.name for entry in entries]}
        found = names | {name: cells for name, cells in found.items() if name not in keys}
    first, *others = found
    lines = [
        [_dot(entry) + _breakable(found[first][n]), *(_cell(name, found[name][n], entry) for name in others)]
        for n, entry in enumerate(entries)
    ]
    right = ("±", metric, "tasks", "seeds", "after", "published", "to the best")
    numbers = frozenset(n for n, name in enumerate(found) if name.startswith(right))
    html = html_table(list(found), lines, numbers)
    html += f"<p class=legend>{escape(' '.join(table.legend(found)))}</p>"
    if len(entries) < 2 and not entries[0].row.published:
        return html
    drawn = [(e.name, e.number, e.row.mean, e.row.ci95_tasks, _published(e.row)) for e in entries]
    spoken = "; ".join(f"{name} {shown(metric, mean, ci95)}" for name, _, mean, ci95, _ in drawn)
    caption = "Mean with its interval over test tasks."
    caption += " Diamonds are what the papers report." if any(row[-1] for row in drawn) else ""
    return html + figure(figures.forest(f"forest{metric}", f"Test results: {spoken}", metric, drawn), caption)


def _dot(entry: Entry) -> str:
    return f'<span class=dot style="background:var(--s{entry.number % 8 + 1})"></span>'


def _breakable(text: str) -> str:
    """A name that may go on in the next line after a slash, an underscore or a comma."""
    return re.sub("[/_,]", r"\g<0><wbr>", escape(text))


def _cell(name: str, text: str, entry: Entry) -> str:
    """A cell of the results table, with what distinguishes it, and beneath it whose result the published one is."""
    row, kind = entry.row, ""
    if name == "verdict" and text:
        kind = "inside" if text == "inside" else "outside"
    elif row.best and name == "to the best":
        kind = "best"
    ours, theirs = text, ""
    if name == "published" and row.published:
        theirs = row.published.get("paper", "")
    elif name.startswith("after "):
        ours, bracket, rest = text.partition(" (")
        theirs = bracket.strip() + rest
    below = f"<div class=below>{escape(theirs)}</div>" if theirs else ""
    return (f"<span class={kind}>{escape(ours)}</span>" if kind else escape(ours)) + below


def _published(row: Row) -> tuple[float, float | None] | None:
    return (row.published["mean"], row.published.get("ci95")) if row.published else None


def _cost(entries: list[Entry]) -> str:
    """What each configuration took."""
    head = ["", "outer steps", "wall time", "tasks / s", "memory", "device", "parameters"]
    rows = []
    for entry in entries:
        for run in entry.row.runs:
            environment, timing = _environment(run), last_timing(run.rundir)
            seed = f", seed {run.config.seed}" if len(entry.row.runs) > 1 else ""
            wall = run.summary.get("wall_seconds")
            rows.append([
                _dot(entry) + _breakable(entry.name + seed),
                f"{run.summary.get('meta_steps', '')}",
                duration(wall) if isinstance(wall, (int, float)) else "",
                f"{timing.tasks_per_second:,.0f}" if timing else "",
                f"{timing.memory_mb:,} MiB" if timing else "",
                escape(_where(environment)),
                f"{run.summary.get('parameters', 0):,}",
            ])  # fmt: skip
    return html_table(head, rows, frozenset({1, 2, 3, 4, 6}))


def _where(environment: dict[str, Any]) -> str:
    """On what a run was computed, from its begin to its end."""
    places = []
    for session in [environment, *_continued(environment)]:
        device, threads = (session.get(name, "") for name in ("device", "threads"))
        places.append(f"{device}, {threads} thread{'s' * (threads != 1)}" if device == "cpu" else f"{device}")
    return ", then ".join(dict.fromkeys(filter(None, places)))


def _continued(environment: dict[str, Any]) -> list[dict[str, Any]]:
    """The sessions after the first; an evaluation has none."""
    later = environment.get("continued")
    return [session for session in later if isinstance(session, dict)] if isinstance(later, list) else []


def _environment(run: Run) -> dict[str, Any]:
    try:
        return environment.plain() if (environment := run.rundir.environment()) else {}
    except MetarunError:
        return {}


def _command(run: Run, seeds: list[str]) -> str:
    """What to type for these runs again, at the length that they have come to."""
    if run.evaluation:
        changes = [f"{key}={table.cell(value)}" for key, value in run.changes.items()]
        origin = run.origin.typed if run.origin else "DIR (its run is gone)"
        return " ".join(["metarun eval", origin, *map(shlex.quote, changes)])
    argv = _environment(run).get("argv")
    argv = [word for word in argv if isinstance(word, str)] if isinstance(argv, list) else []
    if not run.words and "reproduce" in argv:
        return shlex.join(["metarun", *argv[argv.index("reproduce") :]])
    flags = [word for flag, folder in itertools.pairwise(argv) if flag in FLAGS for word in (flag, folder)]
    flags += [word for word in argv if word.partition("=")[0] in FLAGS and "=" in word]
    # A sweep's seeds and choices are among the words of its jobs.
    keys = ((key_of(word), word) for word in run.words)
    words = {key: word for key, word in keys if key != "sweep" and not key.startswith("hydra.")}
    now = {"budget": f"{run.trained.budget:g}", "meta_steps": str(run.trained.meta_steps)}
    longer = {key: value for key, value in now.items() if key in words or (key == "budget" and value != "1")}
    words |= {key: f"{key}={value}" for key, value in longer.items()}
    if len(seeds) > 1:
        words["seed"] = f"seed={','.join(seeds)}"
    return shlex.join(["metarun", *(["-m"] if len(seeds) > 1 else []), *flags, *words.values()])


def _went_on(run: Run) -> list[tuple[str, str]]:
    """What was changed where a run was continued."""
    found = []
    for session in _continued(_environment(run)):
        changed = session.get("changed")
        if isinstance(changed, list) and changed:
            words = f"after outer step {session.get('after_step')} with other {', '.join(map(str, changed))}"
            found.append(("went on", words))
    return found


def _how(entries: list[Entry], left_out: list[LeftOut]) -> str:
    """The commands, the effective settings that decide a result, the versions, and what is missing here."""
    parts = []
    for entry in entries:
        run, *others = entry.row.runs
        said = [(name, text) for name, text in run.summary["settings"].items() if name != "checkpoint"]
        for each in entry.row.runs:
            seed = f", seed {each.trained.seed}" if others else ""
            said += [("checkpoint", each.summary["settings"].get("checkpoint", "") + seed), *_went_on(each)]
            said += [("files", f"{each.rundir.short}")]
        lines = [_command(run, [str(each.trained.seed) for each in entry.row.runs]), ""]
        lines += [f"{name + ' ':<14}{text}".rstrip() for name, text in said]
        parts.append(f"<h3>{escape(entry.name)}</h3><pre>{escape(chr(10).join(lines))}</pre>")
    seen: dict[str, list[str]] = {}
    for entry in entries:
        for run in entry.row.runs:
            environment = _environment(run)
            git = environment.get("git") or {}
            versions = environment.get("versions", {})
            lines = [f"{name} {value}" for name, value in versions.items()] if isinstance(versions, dict) else []
            if isinstance(git, dict) and git:
                lines.append(f"commit {str(git.get('commit'))[:12]}{' with changes' if git.get('dirty') else ''}")
            lines += [str(environment.get(name)) for name in ("platform", "cpu_capability") if environment.get(name)]
            seen.setdefault(", ".join(lines) or "unknown", []).append(entry.name)
    for text, names in seen.items():
        whose = "" if len(seen) == 1 else f"<b>{escape(', '.join(dict.fromkeys(names)))}</b>: "
        parts.append(f"<p class=dim>{whose}{escape(text)}</p>")
    if left_out:
        items = "".join(f"<li>{escape(one.path)}: {escape(one.reason)}</li>" for one in left_out)
        parts.append(f"<h3>Left out</h3><ul>{items}</ul>")
    return "".join(parts)


SECTIONS: list[tuple[str, str, Callable[[str, list[Entry]], str]]] = [
    ("results", "Results", _results),
    ("learning", "Meta-training", curves.learning),
    ("adaptation", "Adaptation to new tasks", curves.adaptation),
    ("shots", "More and fewer shots", curves.shots),
    ("spread", "From task to task", curves.spread),
    ("swept", "What was swept", curves.swept),
    ("tasks", "Test tasks, looked at", pictures.tasks),
]
