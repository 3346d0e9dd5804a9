"""A run from begin to end: start or resume, meta-train, meta-test, record, return the summary.

execute                     claims the directory; the starting point
Session.agree             all ranks: rank 0's state
Session.train             all ranks: outer steps, validations; a stop by a signal
Session.test              all ranks: the best checkpoint, which rank 0 reads
summary.json, pictures, status.json
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from metarun.config.keys import policy
from metarun.config.own_code import explaining
from metarun.config.schema import Config
from metarun.engine.device import memory_mb
from metarun.engine.loop import State
from metarun.engine.processes import Processes, joined
from metarun.errors import PrunedError, RunDirError, StoppedError, describe_os_error
from metarun.intervals import Evaluation
from metarun.run import pictures, starting_point
from metarun.run.build import build_loggers, choose_chunks, device_of
from metarun.run.environment import describe_session
from metarun.run.loggers import Guarded
from metarun.run.pace import COMPILING, DRAWING, MEASURING
from metarun.run.position import Reporter
from metarun.run.progress import Announcement, Progress
from metarun.run.session import Session
from metarun.run.signals import stop_at_once
from metarun.run.starting_point import StartingPoint
from metarun.run.summary import earlier_tests, facts, summarize, test_tasks_of
from metarun.run.words import describe_source
from metarun.storage import checkpoint
from metarun.storage.metrics import Recorder, parse_events
from metarun.storage.records import Environment, Summary, Validation
from metarun.storage.rundir import RunDir

log = logging.getLogger("metarun")


def execute(
    config: Config,
    folder: Path,
    overrides: list[str],
    choices: dict[str, str],
    hydra: Any = None,
    bar: bool = True,
    judge: Callable[[int, float], bool] | None = None,
    reproduces: Path | None = None,
) -> Summary | None:
    """Runs a config in a directory: from the start, or on from its newest checkpoint, or not at all if it is done.

    Overrides, Hydra's choices by group and its own config are saved; a run that goes on keeps those of its beginning.
    `bar` is whether the console shows how far it is, by a bar on a terminal or else by lines; `judge` says after an
    outer step, by its validation, whether the run is given up; `reproduces` is the directory of the run that it
    repeats, if it repeats one.

    Returns:
        The summary; None on ranks above 0.

    Raises:
        RunDirError: the directory holds another run, or one that is going on, or cannot be written.
        PrunedError: the run was given up.
        MetarunError: whatever stopped the run; status.json and metarun.log say so too.
    """
    rundir = RunDir(folder)
    with stop_at_once(f"to go on: {rundir.resume_command}"), joined(device_of(config)):
        if Processes().rank > 0:
            start = starting_point.first_step(config)
            session = Session(config, start.experiment, start.state, start.best, rundir)
            if session.agree():
                session.train()
                session.test()
            return None
        with rundir.claimed():
            return _execute(config, rundir, overrides, choices, hydra, bar, judge, reproduces)


def _execute(
    config: Config,
    rundir: RunDir,
    overrides: list[str],
    choices: dict[str, str],
    hydra: Any,
    bar: bool,
    judge: Callable[[int, float], bool] | None,
    reproduces: Path | None,
) -> Summary:
    """See execute(); on rank 0, in a directory that is claimed."""
    old, changes = starting_point.held_run(rundir, config)
    if old is not None and (summary := starting_point.finished_summary(rundir, config, changes)) is not None:
        log.info("%s is finished; this is its result", rundir.short)
        Processes().from_rank_zero(None)
        return summary
    words = Announcement(bar)
    begin = partial(words.begin, config, rundir.path)
    start = None
    if old is not None:  # it is left as it is until nothing is left that could be refused
        with words:
            start = starting_point.newest_step(old, config, rundir, changes, begin)
    if start is not None and not start.state.step:
        log.info("%s has no checkpoint: starting from the first outer step", rundir.short)
    step = start.state.step if start else 0
    reporter = Reporter(rundir, config, step, Progress(config.outer_steps, step, bar))
    with rundir.logging(), _recording_failure(rundir, reporter), explaining(), reporter:
        if old is None and rundir.holds_run:
            rundir.forget()
        rundir.begin(config, overrides, choices, hydra)
        reporter.write("running")
        if start is None:
            with words:
                start = starting_point.first_step(config, begin)
        session = _begin(config, rundir, start, changes, reporter, reproduces)
        session.judge = judge
        with session.listening():
            session.agree()
            session.train()
            summary = _sum_up(session, *session.test())
        rundir.write_status("done", config.outer_steps, steps=config.outer_steps)
        return summary


def _sum_up(session: Session, tested: State, result: Evaluation) -> Summary:
    """Writes test_tasks.json, the pictures and summary.json."""
    config, experiment, best, rundir = session.config, session.experiment, session.best, session.rundir
    assert session.recorder is not None
    assert best.value is not None
    session.begin(DRAWING)
    session.recorder.sync()
    rundir.write("test_tasks.json", test_tasks_of(experiment, result))
    metric = experiment.source.metric
    summary = summarize(config, experiment, tested, result, choices=rundir.choices()).model_copy(
        update={
            "validations": {metric: Validation(mean=best.value, step=best.step, tasks=config.val_tasks)},
            "objective": best.value if config.objective == "val" else result.mean[-1],
            "wall_seconds": session.recorder.seconds(),
            "earlier": earlier_tests(rundir.summary(), config.outer_steps),
        }
    )
    pictures.draw_examples(experiment, tested.meta, result.each, rundir.examples)
    rundir.write("summary.json", summary)
    pictures.draw_curves(parse_events(session.recorder.metrics, metric), summary, rundir.curve)
    return summary


@contextmanager
def _recording_failure(rundir: RunDir, reporter: Reporter) -> Iterator[None]:
    """Leaves the reason of a failure in status.json and the traceback in metarun.log."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, OSError):
            refused = describe_os_error(error)
            kept = f"a checkpoint that was saved is intact; to go on: {rundir.resume_command}"
            if not rundir.path.is_dir():
                refused = RunDirError(f"{rundir.short}: the run directory is gone; expected it to stay where it was")
                kept = "if it was moved, go on with it there: metarun resume DIR"
            refused = type(refused)(f"{refused}; {kept}")
            refused.__cause__ = error
            error = refused
        stopped = isinstance(error, (StoppedError, PrunedError, KeyboardInterrupt))
        message = str(error) or type(error).__name__
        try:
            log.error("%s", message, exc_info=None if stopped else error)
            reporter.write("stopped" if stopped else "failed", message)
        except OSError:
            pass  # a full disk is often the very error that is being reported
        raise error


