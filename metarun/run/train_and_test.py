"""The story of a run: build, start or resume, meta-train, meta-test, record, return the summary."""

import logging
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

from metarun.config.keys import policy
from metarun.config.schema import Config
from metarun.engine import loop
from metarun.engine.device import memory_mb
from metarun.engine.loop import Evaluation, Experiment, State
from metarun.engine.processes import Processes, joined
from metarun.errors import DivergedError, RunDirError, StoppedError
from metarun.run import pictures as plot
from metarun.run.build import (
    EVAL_BATCH,
    assemble,
    device_of,
    environment_of,
    of_tasks,
    own_checkpoint,
    plan,
    restore,
    summarize,
)
from metarun.run.loggers import Sink
from metarun.run.signals import at_once, between_steps
from metarun.run.starting_point import LENGTH, Best, Start, changed, finished, prepare
from metarun.run.words import describe_source
from metarun.storage import checkpoint
from metarun.storage.metrics import Progress, Recorder, events, shown
from metarun.storage.records import Source
from metarun.storage.rundir import RunDir
from metarun.tasks import better

log = logging.getLogger("metarun")


def execute(config: Config, folder: Path, overrides: list[str], hydra: Any = None, bar: bool = True) -> dict[str, Any]:
    """Runs a config in a directory: from the start, or on from its newest checkpoint, or not at all if it is done.

    Args:
        config: the composed config.
        folder: the run directory; made if it is not there.
        overrides: for .hydra/overrides.yaml.
        hydra: Hydra's own config, for .hydra/hydra.yaml.
        bar: whether to show a progress bar on a terminal.

    Returns:
        What summary.json holds; {} in a process that does not write.

    Raises:
        RunDirError: the directory holds another run, or one that is going on, or cannot be written.
        MetarunError: whatever stopped the run; status.json and metarun.log say so too.
    """
    rundir = RunDir(folder)
    with at_once(f"to go on: {rundir.resume_command}"), joined(device_of(config)):
        return _execute(config, rundir, overrides, hydra, bar) if Processes().rank == 0 else _follow(config)


def _execute(config: Config, rundir: RunDir, overrides: list[str], hydra: Any, bar: bool) -> dict[str, Any]:
    with rundir.claimed():
        old = rundir.config() if rundir.holds_run else None
        if old is None:
            rundir.check_free()
        changes = changed(old, config)
        if old is not None and (summary := finished(rundir, changes)) is not None:
            log.info("%s is finished; this is its result", rundir.shown)
            Processes().from_first(None)
            return summary
        # A run that goes on is left as it is until nothing is left that could be refused.
        prepared = prepare(config, rundir, changes) if old is not None else None
        if prepared is not None and not prepared.state.step:
            log.info("%s has no checkpoint: starting from the first outer step", rundir.shown)
        with rundir.logging():
            try:
                rundir.begin(config, overrides, hydra)
                rundir.status("running")
                return _run(config, rundir, prepared or prepare(config, rundir, changes), changes, bar)
            except OSError as error:
                told = RunDirError(
                    f"{error.filename or rundir.shown}: {error.strerror or error} (run directory): expected a disk "
                    f"with room; make room; the last checkpoint is intact; to go on: {rundir.resume_command}"
                )
                _failed(rundir, told)
                raise told from error
            except BaseException as error:
                _failed(rundir, error)
                raise


def _run(config: Config, rundir: RunDir, start: Start, changes: list[str], bar: bool) -> dict[str, Any]:
    experiment, state = start.experiment, start.state
    if costly := [key for key in changes if policy(key).digits]:
        longer = [key for key in LENGTH if key in costly]
        stretched = longer and experiment.algorithm.scheduled
        why = f" (its schedules now run over the new {longer[0]})" if stretched else ""
        log.warning(
            "going on with other %s: the result may differ from an uninterrupted run's%s", ", ".join(costly), why
        )
    if state.step:
        log.info("going on after outer step %d of %d", state.step, config.outer_steps)
        checkpoint.drop_after(rundir.checkpoints, state.step)
    plan(config, experiment, state)
    chunks = experiment.engine.chunk, experiment.engine.eval_chunk
    experiment.processes.from_first((loop.snapshot(state), chunks))
    sessions = _record_environment(config, rundir, experiment, changes)
    progress = Progress(experiment.source.metric, config.outer_steps, state.step, bar)
    sink = Sink(experiment.logger)
    recorder = Recorder(rundir, experiment.source.metric, sessions, state.step, start.metrics, sink)
    title = f"{experiment.algorithm.name} on {describe_source(Source(**experiment.source.facts()))}"
    with closing(recorder), closing(progress), sink.during(rundir.path, title, config.plain(), state.step):
        _train(config, experiment, state, start.best, rundir, recorder, progress)
        summary = _test(config, experiment, start.best, rundir, recorder)
    rundir.write("summary.json", summary)
    plot.curves(events(recorder.metrics, experiment.source.metric), summary, rundir.plot)
    rundir.status("done")
    return summary


def _follow(config: Config) -> dict[str, Any]:
    """What a process does that does not write: its share of every outer step and of every evaluation."""
    experiment = assemble(config)
    experiment.source.prepare(experiment.device)
    state = loop.start(experiment)
    if (begin := experiment.processes.from_first(None)) is None:
        return {}  # the run is finished
    saved, (experiment.engine.chunk, experiment.engine.eval_chunk) = begin
    loop.restore(state, saved)
    with between_steps() as received:
        for report in loop.meta_train(experiment, state, config.outer_steps, config.meta_batch):
            if validates(config, report.step):
                _validation(config, experiment, state)
            if signum := experiment.processes.largest(received(), experiment.device):
                raise StoppedError(f"stopped after outer step {report.step}", signum)
    best = {name: value.to(experiment.device) for name, value in experiment.processes.from_first(None).items()}
    loop.meta_test(experiment, best, "test", config.test_tasks, EVAL_BATCH)
    return {}


