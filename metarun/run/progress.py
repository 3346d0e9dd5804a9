"""How far a run is: a bar on a terminal, or lines in the log."""

import logging
import sys
import time

from tqdm import tqdm

from metarun.intervals import Evaluation
from metarun.tasks import Metric
from metarun.text import format_duration, format_metric

log = logging.getLogger("metarun")


class Progress:
    """A bar on a terminal; in a pipe and in sweeps, a log line for each validation. A listener of the run.

    Of `total` outer steps `done` are done already; `bar` is whether a bar is wanted where there is a terminal.
    """

    def __init__(self, metric: Metric, total: int, done: int, bar: bool):
        self.metric, self.total, self.steps_before = metric, total, done
        self.began = time.monotonic()
        self.postfix: dict[str, str] = {}
        disable = not (bar and sys.stderr.isatty())
        self.bar = tqdm(
            total=total, initial=done, desc="meta-training", unit="step", dynamic_ncols=True, disable=disable
        )

    def outer_step(self, step: int, values: dict[str, float]) -> None:
        """Moves the bar, and shows the training loss."""
        if values:
            self.postfix["loss"] = f"{values['loss']:.4g}"
            self.bar.set_postfix(self.postfix, refresh=False)
        self.bar.update()

    def evaluation(self, step: int, split: str, result: Evaluation) -> None:
        """Shows a validation, with the time that is left."""
        if split != "val":
            return
        self.postfix["val"] = format_metric(self.metric, result.mean[-1])
        self.bar.set_postfix(self.postfix)
        if self.bar.disable:
            left = (time.monotonic() - self.began) / max(step - self.steps_before, 1) * (self.total - step)
            value = format_metric(self.metric, result.mean[-1], result.ci95[-1])
            loss = f"  loss {self.postfix['loss']}" if "loss" in self.postfix else ""
            log.info(
                "step %d/%d%s  val %s %s  %s left", step, self.total, loss, self.metric, value, format_duration(left)
            )

    def close(self, failed: bool = False) -> None:
        """Closes the bar, which stays on the terminal as it ended."""
        self.bar.close()
