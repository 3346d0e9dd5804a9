"""A process of a run: what it trains, how far it is, and the listeners that it tells."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from metarun.config.schema import Config
from metarun.engine import loop
from metarun.engine.chunking import Chunks
from metarun.engine.loop import Evaluation, Experiment, State
from metarun.run.loggers import Guarded
from metarun.run.progress import Progress
from metarun.run.starting_point import Best
from metarun.storage import checkpoint
from metarun.storage.metrics import Recorder
from metarun.storage.rundir import RunDir


@dataclass
class Session:
    """A process of a run.

    Attributes:
        config: of the run.
        experiment: what is trained.
        state: of meta-training.
        best: the best validation so far.
        rundir: of the run.
        recorder: of metrics and timing; None on ranks above 0, which write nothing.
        listeners: of the run's events: the recorder, the progress, a logger; none on ranks above 0.
    """

    config: Config
    experiment: Experiment
    state: State
    best: Best
    rundir: RunDir
    recorder: Recorder | None = None
    listeners: list[Recorder | Progress | Guarded] = field(default_factory=list)

    def outer_step(self, report: loop.OuterStep) -> None:
        """Tells the listeners of an outer step, every log_every steps with its loss and metric."""
        values = {}
        if report.step % self.config.log_every == 0:
            values = {"loss": float(report.loss), self.experiment.source.metric: float(report.score)}
        for listener in self.listeners:
            listener.outer_step(report.step, values)

    def evaluation(self, step: int, split: str, result: Evaluation) -> None:
        """Tells the listeners of a validation or a test."""
        for listener in self.listeners:
            listener.evaluation(step, split, result)

    def save(self) -> None:
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
        }
        self.recorder.sync()
        checkpoint.save(self.rundir.checkpoints, step, payload, keep={best.step, best.saved})
        best.saved = best.step
        self.rundir.write_status("running", step)

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
