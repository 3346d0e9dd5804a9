"""What can be done with a run directory: go on with it, repeat it, meta-test it again."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarun.config.edit import adjusted
from metarun.config.keys import policy
from metarun.config.saved import dump
from metarun.config.schema import Config, check
from metarun.engine import loop
from metarun.errors import DiffersError, RunDirError, UsageError
from metarun.files import write_atomically
from metarun.run import pictures as plot
from metarun.run.build import (
    EVAL_BATCH,
    assemble,
    described,
    environment_of,
    newest_checkpoint,
    of_tasks,
    own_checkpoint,
    plan,
    restore,
    summarize,
)
from metarun.run.train_and_test import execute, validates
from metarun.run.words import describe_source
from metarun.storage.metrics import events
from metarun.storage.records import Source
from metarun.storage.rundir import RunDir, fresh
from metarun.tasks import Metric
from metarun.text import printable, reason

PLACES = ("device", "data.root", "data.download")  # where a run computes and reads, not what it is


def resume(folder: Path, words: list[str]) -> dict[str, Any]:
    """Goes on with a run, or returns the summary of a finished one."""
    return execute(adjusted(RunDir(folder).config().plain(), words), folder, words)


def evaluate(folder: Path, words: list[str]) -> dict[str, Any]:
    """Meta-tests the best checkpoint of a run, under changed settings, into a new folder DIR/eval/<date>/<time>.

    Raises:
        UsageError: a setting has no effect on meta-testing.
        RunDirError: the run has no checkpoint, or it does not fit the settings.
    """
    rundir = RunDir(folder)
    trained = rundir.config()
    config = adjusted(trained.plain(), words)
    experiment = assemble(config)
    ignored = [f"algo.{key}" for key in experiment.algorithm.training_only]
    for word in words:
        key = word.partition("=")[0]
        section, _, last = key.partition(".")
        if section == "data" and config.data.get(f"eval_{last}") is not None:
            raise UsageError(f"{word!r} (command line): has no effect on meta-testing; set data.eval_{last}")
        if not policy(key).evaluate or any(f"{key}.".startswith(f"{name}.") for name in ignored):
            raise UsageError(f"{word!r} (command line): has no effect on meta-testing; start a new run to change it")
    newest = newest_checkpoint(rundir, trained)
    if newest is None or not newest["best"][0]:
        raise RunDirError(
            f"{folder}: has no checkpoint with a validation yet; expected a run that got that far; "
            f"{rundir.resume_command}"
        )
    step, _ = newest["best"]
    experiment.source.prepare(experiment.device)
    state = loop.start(experiment)
    restore(experiment, state, own_checkpoint(rundir, trained, step))
    plan(config, experiment, state)
    result = loop.meta_test(experiment, state.meta, "test", config.test_tasks, EVAL_BATCH)
    summary = summarize(config, experiment, state, result, newest["step"])
    before = assemble(replace(trained, device=config.device))
    if (training := before.source.facts()) != experiment.source.facts():
        summary["settings"]["trained on"] = describe_source(Source(**training))
    if other := [words for name, words in described(before).items() if words != summary["settings"].get(name)]:
        summary["settings"]["trained with"] = "; ".join(other)
    summary["settings"]["checkpoint"] = f"outer step {step} of {rundir.shown}"
    out = RunDir(fresh(rundir.path / "eval"))
    write_atomically(out.path / "config.yaml", dump(config.plain()).encode())
    out.write("environment.json", environment_of(experiment, config))
    out.write("test_tasks.json", of_tasks(experiment, result))
    out.write("summary.json", summary)
    plot.curves([], summary, out.plot)
    return {**summary, "files": str(out.shown)}


def reproduce(folder: Path, words: list[str]) -> str:
    """Runs the saved config again in a new directory, and compares metrics.jsonl byte for byte.

    Args:
        folder: of a finished run.
        words: where to compute and to read, if it is elsewhere now; nothing else may change.

    Returns:
        A line that says how many events were identical.

    Raises:
        DiffersError: they are not; names the first difference.
        RunDirError: the run has not finished, or its files are damaged.
    """
    for word in words:
        if not word.startswith(tuple(f"{place}{sign}" for place in PLACES for sign in ".=")):
            raise UsageError(
                f"{word!r} (command line): reproduce changes nothing but {', '.join(PLACES)}; "
                f"for another run: metarun -cp {folder}/.hydra {word}"
            )
    rundir = RunDir(folder)
    config, environment = adjusted(rundir.config().plain(), words), _environment(rundir)
    if rundir.read("status.json").get("status") != "done":
        raise RunDirError(f"{folder}: not finished, so there is nothing to compare with; {rundir.resume_command}")
    if not (summary := rundir.summary()):
        raise RunDirError(f"{rundir.path / 'summary.json'}: missing; to test again: {rundir.resume_command}")
    metric = summary["metric"]
    original = _rows(rundir, metric)
    pinned = replace(_pinned(rundir, config, environment), logger=None)  # a repetition is nobody else's news
    for session in environment.get("continued", []):
        if costly := [key for key in session["changed"] if policy(key).digits]:
            changed = f"after outer step {session['after_step']} with other {', '.join(costly)}"
            print(f"this run went on {changed}, so that the repetition may differ")
    experiment = assemble(pinned)  # what can be refused is refused before there is a directory
    experiment.source.prepare(experiment.device)
    plan(pinned, experiment, loop.start(experiment))
    for line in _environment_differences(environment, environment_of(experiment, pinned)):
        print(printable(line), flush=True)
    copy = RunDir(fresh(Path("outputs")))
    print(f"reproducing {rundir.shown} in {copy.shown}", file=sys.stderr)
    execute(pinned, copy.path, [])
    return compare(*(_on_cadence(rows, config) for rows in (original, _rows(copy, metric))))


def _environment(rundir: RunDir) -> dict[str, Any]:
    """environment.json, in the shape that is used below."""
    if not (found := rundir.read("environment.json")):
        raise RunDirError(f"{rundir.path / 'environment.json'}: missing; expected it as metarun wrote it; restore it")
    sessions = found.get("continued", [])
    sound = isinstance(found.get("versions", {}), dict) and isinstance(found.get("git") or {}, dict)
    try:
        for session in sessions:
            sound &= isinstance(session["after_step"], int) and all(isinstance(key, str) for key in session["changed"])
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise RunDirError(f"{rundir.path / 'environment.json'}: of another shape; expected it as metarun wrote it")
    return found


def _rows(rundir: RunDir, metric: Metric) -> list[str]:
    """The lines of metrics.jsonl."""
    try:
        text = rundir.read_metrics()
        events(text, metric)
    except (OSError, ValueError) as error:
        raise RunDirError(
            f"{rundir.metrics}: cannot be read ({reason(error)}): expected JSON lines, as metarun wrote them; "
            "restore it from a copy; there is nothing else to compare with"
        ) from error
    return text.splitlines()


def _on_cadence(rows: list[str], config: Config) -> list[str]:
    """The rows without the validation that ended a session and that a run without interruption does not have."""

    def belongs(row: dict[str, Any]) -> bool:
        return row["split"] != "val" or validates(config, row["step"])

    return [row for row in rows if belongs(json.loads(row))]


def _pinned(rundir: RunDir, config: Config, environment: dict[str, Any]) -> Config:
    """The config with the choices that decide the last digits, as the first run made them."""
    plain = config.plain()
    try:
        plain["device"]["threads"] = plain["device"]["threads"] or environment["threads"]
        if plain["engine"].get("mode") == "vmap":
            plain["engine"].update({key: environment[key] for key in ("chunk", "eval_chunk")})
    except KeyError as error:
        raise RunDirError(
            f"{rundir.path / 'environment.json'}: has no {error}; expected it as metarun wrote it"
        ) from error
    return check(plain)


def _environment_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    flat = [{**env, **env.get("versions", {}), **(env.get("git") or {})} for env in (old, new)]
    names = [name for name in flat[0] if name not in ("argv", "config", "versions", "git", "continued")]
    return [f"environment: {n} was {flat[0][n]}, is {flat[1].get(n)}" for n in names if flat[0][n] != flat[1].get(n)]


def compare(old: list[str], new: list[str]) -> str:
    """Compares the rows of two metrics.jsonl; see reproduce()."""
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
