"""What a run says: metrics and timing as JSON lines, progress on the terminal or in the log, and the closing words."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from metarun.errors import RunDirError
from metarun.files import Appended, parse_json, read, write_atomically
from metarun.run.loggers import Sink
from metarun.storage.rundir import RunDir
from metarun.text import reason

if TYPE_CHECKING:  # they import torch, which who only reads runs need not wait for
    from metarun.engine.loop import Evaluation, OuterStep
    from metarun.tasks import Metric

LARGEST_TIMING = 100_000_000  # bytes

log = logging.getLogger("metarun")


def shown(metric: Metric | str, value: float, ci95: float | None = None) -> str:
    """A metric for people: accuracy in %, mean squared error as it is; with its interval if there is one."""
    if metric == "accuracy":
        return f"{100 * value:.1f}" + (f" ± {100 * ci95:.1f}" if ci95 is not None else "") + " %"
    return f"{value:.4g}" + (f" ± {ci95:.2g}" if ci95 is not None else "")


def events(text: str, metric: Metric | str) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl.

    Raises:
        ValueError: one is not as Recorder writes it; says which.
    """
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = parse_json(line)
            numbers = [row["step"], row[metric]]
            if row["split"] != "train":
                numbers += [row["ci95"], *row["by_step"]]
            sound = type(row["step"]) is int and all(type(n) in (int, float) and math.isfinite(n) for n in numbers)
            if row["split"] not in ("train", "val", "test") or not sound:
                raise ValueError("other values")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"line {number} is not an event ({type(error).__name__})") from error
        rows.append(row)
    return rows


class Recorder:
    """Writes metrics.jsonl and timing.jsonl.

    metrics.jsonl holds no clock: two runs of one config have the same bytes. Checkpoints carry its text, and a run that
    goes on begins by restoring it, whatever has become of the file. timing.jsonl is only added to, for that time was
    spent.

    Args:
        rundir: of the run.
        metric: of the task source.
        session: 0 for the run's first process, 1 for the one that continued it, and so on.
        step: outer steps done before this session.
        metrics: what metrics.jsonl held then.
        sink: is told every event too.
    """

    def __init__(self, rundir: RunDir, metric: Metric, session: int, step: int, metrics: str, sink: Sink | None = None):
        self.metric, self.session, self.first = metric, session, step
        self.sink = sink or Sink()
        self.lines = metrics.splitlines(keepends=True)
        write_atomically(rundir.metrics, metrics.encode())
        self.file = Appended(rundir.metrics)
        self.before, torn = _time_spent(rundir)
        self.timing = Appended(rundir.timing)
        if torn:
            self.timing.write(b"\n")
        self.began = time.monotonic()

    @property
    def metrics(self) -> str:
        """All of metrics.jsonl."""
        return "".join(self.lines)

    def event(self, step: int, split: str, values: dict[str, Any]) -> None:
        """One row of metrics.jsonl."""
        line = json.dumps({"step": step, "split": split, **values}, allow_nan=False) + "\n"
        self.lines.append(line)
        self.file.write(line.encode())

    def train(self, report: OuterStep) -> None:
        """The loss and the metric of one outer step, averaged over its meta-batch."""
        values = {"loss": float(report.loss), self.metric: float(report.score)}
        self.event(report.step, "train", values)
        self.sink.log(report.step, {f"train/{name}": value for name, value in values.items()})

    def evaluation(self, step: int, split: str, result: Evaluation) -> None:
        """The metric after the last inner step, its interval over tasks, and the whole adaptation curve."""
        values = {self.metric: result.mean[-1], "ci95": result.ci95[-1], "tasks": result.tasks, "by_step": result.mean}
        self.event(step, split, values)
        self.sink.log(step, {f"{split}/{name}": values[name] for name in (self.metric, "ci95")})

    def clock(self, step: int, meta_batch: int, memory_mb: int) -> None:
        """One row of timing.jsonl, about this session.

        Args:
            step: outer steps done.
            meta_batch: training tasks of each; tasks_per_second counts validation's time in, and its tasks not.
            memory_mb: peak of memory in MiB.
        """
        tasks = (step - self.first) * meta_batch
        seconds = time.monotonic() - self.began
        row = {"step": step, "session": self.session, "seconds": round(seconds, 3), "memory_mb": memory_mb}
        self.timing.write((json.dumps({**row, "tasks_per_second": round(tasks / seconds, 1)}) + "\n").encode())

    def seconds(self) -> float:
        """Seconds of all sessions of the run: of those before, to their latest clock()."""
        return round(self.before + time.monotonic() - self.began, 3)

    def sync(self) -> None:
        """Puts metrics.jsonl on disk."""
        self.file.sync()

    def close(self) -> None:
        """Closes both files."""
        self.file.close()
        self.timing.close()


