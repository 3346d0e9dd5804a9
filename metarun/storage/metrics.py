"""metrics.jsonl and timing.jsonl: one JSON object for each event.

metrics.jsonl holds no clock: two runs of one config have the same bytes. Checkpoints carry its text, and a run that
goes on begins by restoring it, whatever has become of the file. timing.jsonl is only added to, for that time was spent.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from metarun.errors import RunDirError
from metarun.files import Appended, read, write_atomically
from metarun.intervals import Evaluation
from metarun.storage.records import Count, Metric, Record
from metarun.storage.rundir import RunDir
from metarun.text import reason

LARGEST = 250_000_000  # bytes
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Event:
    """A row of metrics.jsonl."""

    step: int  # outer steps done; of a test, those of the checkpoint that was tested
    split: Split
    value: float  # the metric: in training over one meta-batch, else over the split, after the last inner step
    loss: float | None = None  # the mean meta-loss; training only
    ci95: float | None = None  # half the width of the 95% interval over tasks; None in training
    by_step: list[float] = field(default_factory=list)  # the metric after 0..K inner steps; [] in training


class _Row(Record):
    """An event as its line has it."""

    step: Count
    split: Split
    accuracy: float | None = None
    mse: float | None = None
    loss: float | None = None
    ci95: float | None = None
    by_step: list[float] = Field(default=[])


class Timing(Record):
    """A row of timing.jsonl, about one session of a run."""

    step: Count  # outer steps done
    session: Count  # 0 for the run's first process, 1 for the one that continued it, and so on
    seconds: float  # since the session began
    memory_mb: Count  # peak, in MiB
    tasks_per_second: float  # training tasks; the time of validation counts, its tasks do not


def parse_events(text: str, metric: Metric) -> list[Event]:
    """The events in the text of a metrics.jsonl. Raises ValueError, with the number of a line that is no event."""
    events = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = _Row.from_json(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not an event ({error})") from error
        value = getattr(row, metric)
        if value is None or (row.split != "train" and (row.ci95 is None or not row.by_step)):
            raise ValueError(f"line {number} is not an event (a value is missing)")
        events.append(Event(row.step, row.split, value, row.loss, row.ci95, row.by_step))
    return events


def read_metrics(rundir: RunDir) -> str:
    """The text of metrics.jsonl. Raises RunDirError: it cannot be read, or is no text."""
    try:
        return read(rundir.metrics, LARGEST).decode()
    except (OSError, ValueError) as error:
        raise _refusal(rundir.metrics, reason(error)) from error


def read_events(rundir: RunDir, metric: Metric) -> list[Event]:
    """The events of a run. Raises RunDirError: metrics.jsonl cannot be read, or holds something else."""
    try:
        return parse_events(read_metrics(rundir), metric)
    except ValueError as error:
        raise _refusal(rundir.metrics, str(error)) from error


def _refusal(path: Path, why: str) -> RunDirError:
    return RunDirError(
        f"{path}: cannot be read ({why}): expected JSON lines, as metarun wrote them; restore it from a copy"
    )


def last_timing(rundir: RunDir) -> Timing | None:
    """Speed and memory of training, before the test; None where they cannot be read."""
    try:
        rows, _ = _read_timing(rundir)
    except RunDirError:
        return None
    return rows[-2:][0] if rows else None  # the last one has the test in it


def _read_timing(rundir: RunDir) -> tuple[list[Timing], bool]:
    """The rows of timing.jsonl without lines that a crash has torn, and whether the last line is one."""
    try:
        content = read(rundir.timing, LARGEST)
    except FileNotFoundError:
        return [], False
    except OSError as error:
        raise _refusal(rundir.timing, reason(error)) from error
    rows = []
    for line in content.splitlines():
        with suppress(ValueError):
            rows.append(Timing.from_json(line))
    return rows, content[-1:] not in (b"", b"\n")


class Recorder:
    """Writes metrics.jsonl and timing.jsonl; a listener of the run.

    An outer step has `meta_batch` tasks; `memory_mb` gives the peak of memory so far, in MiB. Before there were
    `session` sessions of the run, which did `step` outer steps and left the text `metrics`.
    """

    def __init__(
        self,
        rundir: RunDir,
        metric: Metric,
        *,
        meta_batch: int,
        memory_mb: Callable[[], int],
        session: int = 0,
        step: int = 0,
        metrics: str = "",
    ):
        self.metric, self.meta_batch, self.memory_mb, self.session = metric, meta_batch, memory_mb, session
        self.step, self.done = step, 0  # outer steps of the run, and of this session: of some algorithms only the last
        self.lines = metrics.splitlines(keepends=True)
        write_atomically(rundir.metrics, metrics.encode())
        self.file = Appended(rundir.metrics)
        rows, torn = _read_timing(rundir)
        self.before = math.fsum({row.session: row.seconds for row in rows}.values())
        self.timing = Appended(rundir.timing)
        if torn:
            self.timing.write(b"\n")
        self.began = time.monotonic()

    @property
    def metrics(self) -> str:
        """All of metrics.jsonl."""
        return "".join(self.lines)

    def has_validation(self, step: int) -> bool:
        """Whether there is a row for a validation after this outer step."""
        return any((row["step"], row["split"]) == (step, "val") for row in map(json.loads, self.lines))

    def outer_step(self, step: int, values: dict[str, float]) -> None:
        """An outer step is done; a row if there are values: the loss and the metric, over its meta-batch."""
        self.step = step
        self.done += 1
        if values:
            self._write_event(step, "train", values)

    def evaluation(self, step: int, split: str, result: Evaluation) -> None:
        """Writes the metric after the last inner step, its interval over tasks, the adaptation curve; and the clock."""
        values = {self.metric: result.mean[-1], "ci95": result.ci95[-1], "tasks": result.tasks, "by_step": result.mean}
        self._write_event(step, split, values)
        seconds = time.monotonic() - self.began
        tasks = self.done * self.meta_batch
        row = {"step": self.step, "session": self.session, "seconds": round(seconds, 3), "memory_mb": self.memory_mb()}
        self.timing.write((json.dumps({**row, "tasks_per_second": round(tasks / seconds, 1)}) + "\n").encode())

    def _write_event(self, step: int, split: str, values: dict[str, Any]) -> None:
        line = json.dumps({"step": step, "split": split, **values}, allow_nan=False) + "\n"
        self.lines.append(line)
        self.file.write(line.encode())

    def seconds(self) -> float:
        """Seconds of all sessions of the run: of those before, to their latest clock."""
        return round(self.before + time.monotonic() - self.began, 3)

    def sync(self) -> None:
        """Puts metrics.jsonl on disk."""
        self.file.sync()

    def close(self, failed: bool = False) -> None:
        """Closes both files."""
        self.file.close()
        self.timing.close()
