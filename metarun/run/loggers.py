"""Live logs for tools that draw them while a run goes on, beside metrics.jsonl, which has everything anyway.

A logger is opened when a run starts or goes on, told every event, and closed however the run ends. It must not end a
run: what goes wrong in it is said once, and the run goes on without it.
"""

import hashlib
import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from metarun.errors import SettingError, one_of

log = logging.getLogger("metarun")


class Logger(Protocol):
    """What a run tells its events to."""

    def open(self, folder: Path, title: str, config: dict[str, Any], step: int) -> None:
        """Begins, or goes on after outer step `step`: what was logged beyond it is to be forgotten.

        Args:
            folder: the run directory.
            title: of the run, for people.
            config: the run's, plain.
            step: outer steps done.
        """
        ...

    def log(self, step: int, values: dict[str, float]) -> None:
        """Values by name, such as `val/accuracy`, after an outer step."""
        ...

    def close(self, failed: bool) -> None:
        """Ends, and writes what is still to be written."""
        ...


class TensorBoard:
    """Event files in the folder `tensorboard` of the run directory: `tensorboard --logdir outputs`."""

    def __init__(self):
        _need("tensorboard", "tensorboard")

    def open(self, folder: Path, title: str, config: dict[str, Any], step: int) -> None:
        """See Logger."""
        from torch.utils.tensorboard import SummaryWriter

        # Steps after this one, of a session that was killed, would be drawn beside those that replace them.
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self.writer.add_text("run", title, step)

    def log(self, step: int, values: dict[str, float]) -> None:
        """See Logger."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self, failed: bool) -> None:
        """See Logger."""
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
        _need("wandb", "wandb")
        self.settings = {"project": project, "entity": entity, "group": group, "mode": mode}

    def open(self, folder: Path, title: str, config: dict[str, Any], step: int) -> None:
        """See Logger."""
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
        """See Logger."""
        self.run.log(values, step=step)

    def close(self, failed: bool) -> None:
        """See Logger."""
        self.run.finish(exit_code=int(failed))


def _need(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise SettingError(
            package, "_target_", f"the package {package}; pip install 'metarun[{extra}]', or logger=null"
        )


class Sink:
    """A logger that cannot end a run; without one it does nothing.

    Args:
        logger: or None.
    """

    def __init__(self, logger: Logger | None = None):
        self.logger, self.step = logger, 0

    @contextmanager
    def during(self, folder: Path, title: str, config: dict[str, Any], step: int) -> Iterator[None]:
        """Opens the logger, and closes it however the block ends. See Logger for the arguments."""
        self._try(lambda logger: logger.open(folder, title, config, step))
        failed = True
        try:
            yield
            failed = False
        finally:
            self._try(lambda logger: logger.close(failed))

    def log(self, step: int, values: dict[str, float]) -> None:
        """See Logger. The test is of an earlier step's checkpoint; loggers want steps that do not go back."""
        self.step = max(step, self.step)
        self._try(lambda logger: logger.log(self.step, values))

    def _try(self, call: Callable[[Logger], None]) -> None:
        if self.logger is None:
            return
        try:
            call(self.logger)
        except Exception as error:
            name = type(self.logger).__name__
            log.warning("%s fails (%s); the run goes on without it", name, " ".join(str(error).split())[:200])
            self.logger = None
