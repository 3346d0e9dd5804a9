"""Live logs for tools that draw them while a run goes on, beside metrics.jsonl, which has everything anyway.

A logger is any object with open, log and close, as TensorBoard has them. It cannot end a run: what goes wrong in it is
said once, and the run goes on without it.
"""

import hashlib
import importlib.util
import json
import logging
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from metarun.config.keys import leaves
from metarun.errors import SettingError, one_of
from metarun.files import read, write_atomically
from metarun.intervals import Evaluation
from metarun.tasks import Metric
from metarun.text import reason

MLFLOW = "outputs/mlflow"  # the store of the working directory
PATIENCE = 5  # seconds that values wait for others, for a database takes them much faster together
SMALL = 64_000  # bytes
MOST = 100  # values that a store of MLflow's takes at once

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


class MLflow:
    """MLflow. A run directory is one run there, also when it goes on later: `mlflow/run.json` in it has its number.

    The settings are its parameters, by dotted key. Those that are others when the run goes on are tags `resumed.KEY`,
    for MLflow lets no parameter change.

    Args:
        experiment: the name under which the runs stand.
        tracking_uri: of a server or a database; None: the environment's MLFLOW_TRACKING_URI, else a database in the
            folder outputs/mlflow of the working directory.
    """

    def __init__(self, experiment: str = "metarun", tracking_uri: str | None = None):
        _need("mlflow")
        if not experiment:
            raise SettingError(experiment, "experiment", "a name")
        if tracking_uri is not None and not re.match(r"[a-z][a-z0-9+]*:|databricks$", tracking_uri):
            raise SettingError(
                tracking_uri, "tracking_uri", "http://localhost:5000, sqlite:////home/me/runs.db or such"
            )
        self.experiment = experiment
        self.uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")

    def open(self, folder: Path, title: str, config: dict[str, Any], step: int) -> None:
        """Begins, or goes on."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        for noisy in ("mlflow", "alembic"):  # they say each table that they make
            logging.getLogger(noisy).setLevel(logging.WARNING)
        local = Path(MLFLOW).absolute()
        if self.uri is None:
            local.mkdir(parents=True, exist_ok=True)
        uri = self.uri or f"sqlite:///{local}/mlflow.db"
        self.client, self.waiting, self.sent = MlflowClient(uri), [], time.monotonic()
        settings = {key: str(value)[:500] for key, value in leaves(config)}
        if step and self._find(folder, uri):
            before = self.client.get_run(self.run).data.params
            self.client.update_run(self.run, status="RUNNING")
            for key in (key for key in settings if before.get(key) != settings[key]):
                self.client.set_tag(self.run, f"resumed.{key}", settings[key])
            return
        tags = {"metarun.folder": str(folder)}
        place = None if self.uri else local.joinpath("artifacts").as_uri()
        self.run = self.client.create_run(self._experiment(place), run_name=title, tags=tags).info.run_id
        for key, value in settings.items():
            self.client.log_param(self.run, key, value)
        (folder / "mlflow").mkdir(exist_ok=True)
        number = json.dumps({"tracking_uri": uri, "run_id": self.run})
        write_atomically(folder / "mlflow" / "run.json", number.encode())

    def log(self, step: int, values: dict[str, float]) -> None:
        """Adds values by name after an outer step."""
        from mlflow.entities import Metric as Value

        now = round(1000 * time.time())
        self.waiting += [Value(name, value, now, step) for name, value in values.items()]
        if time.monotonic() - self.sent > PATIENCE or len(self.waiting) > MOST:
            self._send()

    def close(self, failed: bool) -> None:
        """Ends, and writes what is still to be written."""
        self._send()
        self.client.set_terminated(self.run, "FAILED" if failed else "FINISHED")

    def _send(self) -> None:
        while self.waiting:
            self.client.log_batch(self.run, metrics=self.waiting[:MOST])
            del self.waiting[:MOST]
        self.sent = time.monotonic()

    def _find(self, folder: Path, uri: str) -> bool:
        """Whether the run is there already; if so, its number is known then."""
        try:
            saved = json.loads(read(folder / "mlflow" / "run.json", SMALL))
            if saved["tracking_uri"] != uri:
                return False
            self.run = self.client.get_run(saved["run_id"]).info.run_id
        except Exception as error:  # a file is gone or damaged, or the run was removed from the store
            log.info("MLflow: begins a new run, for the one before is not found (%s)", reason(error))
            return False
        return True

    def _experiment(self, place: str | None) -> str:
        """The number of the experiment, which may be new; another job of a sweep may make it at the same time."""
        for _ in range(2):
            if (found := self.client.get_experiment_by_name(self.experiment)) is not None:
                return found.experiment_id
            with suppress(Exception):
                return self.client.create_experiment(self.experiment, artifact_location=place)
        return self.client.create_experiment(self.experiment, artifact_location=place)


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
