"""Where a run begins: at its first outer step, after its newest checkpoint, or nowhere, for it is finished."""

import logging
from dataclasses import dataclass
from typing import Any

from metarun.config.keys import differing_keys, keys_that, policy
from metarun.config.schema import Config
from metarun.engine import loop
from metarun.engine.loop import Experiment, State
from metarun.errors import RunDirError, UsageError
from metarun.run.build import assemble, newest_checkpoint, restore
from metarun.storage.metrics import events
from metarun.storage.rundir import RunDir

log = logging.getLogger("metarun")

LENGTH = ("meta_steps", "budget")  # what decides how many outer steps there are


@dataclass
class Best:
    """The best validation so far."""

    step: int = 0
    value: float | None = None
    saved: int = 0  # the step that the last checkpoint calls the best; it is kept as long as that one may be used


def changed(old: Config | None, new: Config) -> list[str]:
    """The keys in which a config differs from the one that a run was begun with."""
    return [] if old is None else differing_keys(old.plain(), new.plain())


def finished(rundir: RunDir, changes: list[str]) -> dict[str, Any] | None:
    """Checks that a directory's run may go on with these changes; its summary if there is nothing left to do."""
    if fixed := [key for key in changes if not policy(key).resume]:
        free = ", ".join(keys_that("resume"))
        raise RunDirError(
            f"{rundir.shown}: holds a run with another config, different in {', '.join(fixed)}; "
            f"only {free} may change; for another run choose another hydra.run.dir, or: "
            f"metarun -cp {rundir.typed}/.hydra key=value"
        )
    if rundir.read("status.json").get("status") != "done" or set(changes) & set(LENGTH):
        return None
    if (summary := rundir.summary()) and changes:
        log.warning("%s is finished: %s stays as it was", rundir.shown, ", ".join(changes))
    return summary or None


@dataclass
class Start:
    """Where a run goes on from: its first outer step, or its newest checkpoint."""

    experiment: Experiment
    state: State
    best: Best
    metrics: str  # what metrics.jsonl held there


def prepare(config: Config, rundir: RunDir, changes: list[str]) -> Start:
    """Builds everything, and reads the newest checkpoint if there is one. Writes nothing."""
    experiment = assemble(config)
    experiment.source.prepare(experiment.device)
    state = loop.start(experiment)
    saved = newest_checkpoint(rundir, config)
    if saved is None:
        return Start(experiment, state, Best(), "")
    restore(experiment, state, saved)
    if state.step > config.outer_steps:
        raise UsageError(
            f"{config.outer_steps} outer steps (meta_steps={config.meta_steps} budget={config.budget:g}): expected at "
            f"least {state.step}, which this run has done already; take more of either"
        )
    best = Best(*saved["best"], saved=saved["best"][0])
    if not any(key.startswith("engine.") for key in changes):
        experiment.engine.chunk, experiment.engine.eval_chunk = saved["chunks"]  # they decide the last digits
    rundir.step = state.step
    try:
        events(saved["metrics"], experiment.source.metric)
    except ValueError as error:
        raise RunDirError(f"metrics (checkpoint): {error}; expected rows as metarun wrote them") from error
    return Start(experiment, state, best, saved["metrics"])
