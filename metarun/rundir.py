"""A run directory: claimed by one process at a time, and the only place that a run writes to."""

import fcntl
import json
import logging
import os
import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from metarun.config import Config, checked, dump, fingerprint, read_saved
from metarun.errors import RunDirError
from metarun.files import write_atomically

log = logging.getLogger("metarun")


class RunDir:
    """The files of a run, by name.

    Args:
        path: the directory.
    """

    def __init__(self, path: Path):
        self.path = path.resolve()
        self.step = 0  # outer steps done, for status.json
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.plot = self.path / "curve.png"

    def config(self) -> Config:
        """The saved config.

        Raises:
            RunDirError: there is none, or it is not one, or it is no longer the one that was run.
        """
        config = checked(read_saved(self.path / ".hydra" / "config.yaml"))
        if self.read("environment.json").get("config", now := fingerprint(config.plain())) != now:
            raise RunDirError(
                f"{self.shown}: .hydra/config.yaml was changed since the run began; expected the config that was run; "
                "undo that, or start a new run from it: metarun -cp"
            )
        return config

    @property
    def shown(self) -> Path:
        """The path as a person would type it: relative where it lies below the working directory."""
        return self.path.relative_to(Path.cwd()) if self.path.is_relative_to(Path.cwd()) else self.path

    @property
    def resume_command(self) -> str:
        """What to type to go on with the run."""
        return f"metarun resume {shlex.quote(str(self.shown))}"

    @property
    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / ".hydra" / "config.yaml").exists()

    def begin(self, config: Config, overrides: list[str], hydra: Any = None) -> None:
        """Saves the config as Hydra does, resolved; config.yaml comes last and makes this a run.

        A run that goes on keeps the words that it was begun with.
        """
        if self.holds_run:
            write_atomically(self.path / ".hydra" / "config.yaml", dump(config.plain()).encode())
            return
        folder = self.path / ".hydra"
        folder.mkdir(exist_ok=True)
        write_atomically(folder / "overrides.yaml", dump(overrides).encode())
        if hydra is not None:
            write_atomically(folder / "hydra.yaml", dump({"hydra": hydra}).encode())
        write_atomically(folder / "config.yaml", dump(config.plain()).encode())

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the run; {} where there is none.

        Raises:
            RunDirError: it is not JSON.
        """
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunDirError(
                f"{self.path / name}: cannot be read ({error}); expected JSON, as metarun wrote it"
            ) from error
        if not isinstance(content, dict):
            raise RunDirError(f"{self.path / name}: expected a JSON object, as metarun wrote it")
        return content

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Replaces a JSON file of the run."""
        write_atomically(self.path / name, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())

    def status(self, status: str, error: str | None = None) -> None:
        """Replaces status.json: running, done, failed or stopped."""
        where = {"pid": os.getpid(), "host": socket.gethostname()}
        self.write("status.json", {"status": status, "step": self.step, "error": error, **where})

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Holds the directory; the kernel lets go of it when the process ends, however it ends.

        Raises:
            RunDirError: another process holds it, or it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise RunDirError(
                f"{self.path} ({error.strerror}): expected a directory that can be written; choose another "
                f"hydra.run.dir"
            ) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                by = self.read("status.json")
                raise RunDirError(
                    f"{self.path}: in use by process {by.get('pid')} on {by.get('host')}; wait for it, or "
                    f"choose another hydra.run.dir"
                ) from error
            yield
        finally:
            os.close(handle)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Sends metarun's log to metarun.log as well."""
        handler = logging.FileHandler(self.path / "metarun.log", encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)
            handler.close()


def fresh(parent: Path) -> Path:
    """Makes and returns `parent/<date>/<time>`, which no other process gets too.

    Raises:
        RunDirError: it cannot be made.
    """
    while True:
        path = parent / datetime.now().strftime("%Y-%m-%d/%H-%M-%S-%f")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            return path
        except FileExistsError:
            if not path.is_dir():
                raise RunDirError(f"{parent}: is a file; expected a folder for run directories") from None
        except OSError as error:
            raise RunDirError(
                f"{path} ({error.strerror}): expected a folder that can be written; set hydra.run.dir"
            ) from error
