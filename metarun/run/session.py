"""A process of a run: it trains, validates, saves and tests, and tells the listeners of it.

All ranks take this path, and make the same collective calls in the same order. Rank 0 alone has a directory to write
and listeners.
"""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from metarun.config.schema import Config
from metarun.engine import loop
from metarun.engine.chunking import Chunks
from metarun.engine.loop import Experiment, State
from metarun.errors import DivergedError, PrunedError, StoppedError
from metarun.intervals import Evaluation
from metarun.models.adopt import frozen_digest
from metarun.run import starting_point
from metarun.run.loggers import Guarded
from metarun.run.pace import COMPILING, TESTING, TRAINING, VALIDATING
from metarun.run.position import Reporter
from metarun.run.signals import stop_between_steps
from metarun.run.starting_point import Best
from metarun.storage import checkpoint
from metarun.storage.metrics import Recorder
from metarun.storage.rundir import RunDir
from metarun.tasks import better
from metarun.text import format_metric

log = logging.getLogger("metarun")


def validates(config: Config, step: int) -> bool:
    """Whether there is a validation after this outer step."""
    return step % config.val_every == 0 or step == config.outer_steps


@dataclass
class Session:
    """A process of a run. Ranks above 0 have no recorder, no reporter and no listeners."""

    config: Config
    experiment: Experiment
    state: State
    best: Best
    rundir: RunDir
    recorder: Recorder | None = None
    reporter: Reporter | None = None
    judge: Callable[[int, float], bool] | None = None  # of a search: whether to give the run up, see run/judge.py
    listeners: list[Recorder | Reporter | Guarded] = field(default_factory=list)  # those two among them

    @cached_property
    def frozen(self) -> str:
        """The digest of what of the learner stays as it is, for checkpoints."""
        return frozen_digest(self.experiment.algorithm.model)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Closes the listeners at the end, which learn whether it failed."""
        failed = True
        try:
            yield
            failed = False
        finally:
            for listener in self.listeners:
                listener.close(failed)

    def agree(self) -> bool:
        """Gives all ranks rank 0's state, chunks and best validation; False where rank 0 has nothing left to do."""
        state, best = self.state, self.best
        begin = None
        if self.recorder:
            assert state.chunks is not None
            begin = loop.snapshot(state), tuple(state.chunks), (best.step, best.value)
        begin = self.experiment.processes.from_rank_zero(begin)
        if begin is None:
            return False
        if self.recorder is None:
            snapshot, chunks, (best.step, best.value) = begin
            loop.restore(state, snapshot)
            state.chunks = Chunks(*chunks)
        return True

    def train(self) -> None:
        """Meta-trains, validates and saves, until all outer steps are done or a signal comes.

        Raises:
            StoppedError: a signal came; the checkpoint of the step is saved.
            PrunedError: the judge gave the run up; so is it then.
        """
        config, experiment = self.config, self.experiment
        self.begin(COMPILING if experiment.engine.mode == "compile" else TRAINING)
        with stop_between_steps() as received:
            self._validate_last()
            for report in loop.meta_train(experiment, self.state, config.outer_steps, config.meta_batch):
                step, values = report.step, {}
                if step % config.log_every == 0:
                    values = {"loss": float(report.loss), experiment.source.metric: float(report.score)}
                for listener in self.listeners:
                    listener.outer_step(step, values)
                value = None
                if validates(config, step):
                    self.begin(VALIDATING)
                    value = self._validate()
                    self.begin(TRAINING)
                improved = value is not None and self._keep_if_best(value)
                pruned = (
                    bool(value is not None and self.judge and self.judge(step, value)) and step < config.outer_steps
                )
                signum = experiment.processes.largest(received(), experiment.device)
                if improved or pruned or signum or step == config.outer_steps or step % config.checkpoint_every == 0:
                    self._save()
                if pruned:
                    metric = experiment.source.metric
                    raise PrunedError(
                        f"pruned after outer step {step} of {config.outer_steps}, with val {metric} "
                        f"{format_metric(metric, value)}; to go on: {self.rundir.resume_command}"
                    )
                self._stop_at(signum)
            self._stop_at(experiment.processes.largest(received(), experiment.device))  # it came after the last step

    def _stop_at(self, signum: int) -> None:
        """Raises StoppedError for a signal that has come, once the state is saved."""
        if signum:
            raise StoppedError(
                f"{signal.Signals(signum).name}: stopped after outer step {self.state.step} of "
                f"{self.config.outer_steps}, and saved; to go on: {self.rundir.resume_command}",
                signum,
            )

    def _validate_last(self) -> None:
        """Validates and saves the state to begin with where it is the last, and was not when it was saved."""
        processes, step = self.experiment.processes, self.state.step
        if step == self.config.outer_steps and not processes.from_rank_zero(
            self.recorder is not None and self.recorder.has_validation(step)
        ):
            self.begin(VALIDATING)
            value = self._validate()
            self.begin(TRAINING)
            if value is not None and self._keep_if_best(value):
                self._save()

    def _validate(self) -> float | None:
        """Validates the present state; returns the metric, or None where it is not finite.

        A metric that is not finite is not the end of a run: one task on which the inner loop leaves all bounds says
        little about training, whose own losses are seen to. It only means that this checkpoint is no good.
        """
        config, experiment, state = self.config, self.experiment, self.state
        try:
            result = loop.meta_test(experiment, state.meta, "val", config.val_tasks, state.chunks)
        except DivergedError as error:
            log.warning("step %d/%d  no validation: %s", state.step, config.outer_steps, error)
            return None
        self._tell(state.step, "val", result)
        return result.mean[-1]

    def _keep_if_best(self, value: float) -> bool:
        """Whether this validation of the present state is the best so far, which it then stays."""
        if not better(self.experiment.source.metric, value, self.best.value):
            return False
        self.best.step, self.best.value = self.state.step, value
        return True

    def _save(self) -> None:
        """Saves a checkpoint of the present state."""
        if self.recorder is None:
            return
        step, best = self.state.step, self.best
        payload = {
            **loop.snapshot(self.state),
            "config": self.config.fingerprint,
            "best": [best.step, best.value],
            "chunks": list(self.state.chunks or ()),
            "split_hash": self.experiment.source.identity()["split_hash"],
            "metrics": self.recorder.metrics,
            "frozen": self.frozen,
        }
        self.recorder.sync()
        checkpoint.save(self.rundir.checkpoints, step, payload, keep={best.step, best.saved})
        best.saved = best.step

    def test(self) -> tuple[State, Evaluation]:
        """Meta-tests the best checkpoint, which rank 0 reads back from disk; returns its state and its result.

        Raises:
            DivergedError: there is none, as no validation was finite; or a metric of the test is not.
        """
        config, experiment, best = self.config, self.experiment, self.best
        if best.value is None:
            raise DivergedError(
                "no validation has a finite metric (after the last outer step): expected one to choose a checkpoint "
                "by; see above what to try"
            )
        self.begin(TESTING)
        state = loop.start(experiment)
        if self.recorder:
            saved = starting_point.own_checkpoint(self.rundir, config, best.step)
            starting_point.restore(experiment, state, saved)
        meta = experiment.processes.from_rank_zero(state.meta)
        state.meta = {name: value.to(experiment.device) for name, value in meta.items()}
        try:
            result = loop.meta_test(experiment, state.meta, "test", config.test_tasks, self.state.chunks)
        except DivergedError as error:
            error.objective = best.value if config.objective == "val" else None
            raise
        self._tell(best.step, "test", result)
        return state, result

    def begin(self, doing: str) -> None:
        """Says what the run does from now on, a word of run/pace.py."""
        if self.reporter:
            self.reporter.begin(doing)

    def _tell(self, step: int, split: str, result: Evaluation) -> None:
        """Tells the listeners of a validation or a test."""
        for listener in self.listeners:
            listener.evaluation(step, split, result)
