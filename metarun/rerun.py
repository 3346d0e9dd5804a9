"""What can be done with a run directory: go on with it, repeat it, meta-test it again."""

import json
import sys
from pathlib import Path
from typing import Any

from metarun import checkpoint, loop, plot
from metarun.compose import adjusted
from metarun.config import Config
from metarun.errors import DiffersError, RunDirError, UsageError
from metarun.run import EVAL_BATCH, assemble, environment_of, execute, plan, restore, summarize
from metarun.rundir import RunDir, fresh

# They act in meta-training only, so that an evaluation would have to ignore them.
TRAINING_KEYS = ("meta_steps", "meta_batch", "val_every", "val_tasks", "checkpoint_every", "log_every", "objective")


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
    config = adjusted(rundir.config().plain(), words)
    for word in words:
        if word.partition("=")[0] in TRAINING_KEYS:
            raise UsageError(f"{word!r} (command line): has no effect on meta-testing; start a new run to change it")
    newest = checkpoint.newest(rundir.checkpoints)
    if newest is None or not newest["best"][0]:
        raise RunDirError(
            f"{folder}: has no checkpoint with a validation yet; expected a run that got that far; metarun "
            f"resume {folder}"
        )
    step, _ = newest["best"]
    experiment = assemble(config)
    state = loop.start(experiment)
    restore(experiment, state, checkpoint.load(rundir.checkpoints, step))
    plan(config, experiment, state)
    result = loop.meta_test(experiment, state.meta, "test", config.test_tasks, EVAL_BATCH)
    summary = summarize(config, experiment, state, result)
    summary["settings"]["checkpoint"] = f"outer step {step} of {rundir.shown}"
    out = RunDir(fresh(rundir.path / "eval"))
    out.begin(config, words)
    out.write("environment.json", environment_of(experiment, config))
    out.write("summary.json", summary)
    plot.curves([], summary, out.plot)
    return {**summary, "files": str(out.shown)}


def reproduce(folder: Path, words: list[str]) -> str:
    """Runs the saved config again in a new directory, and compares metrics.jsonl byte for byte.

    Returns:
        A line that says how many events were identical.

    Raises:
        DiffersError: they are not; names the first difference.
        RunDirError: the run has not finished.
    """
    if words:
        raise UsageError(
            f"{words[0]!r} (command line): reproduce takes no settings; for another run: metarun -cp "
            f"{folder}/.hydra {words[0]}"
        )
    rundir = RunDir(folder)
    config, environment = rundir.config(), rundir.read("environment.json")
    if rundir.read("status.json").get("status") != "done":
        raise RunDirError(f"{folder}: not finished, so there is nothing to compare with; metarun resume {folder}")
    copy = RunDir(fresh(Path("outputs")))
    print(f"reproducing {rundir.shown} in {copy.shown}", file=sys.stderr)
    execute(_pinned(config, environment), copy.path, [])
    for line in _environment_differences(environment, copy.read("environment.json")):
        print(line)
    return compare(rundir.metrics.read_text().splitlines(), copy.metrics.read_text().splitlines())


def _pinned(config: Config, environment: dict[str, Any]) -> Config:
    """The config with the choices that decide the last digits, as the first run made them."""
    plain = config.plain()
    plain["device"]["threads"] = environment["threads"]
    if plain["engine"].get("mode") == "vmap":
        plain["engine"].update({key: environment[key] for key in ("chunk", "eval_chunk")})
    return Config(**plain)


def _environment_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    flat = [{**env, **env.get("versions", {}), **(env.get("git") or {})} for env in (old, new)]
    names = [name for name in flat[0] if name not in ("argv", "versions", "git")]
    return [f"environment: {n} was {flat[0][n]}, is {flat[1].get(n)}" for n in names if flat[0][n] != flat[1].get(n)]


def compare(old: list[str], new: list[str]) -> str:
    """Compares the rows of two metrics.jsonl; see reproduce()."""
    for number, (a, b) in enumerate(zip(old, new, strict=False), start=1):
        if a != b:
            first, second = json.loads(a), json.loads(b)
            field = next(key for key in {**first, **second} if first.get(key) != second.get(key))
            raise DiffersError(
                f"event {number} of {len(old)} differs (step {first['step']}, {first['split']}, {field}): expected "
                f"{first.get(field)!r}, got {second.get(field)!r}"
            )
    if len(old) != len(new):
        raise DiffersError(f"{len(new)} events (metrics.jsonl): expected {len(old)}")
    return f"bitwise identical: {len(new)} of {len(old)} events"