def _begin(
    config: Config,
    rundir: RunDir,
    start: StartingPoint,
    changes: list[str],
    reporter: Reporter,
    reproduces: Path | None,
) -> Session:
    """The session of rank 0, with its listeners; environment.json has it then."""
    experiment, state = start.experiment, start.state
    if state.step and (with_other_digits := [key for key in changes if policy(key).digits]):
        longer = [key for key in with_other_digits if policy(key).length]
        stretched = longer and experiment.algorithm.scheduled
        why = f" (its schedules now run over the new {longer[0]})" if stretched else ""
        log.warning(
            "going on with other %s: the result may differ from an uninterrupted run's%s",
            ", ".join(with_other_digits),
            why,
        )
    if state.step:
        log.info("going on after outer step %d of %d", state.step, config.outer_steps)
        checkpoint.drop_after(rundir.checkpoints, state.step)
    reporter.begin(COMPILING if experiment.engine.mode == "compile" else MEASURING)
    state.chunks = state.chunks or choose_chunks(config, experiment, state)
    metric = experiment.source.metric
    reporter.measure(metric, lambda: memory_mb(experiment.device))
    recorder = Recorder(
        rundir,
        metric,
        meta_batch=config.meta_batch,
        memory_mb=lambda: memory_mb(experiment.device),
        session=_record_environment(config, rundir, start, changes, reproduces),
        step=state.step,
        metrics=start.metrics,
    )
    session = Session(config, experiment, state, start.best, rundir, recorder, reporter)
    session.listeners += [recorder, reporter]
    source, *_ = facts(experiment)
    title = f"{experiment.algorithm.name} on {describe_source(source)}"
    for guarded in (Guarded(logger, metric) for logger in build_loggers(config)):
        guarded.open(rundir.path, title, config.plain(), state.step)
        session.listeners.append(guarded)
    return session


def _record_environment(
    config: Config, rundir: RunDir, start: StartingPoint, changes: list[str], reproduces: Path | None
) -> int:
    """Writes environment.json, or adds to it where a run goes on; returns how many sessions there were before."""
    now, before = describe_session(config, start.experiment, start.state.chunks), rundir.environment()
    if before is None:
        original = str(reproduces) if reproduces else None
        rundir.write("environment.json", Environment(**now.model_dump(), reproduces=original))
        return 0
    if not start.state.step:  # nothing is left of what the sessions before made, perhaps of other data and code
        made = {name: getattr(now, name) for name in type(now).model_fields if name != "argv"}
        before = before.model_copy(update=made)
    inputs = None if now.inputs == before.inputs else now.inputs  # they can be long, and sessions many
    now = now.model_copy(update={"after_step": start.state.step, "changed": changes, "inputs": inputs})
    rundir.write("environment.json", before.model_copy(update={"continued": [*before.continued, now]}))
    return len(before.continued) + 1
