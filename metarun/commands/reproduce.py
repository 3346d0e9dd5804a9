"""metarun reproduce: run a finished run again and compare; exit 0 if bitwise identical, else 6.

The repetition lies in a new folder of outputs/. One that is identical is removed at the end, unless keep=true; one that
differs stays. Tables leave it out beside the run that it repeats.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from metarun.commands.common import add_run
from metarun.config.keys import keys_that, policy
from metarun.engine.ranks import refuse_several_processes
from metarun.errors import DiffersError, RunDirError, UsageError
from metarun.text import printable, typed_path

if TYPE_CHECKING:
    from metarun.config.schema import Config
    from metarun.storage.records import Environment, Session

OUTPUTS = Path("outputs")
COMPARED = ("code", "data_digest", "first_tasks", "split_hash")  # facts that have words of their own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, and where to compute and read."""
    add_run(parser, f"where to compute and read: {', '.join(keys_that('reproduce'))}")
    keep = "keep=true: the repetition stays also where it is identical"
    parser.add_argument("--keep", choices=("true", "false"), default="false", help=keep)


def main(args: argparse.Namespace) -> None:
    """Repeats the run in a new directory, and prints how many of its events are identical."""
    refuse_several_processes("reproduce")
    for word in args.words:
        if not policy(word.partition("=")[0]).reproduce:
            raise UsageError(
                f"{word!r} (command line): reproduce changes nothing but {', '.join(keys_that('reproduce'))}; "
                f"for another run: metarun -cp {typed_path(Path(args.run, '.hydra'))} {word}"
            )
    from metarun.config.edit import with_changes
    from metarun.engine import loop
    from metarun.run.build import choose_chunks, prepare_experiment
    from metarun.run.environment import describe_session
    from metarun.run.identity import describe_changes
    from metarun.run.train_and_test import execute
    from metarun.storage.metrics import read_events, read_metrics
    from metarun.storage.rundir import RunDir, make_dated_folder

    rundir = RunDir(args.run)
    config, environment = with_changes(rundir.config().plain(), args.words), rundir.environment()
    if environment is None:
        raise RunDirError(f"{rundir.path / 'environment.json'}: missing; expected it as metarun wrote it; restore it")
    status = rundir.status()
    if status is None or status.status != "done":
        raise RunDirError(f"{args.run}: not finished, so there is nothing to compare with; {rundir.resume_command}")
    if (summary := rundir.summary()) is None:
        raise RunDirError(f"{rundir.path / 'summary.json'}: missing; to test again: {rundir.resume_command}")
    read_events(rundir, summary.metric)
    original = read_metrics(rundir)
    pinned = _with_threads_and_chunks(config, environment)
    for session in environment.continued:
        if digits := [key for key in session.changed if policy(key).digits]:
            changed = f"after outer step {session.after_step} with other {', '.join(digits)}"
            print(printable(f"this run went on {changed}, so that the repetition may differ"))
    experiment = prepare_experiment(pinned)  # what can be refused is refused before there is a directory
    chunks = choose_chunks(pinned, experiment, loop.start(experiment))
    now = describe_session(pinned, experiment, chunks)
    if changed := describe_changes(environment, now, config, pinned):
        print(printable(f"{'; '.join(changed)}: the repetition is of another, and may differ"), flush=True)
    for line in dict.fromkeys(line for old in environment.sessions for line in _differing_environment(old, now)):
        print(printable(line), flush=True)
    alone = not OUTPUTS.exists()
    copy = RunDir(make_dated_folder(OUTPUTS, remedy="type it in another folder"))
    print(f"reproducing {rundir.short} in {copy.short}", file=sys.stderr)
    execute(pinned, copy.path, rundir.overrides(), rundir.choices(), reproduces=rundir.path)
    lines = [_without_extra_validations(text, config) for text in (original, read_metrics(copy))]
    same_formula = all(session.intervals == now.intervals for session in environment.sessions)
    try:
        compared = _compare_lines(*(lines if same_formula else [[*map(_without_interval, some)] for some in lines]))
    except DiffersError as error:
        raise DiffersError(f"{error}; the repetition is in {copy.short}") from error
    if same_formula:
        print(compared)
    else:
        print(f"{compared}, but for their intervals (ci95), whose formula is another one since that run")
    if args.keep == "false":
        _remove(copy.path, alone)
        print(f"removed {copy.short}, for it is identical; keep=true keeps it", file=sys.stderr)


def _remove(folder: Path, alone: bool) -> None:
    """Removes a repetition and the folder of its day; with `alone` also outputs/, which was made for it."""
    shutil.rmtree(folder)
    with suppress(OSError):  # they hold other runs
        folder.parent.rmdir()
        if alone:
            OUTPUTS.rmdir()


def _with_threads_and_chunks(config: Config, environment: Environment) -> Config:
    """The config with the choices that decide the last digits, as the first session made them; without a logger."""
    device = config.device | {"threads": config.device["threads"] or environment.threads}
    engine = config.engine
    if engine.get("mode") == "vmap":
        engine = engine | {"chunk": environment.chunk, "eval_chunk": environment.eval_chunk}
    return replace(config, device=device, engine=engine, logger=None)


def _differing_environment(old: Session, new: Session) -> list[str]:
    """A line for each fact of the environment that is otherwise now."""
    flat = [{**s.plain(), **s.versions, **(s.git.plain() if s.git else {})} for s in (old, new)]
    left_out = ("argv", "config", "versions", "git", "continued", "after_step", "changed", "reproduces", *COMPARED)
    names = [name for name, value in flat[0].items() if name not in left_out and value not in ("", None)]
    long = {"inputs": "are preprocessed otherwise, by what training examples have"}
    words = {name: long.get(name, f"was {flat[0][name]}, is {flat[1].get(name)}") for name in names}
    return [f"environment: {name} {words[name]}" for name in names if flat[0][name] != flat[1].get(name)]


def _without_extra_validations(text: str, config: Config) -> list[str]:
    """The lines but for validations that an extended run made at its earlier end, and an uninterrupted one does not."""
    from metarun.run.session import validates

    rows = [(line, json.loads(line)) for line in text.splitlines()]
    return [line for line, row in rows if row["split"] != "val" or validates(config, row["step"])]


def _without_interval(line: str) -> str:
    """A line without its ci95."""
    return re.sub(r'"ci95": [^,}]*, ', "", line)


def _compare_lines(old: list[str], new: list[str]) -> str:
    """How many lines of two metrics.jsonl are identical: all; else raises DiffersError with the first difference."""
    for number, (a, b) in enumerate(zip(old, new, strict=False), start=1):
        if a != b:
            first, second = json.loads(a), json.loads(b)
            field = next((key for key in {**first, **second} if first.get(key) != second.get(key)), "spelling")
            raise DiffersError(
                f"event {number} of {len(old)} differs (step {first['step']}, {first['split']}, {field}): "
                f"expected {first.get(field)!r}, got {second.get(field)!r}"
            )
    if len(old) != len(new):
        raise DiffersError(f"{len(new)} events (metrics.jsonl): expected {len(old)}")
    return f"bitwise identical: {len(new)} of {len(old)} events"
