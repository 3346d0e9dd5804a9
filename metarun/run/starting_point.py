"""Where a run begins: at its first outer step, after its newest checkpoint, or nowhere, for it is finished."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metarun.config.keys import differing_keys, keys_that, policy
from metarun.config.schema import Config
from metarun.engine import loop
from metarun.engine.chunking import Chunks
from metarun.engine.loop import Experiment, State
from metarun.errors import RunDirError, UsageError
from metarun.models.adopt import frozen_digest
from metarun.run.build import prepare_experiment
from metarun.run.identity import describe_code, hash_code, refuse_changes
from metarun.storage import checkpoint
from metarun.storage.metrics import parse_events
from metarun.storage.records import Summary
from metarun.storage.rundir import RunDir

log = logging.getLogger("metarun")


@dataclass
class Best:
    """The best validation so far."""

    step: int = 0  # outer steps done then; 0 where there was no validation
    value: float | None = None  # the metric
    saved: int = 0  # the best step of the last checkpoint, which is kept as long as that checkpoint may be used


@dataclass
class StartingPoint:
    """A prepared experiment, its state and its best validation at the first outer step or the newest checkpoint."""

    experiment: Experiment
    state: State
    best: Best
    metrics: str = ""  # the text of metrics.jsonl then


def held_run(rundir: RunDir, config: Config) -> tuple[Config | None, list[str]]:
    """The config of the run that a directory holds, and the keys that differ; (None, []) where a new one may begin.

    That is so, too, where a run of another config has failed before its first outer step: nothing of it would be lost.

    Raises:
        RunDirError: it holds another run; or what is there cannot be read.
    """
    if not rundir.holds_run:
        rundir.check_free()
        return None, []
    old = rundir.config()
    changes = differing_keys(old.plain(), config.plain())
    if fixed := [key for key in changes if not policy(key).resume]:
        if not rundir.has_progress:
            return None, []
        raise RunDirError(
            f"{rundir.short}: holds a run with another config, different in {', '.join(fixed)}; only "
            f"{', '.join(keys_that('resume'))} may change; for another run choose another hydra.run.dir, or: "
            f"metarun -cp {rundir.typed}/.hydra key=value"
        )
    return old, changes


def is_finished(rundir: RunDir, config: Config, changes: list[str]) -> bool:
    """Whether a run has nothing left to do, given its config and the keys of it that were changed.

    One that was killed when it was about to go on to more outer steps is done only with those it had.
    """
    status = rundir.status()
    done = status is not None and status.status == "done" and status.steps in (None, config.outer_steps)
    return done and not any(policy(key).length for key in changes)


def finished_summary(rundir: RunDir, config: Config, changes: list[str]) -> Summary | None:
    """The summary of a run that has nothing left to do, given the keys of its config that were changed."""
    if not is_finished(rundir, config, changes):
        return None
    if (summary := rundir.summary()) and changes:
        log.warning("%s is finished: %s stays as it was", rundir.short, ", ".join(changes))
    environment = rundir.environment()
    if environment and (code := describe_code(environment.code, hash_code(config))):  # as far as it is imported
        log.warning("%s: %s: this is the result of the former", rundir.short, "; ".join(code))
    return summary


def first_step(config: Config, begin: Callable[[Experiment], None] = lambda _: None) -> StartingPoint:
    """The starting point of a new run; `begin` as in prepare_experiment."""
    experiment = prepare_experiment(config, begin=begin)
    return StartingPoint(experiment, loop.start(experiment), Best())


def newest_step(
    old: Config, config: Config, rundir: RunDir, changes: list[str], begin: Callable[[Experiment], None]
) -> StartingPoint:
    """The starting point of a run that goes on: its newest checkpoint, or where it has none, its first step.

    `begin` as in prepare_experiment.

    Raises:
        RunDirError: its checkpoints cannot be used, or were trained with other data or code.
        UsageError: it has done more outer steps already than the config asks for.
    """
    start = first_step(config, begin)
    saved = newest_checkpoint(rundir, config)
    if saved is None:
        return start
    refuse_changes(rundir, old, config, start.experiment)
    restore(start.experiment, start.state, saved)
    if start.state.step > config.outer_steps:
        raise UsageError(
            f"{config.outer_steps} outer steps (meta_steps={config.meta_steps} budget={config.budget:g}): expected at "
            f"least {start.state.step}, which this run has done already; take more of either"
        )
    start.best = Best(*saved["best"], saved=saved["best"][0])
    if not any(key.startswith("engine.") for key in changes):
        start.state.chunks = _keep_chunks(config, Chunks(*saved["chunks"]))
    try:
        parse_events(saved["metrics"], start.experiment.source.metric)
    except ValueError as error:
        raise RunDirError(f"metrics (checkpoint): {error}; expected rows as metarun wrote them") from error
    start.metrics = saved["metrics"]
    return start


def _keep_chunks(config: Config, saved: Chunks) -> Chunks:
    """Those of the checkpoint, for they decide the last digits, but for sizes that are set.

    Of a session that was killed before its first checkpoint the config is left, and not that it had changed something.
    """
    if config.engine.get("mode") == "loop":
        return saved
    pairs = zip((config.engine.get(name) for name in ("chunk", "eval_chunk")), saved, strict=True)
    return Chunks(*(size if isinstance(size, int) else kept for size, kept in pairs))


def newest_checkpoint(rundir: RunDir, config: Config) -> dict[str, Any] | None:
    """The newest whole checkpoint of a run of this config, or None if it has not come to its first.

    Raises:
        RunDirError: all are damaged, or gone although the run is finished.
    """
    saved = checkpoint.newest(rundir.checkpoints, config.fingerprint)
    if saved is None and rundir.summary():
        raise RunDirError(
            f"{rundir.short}: its checkpoints are gone; expected those of a finished run; restore them from a copy"
        )
    return saved


def own_checkpoint(rundir: RunDir, config: Config, step: int) -> dict[str, Any]:
    """The checkpoint of a step of a run of this config. Raises RunDirError as checkpoint.load()."""
    return checkpoint.load(rundir.checkpoints, step, config.fingerprint)


def restore(experiment: Experiment, state: State, saved: dict[str, Any], other_data: bool = False) -> None:
    """Puts a checkpoint into a state; `other_data` is whether the experiment has other data than it was trained on.

    Raises:
        RunDirError: it is of other meta-parameters, of another class split, or of a learner frozen at other weights.
    """
    if (now := experiment.source.identity()["split_hash"]) != saved["split_hash"] and not other_data:
        raise RunDirError(
            f"split {now[:12]} (split_hash): the checkpoint was trained on split {saved['split_hash'][:12]}, "
            "so test classes could be training classes; use the run's own splits (data.split_seed, data.splits), or to "
            "test on other data, choose its source by name: metarun eval DIR data=NAME"
        )
    shapes = {name: list(value.shape) for name, value in state.meta.items()}
    saved_shapes = {name: list(value.shape) for name, value in saved["meta"].items()}
    tested = [name for name in {**shapes, **saved_shapes} if name not in experiment.algorithm.training_weights]
    if wrong := [name for name in tested if shapes.get(name) != saved_shapes.get(name)]:
        name = wrong[0]
        raise RunDirError(
            f"{name} {shapes.get(name, 'absent')} (checkpoint): has {saved_shapes.get(name, 'absent')}, so it "
            "was trained with another learner, number of ways or other setting that shapes it; use the settings of then"
        )
    model = experiment.algorithm.model
    if saved["frozen"] and (now := frozen_digest(model)) != saved["frozen"]:
        raise RunDirError(
            f"frozen weights or buffers {now[:12] or 'none'} ({model.own_class}): the checkpoint was trained with "
            f"{saved['frozen'][:12]}; expected the same; give the learner those of then, or start another run"
        )
    for name in experiment.algorithm.training_weights:
        if list(state.meta[name].shape) != saved_shapes.get(name):  # of other training classes, and never used again
            state.meta[name] = saved["meta"][name].to(experiment.device)
    loop.restore(state, saved)