def _validation(config: Config, experiment: Experiment, state: State) -> Evaluation | None:
    """The validation after an outer step; None where a metric is not finite.

    One task on which the inner loop leaves all bounds says little about training, whose own losses are seen to. It only
    means that this outer step's checkpoint is no good.
    """
    try:
        return loop.meta_test(experiment, state.meta, "val", config.val_tasks, EVAL_BATCH)
    except DivergedError as error:
        log.warning("step %d/%d  no validation: %s", state.step, config.outer_steps, error)
        return None


def validates(config: Config, step: int) -> bool:
    """Whether there is a validation after this outer step."""
    return step % config.val_every == 0 or step == config.outer_steps


def _record_environment(config: Config, rundir: RunDir, experiment: Experiment, changes: list[str]) -> int:
    """Writes environment.json, or adds to it where a run goes on; returns how many sessions there were before."""
    now, before = environment_of(experiment, config), rundir.read("environment.json")
    later = before.get("continued", [])
    if before:
        later = [*later, {"after_step": rundir.step, "changed": changes, **now}]
    rundir.write("environment.json", {**(before or now), **({"continued": later} if before else {})})
    return len(later)


def _train(
    config: Config,
    experiment: Experiment,
    state: State,
    best: Best,
    rundir: RunDir,
    recorder: Recorder,
    progress: Progress,
) -> None:
    """Meta-trains, validates and saves, until meta_steps are done or a signal comes."""
    metric = experiment.source.metric
    with between_steps() as received:
        for report in loop.meta_train(experiment, state, config.outer_steps, config.meta_batch):
            step, last = report.step, report.step == config.outer_steps
            rundir.step = step
            improved = False
            if step % config.log_every == 0:
                recorder.train(report)
                progress.train(report)
            if validates(config, step) and (result := _validation(config, experiment, state)):
                recorder.evaluation(step, "val", result)
                recorder.clock(step, config.meta_batch, memory_mb(experiment.device))
                progress.validated(step, result)
                improved = better(metric, result.mean[-1], best.value)
                if improved:
                    best.step, best.value = step, result.mean[-1]
            signum = experiment.processes.largest(received(), experiment.device)
            if improved or last or step % config.checkpoint_every == 0 or signum:
                _save(config, experiment, state, best, rundir, recorder)
            progress.bar.update()
            if signum:
                name = signal.Signals(signum).name
                raise StoppedError(
                    f"{name}: stopped after outer step {step} of {config.outer_steps}, and saved; "
                    f"to go on: {rundir.resume_command}",
                    signum,
                )


def _test(config: Config, experiment: Experiment, best: Best, rundir: RunDir, recorder: Recorder) -> dict[str, Any]:
    """Meta-tests the best checkpoint, read back from disk.

    Raises:
        DivergedError: there is none, as no validation was finite; or a metric of the test is not.
    """
    if best.value is None:
        raise DivergedError(
            "no validation has a finite metric (after the last outer step): expected one to choose a checkpoint by; "
            "try a smaller algo.inner_lr or fewer algo.eval_inner_steps"
        )
    state = loop.start(experiment)
    restore(experiment, state, own_checkpoint(rundir, config, best.step))
    experiment.processes.from_first(state.meta)
    try:
        result = loop.meta_test(experiment, state.meta, "test", config.test_tasks, EVAL_BATCH)
    except DivergedError as error:
        error.objective = best.value if config.objective == "val" else None
        raise
    recorder.evaluation(best.step, "test", result)
    recorder.clock(config.outer_steps, config.meta_batch, memory_mb(experiment.device))
    recorder.sync()
    rundir.write("test_tasks.json", of_tasks(experiment, result))
    summary = summarize(config, experiment, state, result)
    metric = experiment.source.metric
    summary["settings"]["checkpoint"] = (
        f"outer step {best.step} of {config.outer_steps}, best by validation: {metric} {shown(metric, best.value)}"
    )
    return {
        **summary,
        "val": {metric: {"mean": best.value, "step": best.step, "tasks": config.val_tasks}},
        "objective": best.value if config.objective == "val" else result.mean[-1],
        "wall_seconds": recorder.seconds(),
    }


def _save(config: Config, experiment: Experiment, state: State, best: Best, rundir: RunDir, recorder: Recorder) -> None:
    payload = {
        **loop.snapshot(state),
        "config": config.fingerprint,
        "best": [best.step, best.value],
        "chunks": [experiment.engine.chunk, experiment.engine.eval_chunk],
        "split_hash": experiment.source.identity()["split_hash"],
        "metrics": recorder.metrics,
    }
    recorder.sync()
    checkpoint.save(rundir.checkpoints, state.step, payload, keep={best.step, best.saved})
    best.saved = best.step
    rundir.status("running")


def _failed(rundir: RunDir, error: BaseException) -> None:
    """Leaves the reason in status.json and the traceback in metarun.log; must not hide the error itself."""
    stopped = isinstance(error, (StoppedError, KeyboardInterrupt))
    message = str(error) or type(error).__name__
    try:
        log.error("%s", message, exc_info=None if stopped else error)
        rundir.status("stopped" if stopped else "failed", message)
    except OSError:
        pass  # a full disk is often the very error that is being reported