def _time_spent(rundir: RunDir) -> tuple[float, bool]:
    """Seconds of the sessions so far, and whether the last line is torn. What cannot be read counts nothing."""
    try:
        text = read(rundir.timing, LARGEST_TIMING).decode(errors="replace")
    except FileNotFoundError:
        return 0.0, False
    except OSError as error:
        raise RunDirError(
            f"{rundir.timing}: cannot be read ({reason(error)}); expected it as metarun wrote it"
        ) from error
    sessions: dict[Any, float] = {}
    for line in text.splitlines():
        try:
            row = parse_json(line)
            seconds = float(row["seconds"])
            sessions[row["session"]] = seconds if math.isfinite(seconds) else 0.0
        except (KeyError, TypeError, ValueError, OverflowError):
            continue  # torn by a crash
    return sum(sessions.values()), not text.endswith("\n") and bool(text)


def last_timing(rundir: RunDir) -> dict[str, Any]:
    """Speed and memory of training, as its last clock() has them; {} where they cannot be read."""
    try:
        lines = read(rundir.timing, LARGEST_TIMING).decode().splitlines()
        row = parse_json(lines[-2] if len(lines) > 1 else lines[-1])  # the last one has the test in it
        sound = type(row["memory_mb"]) is int and math.isfinite(row["tasks_per_second"])
        return row if sound else {}
    except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError):
        return {}


class Progress:
    """A bar on a terminal; in a pipe and in sweeps, a log line for each validation.

    Args:
        metric: of the task source.
        total: outer steps in all.
        done: outer steps done already.
        bar: whether a bar is wanted where there is a terminal.
    """

    def __init__(self, metric: Metric, total: int, done: int, bar: bool):
        self.metric, self.total, self.first = metric, total, done
        self.began = time.monotonic()
        self.words: dict[str, str] = {}
        visible = bar and sys.stderr.isatty()
        self.bar = tqdm(
            total=total, initial=done, desc="meta-training", unit="step", dynamic_ncols=True, disable=not visible
        )

    def train(self, report: OuterStep) -> None:
        """Shows the training loss."""
        self.words["loss"] = f"{float(report.loss):.4g}"
        self.bar.set_postfix(self.words, refresh=False)

    def validated(self, step: int, result: Evaluation) -> None:
        """Shows a validation."""
        self.words["val"] = shown(self.metric, result.mean[-1])
        self.bar.set_postfix(self.words)
        if self.bar.disable:
            left = (time.monotonic() - self.began) / max(step - self.first, 1) * (self.total - step)
            value = shown(self.metric, result.mean[-1], result.ci95[-1])
            loss = f"  loss {self.words['loss']}" if "loss" in self.words else ""
            log.info("step %d/%d%s  val %s %s  %s left", step, self.total, loss, self.metric, value, duration(left))

    def close(self) -> None:
        """Removes nothing: the bar stays as it ended."""
        self.bar.close()


def duration(seconds: float) -> str:
    """Seconds for people."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def closing(summary: dict[str, Any]) -> str:
    """The closing words of a run or an evaluation: what ran, the result, what it depends on, where it is."""
    metric: Metric = summary["metric"]
    test = summary["test"][metric]
    last = len(test["by_step"]) - 1
    some = [k for k in range(last + 1) if last <= 12 or k in (1, 2, 5) or k % 10 == 0 or k == last]
    steps = "  ".join(f"{k}: {shown(metric, test['by_step'][k]['mean'])}" for k in some)
    lines = {
        "": summary["title"],
        "test": f"{metric} {shown(metric, test['mean'], test['ci95'])} (mean and 95% interval over "
        f"{test['tasks']} tasks)",
        **({"by step": f"{steps} (after that many inner steps)"} if len(test["by_step"]) > 1 else {}),
        **summary["settings"],
        **{name: summary[name] for name in ("files", "reproduce") if name in summary},
    }
    return "\n" + "\n".join(f"{name:<14}{text}".rstrip() if name else text for name, text in lines.items())
