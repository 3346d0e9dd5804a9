"""A run in full, as lines for a terminal."""

import re
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

from metarun.results.chart import draw_chart
from metarun.results.grid import Column, format_grid
from metarun.results.listing_text import describe_age, describe_state
from metarun.results.showing import RunFacts
from metarun.run.words import closing_words, describe_tests
from metarun.text import count_of, format_bytes, format_duration, format_metric, short_path, spell_plain

NAME = 14  # letters of a line's name, as in the closing words of a run
CHART = 7  # lines of a curve, without its axis
WIDEST = 100  # letters of a curve


def as_text(facts: RunFacts, width: int | None, braille: bool = True) -> str:
    """The lines about a run: state, results, how it was made, curves, where it computed, files, how to go on."""
    results = closing_words(facts.summary, {}).strip().splitlines() if facts.summary else []
    if facts.earlier:
        results.append(_line("tested before", describe_tests(facts.metric or "", facts.earlier)))
    files = _line("files", ", ".join(f"{file.name} {format_bytes(file.bytes)}" for file in facts.files))
    parts = [
        _describe_state(facts),
        [_wrap(line, width) for line in results],
        [_wrap(line, width) for line in _describe_making(facts)],
        *_draw_curves(facts, min(width or 80, WIDEST), braille),
        [_wrap(line, width) for line in _describe_place(facts)],
        _list_evaluations(facts, width),
        [_wrap(files, width)],
        _list_commands(facts),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _describe_state(facts: RunFacts) -> list[str]:
    run = facts.run
    age = f", began {describe_age(time.time() - run.began)} ago" if run.began else ""
    kind = f"an evaluation of {facts.of}" if facts.of else describe_state(run)
    reason = [run.reason] if run.reason and run.status in ("stopped", "stale") else []
    saved = (
        [f"saved after outer step {facts.saved_step}, from where it goes on"]
        if facts.saved_step and "go on" in facts.go_on
        else []
    )
    return [f"{run.folder}: {kind}{age}", *reason, *saved]


def _line(name: str, text: str) -> str:
    return f"{name:<{NAME}}{text}"


def _wrap(line: str, width: int | None) -> str:
    """A line with a name, in lines below each other where it is too long; others, and commands, are to be copied."""
    if width is None or len(line) <= width or not re.match(rf".{{{NAME - 1}}} \S", line) or line.startswith("command"):
        return line
    blank = " " * NAME
    return textwrap.fill(line, width, subsequent_indent=blank, break_long_words=False, break_on_hyphens=False)


def _describe_making(facts: RunFacts) -> Iterator[str]:
    """What was typed, what it comes to, and whose it is."""
    run = facts.run
    if facts.command:
        yield _line("command", facts.command)
    if facts.choices:
        yield _line("choices", " ".join(f"{group}={name}" for group, name in facts.choices.items()))
    if facts.settings is not None:
        name, other = ("changed", "was") if facts.of else ("settings", "default")
        pairs = [f"{k}={spell_plain(c.value)} ({other} {spell_plain(c.default)})" for k, c in facts.settings.items()]
        yield _line(name, ", ".join(pairs) or "all as by default")
    elif run.differs:
        yield _line("typed", " ".join(f"{key}={value}" for key, value in run.differs.items()))
    if run.reproduces:
        yield _line("repeats", str(short_path(Path(run.reproduces))))
    if run.tags:
        yield _line("tags", " ".join(run.tags))


def _draw_curves(facts: RunFacts, width: int, braille: bool) -> Iterator[list[str]]:
    """Validation, and the loss of training, over outer steps."""
    metric = facts.metric
    if metric and (validations := [point for point in facts.curve if point.split == "val"]):
        unit, best = (100, max) if metric == "accuracy" else (1, min)
        first = best(validations, key=lambda point: point.value)
        last = format_metric(metric, validations[-1].value)
        words = f"best {format_metric(metric, first.value)} after outer step {first.step}, last {last}"
        curve = [(float(point.step), unit * point.value) for point in validations]
        percent = " in %" if metric == "accuracy" else ""
        yield [f"validation {metric}{percent} over outer steps: {words}", *_draw(curve, width, braille)]
    if loss := [(float(point.step), point.loss) for point in facts.curve if point.loss is not None]:
        yield [f"loss of training over outer steps: last {loss[-1][1]:.4g}", *_draw(loss, width, braille)]


def _draw(points: list[tuple[float, float]], width: int, braille: bool) -> list[str]:
    """A chart, where there is more than a point."""
    return draw_chart(points, width, CHART, braille=braille) if len(points) > 1 else []


def _describe_place(facts: RunFacts) -> Iterator[str]:
    """Where it computed, how long, and with what."""
    where = facts.environment
    if where is None:
        return
    threads = f", {count_of(where.threads, 'thread')}" if where.threads else ""
    processes = f", {count_of(where.processes, 'process')}" if where.processes > 1 else ""
    host = f"{facts.host}, " if facts.host else ""
    yield _line("computed on", f"{host}{where.device or 'an unknown device'}{threads}{processes}; {where.platform}")
    commit = f", commit {where.git.commit[:12]}{' (with changes)' if where.git.dirty else ''}" if where.git else ""
    versions = ", ".join(f"{name} {version}" for name, version in where.versions.items() if version)
    yield _line("versions", f"{versions}{commit}")
    if where.data_digest:
        yield _line("data", f"digest {where.data_digest[:12]}, split {where.split_hash[:12]}")
    if facts.summary and facts.summary.wall_seconds >= 1:
        yield _line("took", format_duration(facts.summary.wall_seconds))
    for session in where.continued:
        changed = f", with other {', '.join(session.changed)}" if session.changed else ""
        yield _line("went on", f"after outer step {session.after_step or 0}{changed}")


def _list_evaluations(facts: RunFacts, width: int | None) -> list[str]:
    """A table of the evaluations of the run."""
    if not facts.evaluations:
        return []
    made = facts.evaluations
    changes = [" ".join(f"{key}={spell_plain(value)}" for key, value in test.changes.items()) for test in made]
    columns = [
        Column("evaluation", [words or "as the run" for words in changes], least=12),
        Column("test", [format_metric(test.metric, test.mean, test.ci95) for test in made], right=True),
        Column("tasks", [str(test.tasks) for test in made], right=True),
        Column("folder", [test.folder for test in made], least=18, keep_end=True),
    ]
    return format_grid(columns, width)


def _list_commands(facts: RunFacts) -> list[str]:
    room = max(map(len, facts.go_on), default=0) + 2
    return [f"{name:<{room}}{command}" for name, command in facts.go_on.items()]
