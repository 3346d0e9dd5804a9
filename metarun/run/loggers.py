"""Live logs for tools that draw them while a run goes on, beside metrics.jsonl, which has everything anyway.

A logger is any object with open, log and close, as TensorBoard has them. It cannot end a run: what goes wrong in it is
said once, and the run goes on without it.
"""

import hashlib
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metarun.errors import SettingError, one_of
from metarun.intervals import Evaluation
from metarun.tasks import Metric
from metarun.text import reason

log = logging.getLogger("metarun")


class TensorBoard:
    """Event files in the folder `tensorboard` of the run directory: `tensorboard --logdir outputs`."""

    def __init__(self):
        _need("tensorboard")

    def open(self, folder: Path, title: str, config: dict[str, Any], step: int) -> None:
        """Begins in a run directory, or goes on after an outer step: what was logged beyond it is forgotten."""
        from torch.utils.tensorboard import SummaryWriter

        # Steps after this one, of a session that was killed, would be drawn beside those that replace them.
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self.writer.add_text("run", title, step)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Adds values by name, such as `val/accuracy`, after an outer step."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self, failed: bool) -> None:
        """Ends, and writes what is still to be written."""
        self.writer.close()


class WandB:
    """Weights & Biases. A run directory is one run there, also when it goes on later.

    Args:
        project: to log to.
        entity: user or team; None: the account's own.
        group: of runs, such as a sweep's name; None: none.
        mode: `online`, or `offline`: into the folder `wandb` of the run directory, for `wandb sync`.
    """

    def __init__(
        self, project: str = "metarun", entity: str | None = None, group: str | None = None, mode: str = "online"
    ):
        one_of("mode", mode, ["online", "offline"])
        _need("wandb")
        self.settings = {"project": project, "entity": entity, "group": group, "mode": mode}

    def open(self, folder: Path, title: str, config: dict[str, Any], step: int) -> None:
        """Begins, or goes on."""
        import wandb

        own = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        self.run = wandb.init(
            dir=str(folder),
            id=own,
            name=title,
            config=config,
            resume="allow",
            reinit="finish_previous",
            settings=wandb.Settings(console="off"),  # what goes to the terminal is in metarun.log
            **self.settings,
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        """Adds values by name after an outer step."""
        self.run.log(values, step=step)

    def close(self, failed: bool) -> None:
        """Ends."""
        self.run.finish(exit_code=int(failed))


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        remedy = f"pip install 'metarun[{package}]', or logger=null"
        raise SettingError(package, "_target_", f"the package {package}; {remedy}")


class Guarded:
    """A listener of the run that passes its events to a logger, until that fails."""

    def __init__(self, logger: Any, metric: Metric):
        self.logger, self.metric, self.step = logger, metric, 0

    def open(self, folder: Path, title: str, config: dict[str, Any], step: int) -> None:
        """Opens the logger."""
        self._try(lambda: self.logger.open(folder, title, config, step))

    def outer_step(self, step: int, values: dict[str, float]) -> None:
        """Logs the values of an outer step, if there are any."""
        if values:
            self._log(step, {f"train/{name}": value for name, value in values.items()})

    def evaluation(self, step: int, split: str, result: Evaluation) -> None:
        """Logs the metric over a split, and its interval."""
        self._log(step, {f"{split}/{self.metric}": result.mean[-1], f"{split}/ci95": result.ci95[-1]})

    def close(self, failed: bool) -> None:
        """Closes the logger."""
        self._try(lambda: self.logger.close(failed))

    def _log(self, step: int, values: dict[str, float]) -> None:
        self.step = max(step, self.step)  # a test is of an earlier step, and loggers want steps that do not go back
        self._try(lambda: self.logger.log(self.step, values))

    def _try(self, call: Callable[[], None]) -> None:
        if self.logger is None:
            return
        try:
            call()
        except Exception as error:
            log.warning("%s fails (%s); the run goes on without it", type(self.logger).__name__, reason(error))
            self.logger = None
