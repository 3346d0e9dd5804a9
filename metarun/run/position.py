"""Says where a run is, by the clock: in status.json every two seconds, in metarun.log every minute, and on a terminal.

The run notes what it does, and a thread of rank 0 says it, also while one outer step takes a minute. The thread reads
what was noted, and computes nothing: results are the same without it.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from typing_extensions import Self

from metarun.config.schema import Config
from metarun.intervals import Evaluation
from metarun.run.pace import FIRST_LINE, LINES, TESTING, TRAINING, VALIDATING, Pace
from metarun.run.progress import Progress
from metarun.storage.records import Phase, Position
from metarun.storage.rundir import RunDir
from metarun.tasks import Metric

TICK = 1.0  # seconds within which a new activity is said
EVERY = 2.0  # seconds between positions in status.json
LONG = 10.0  # seconds that a test or a validation takes when its beginning is worth a line


class Reporter:
    """The position of a run; a listener of the run, and a context, in which its thread lives.

    Args:
        rundir: of the run.
        config: of the run.
        step: outer steps done.
        progress: the bar and the lines.
        now: gives seconds.
    """

    def __init__(
        self, rundir: RunDir, config: Config, step: int, progress: Progress, now: Callable[[], float] = time.monotonic
    ):
        self.rundir, self.progress, self.now = rundir, progress, now
        batch, val, test = config.meta_batch, config.val_tasks, config.test_tasks
        self.pace = Pace(config.outer_steps, config.val_every, batch, val, test, step, now=now)
        self.began, self._written, self._said = time.time(), (now(), self.pace.doing), now()
        self._line_at = now() + FIRST_LINE
        self.metric: Metric | None = None
        self.memory_mb: Callable[[], int] | None = None
        self.loss = self.score = self.validation = None
        self._end, self._writing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._tick_until_the_end, name="metarun position", daemon=True)

    def __enter__(self) -> Self:
        """Begins to say it."""
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Ends that: nothing is written afterwards."""
        self.close(kind is not None)

    def measure(self, metric: Metric, memory_mb: Callable[[], int]) -> None:
        """From now on says the metric, and the peak of memory in MiB."""
        self.metric, self.memory_mb = metric, memory_mb

    def begin(self, doing: str) -> None:
        """The run does something else from now on: a word of run/pace.py."""
        self.pace.begin(doing)
        expected = {VALIDATING: self.pace.seconds_of_validation, TESTING: self.pace.seconds_of_test}.get(doing)
        if (expected or 0) >= LONG and (doing == TESTING or self.now() - self._said >= LINES):
            self._say()

    def outer_step(self, step: int, values: dict[str, float]) -> None:
        """An outer step is done; `values` are the loss and the metric, where they are logged."""
        self.pace.outer_step(step)
        if self.pace.doing != TRAINING:  # the first one was compiled
            self.pace.begin(TRAINING)
        if values:
            assert self.metric is not None
            self.loss, self.score = values["loss"], values[self.metric]
        self.progress.advance()

    def evaluation(self, step: int, split: str, result: Evaluation) -> None:
        """Notes a validation."""
        if split == "val":
            self.validation = result.mean[-1]

    def close(self, failed: bool = False) -> None:
        """Ends the thread and the bar, which stays on the terminal as it ended."""
        if not self._end.is_set():
            self._end.set()
            self._thread.join()
            position = self.position().model_copy(update={"seconds_left": None})
            self.progress.close(position if failed else position.model_copy(update={"doing": "done"}))

    def position(self) -> Position:
        """Where the run is now."""
        left, speed = self.pace.seconds_left(), self.pace.tasks_per_second
        return Position(
            doing=self.pace.doing,
            began=self.began,
            updated=time.time(),
            seconds_left=None if left is None else round(left, 1),
            tasks_per_second=None if speed is None else float(f"{speed:.4g}"),
            memory_mb=self.memory_mb() if self.memory_mb else None,
            metric=self.metric,
            loss=self.loss,
            score=self.score,
            validation=self.validation,
        )

    def write(self, status: Phase, error: str | None = None, *, sync: bool = True) -> None:
        """Replaces status.json."""
        steps, position = self.pace.steps, self.position()
        if status != "running":
            position = position.model_copy(update={"seconds_left": None})
        with self._writing:  # two at once would take each other's temporary file away
            self.rundir.write_status(status, self.pace.step, error, steps=steps, position=position, sync=sync)

    def tick(self) -> None:
        """Says what it is time for. Raises OSError: the disk is full, say."""
        now, doing = self.now(), self.pace.doing
        self.progress.draw(self.position())
        if now >= self._line_at:
            self._say()
        if now - self._written[0] >= EVERY or doing != self._written[1]:
            self._written = now, doing
            self.write("running", sync=False)

    def _say(self) -> None:
        self._said = self.now()
        self._line_at = self._said + LINES
        self.progress.say(self.pace.step, self.position())

    def _tick_until_the_end(self) -> None:
        while not self._end.wait(TICK):
            with suppress(Exception):  # a full disk, say: the run will meet it, and must not look stale meanwhile
                self.tick()
