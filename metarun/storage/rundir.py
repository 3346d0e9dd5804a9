"""A run directory: claimed by one process at a time, and the only place that a run writes to."""

import fcntl
import json
import logging
import math
import os
import re
import shlex
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from metarun.config.saved import dump, saved_config
from metarun.config.schema import Config
from metarun.errors import RunDirError
from metarun.files import Appended, parse_json, read, write_atomically
from metarun.text import reason

LARGEST_JSON, LARGEST_METRICS = 10_000_000, 250_000_000  # bytes
# All that metarun writes there.
FOLDERS = (".hydra", "checkpoints", "eval", "tensorboard", "wandb")
FILES = (
    *("status.json", "environment.json", "metrics.jsonl", "timing.jsonl", "summary.json", "test_tasks.json"),
    *("metarun.log", "curve.png"),
)

log = logging.getLogger("metarun")


class RunDir:
    """The files of a run, by name.

    Args:
        path: the directory.

    Raises:
        RunDirError: a name that metarun uses there is a link, or something else than metarun would make.
    """

    def __init__(self, path: Path):
        self.path = path.resolve()
        for name in (*FOLDERS, *FILES):
            self._check_kind(self.path / name, "folder" if name in FOLDERS else "file")
        self.step = 0  # outer steps done, for status.json
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.plot = self.path / "curve.png"

    def _check_kind(self, path: Path, kind: str) -> None:
        """A link in a stranger's directory could lead us to write elsewhere, and a pipe would keep us waiting."""
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            return
        if not (stat.S_ISDIR(mode) if kind == "folder" else stat.S_ISREG(mode)):
            found = "a symbolic link" if stat.S_ISLNK(mode) else "something else"
            raise RunDirError(f"{path}: {found}; expected a {kind}, as metarun made it; put that in its place")

    def config(self) -> Config:
        """The saved config.

        Raises:
            RunDirError: there is none, or it is not one, or it is no longer the one that was run.
        """
        config = saved_config(self.path / ".hydra" / "config.yaml")
        if self.read("environment.json").get("config", now := config.fingerprint) != now:
            raise RunDirError(
                f"{self.shown}: .hydra/config.yaml was changed since the run began; expected the config that was run; "
                f"undo that, or start a new run from it: metarun -cp {self.typed}/.hydra"
            )
        return config

    @property
    def shown(self) -> Path:
        """The path as a person would type it: relative where it lies below the working directory."""
        return shown(self.path)

    @property
    def typed(self) -> str:
        """The path for a command line: no shell and no option can mistake it."""
        shown = str(self.shown)
        return shlex.quote(f"./{shown}" if shown.startswith("-") else shown)

    @property
    def resume_command(self) -> str:
        """What to type to go on with the run."""
        return f"metarun resume {self.typed}"

    @property
    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / ".hydra" / "config.yaml").exists()

    def check_free(self) -> None:
        """Refuses a directory that holds no run, but files of the names that a run would write.

        Raises:
            RunDirError: there are some; they are someone else's, or their config is gone.
        """
        found = [name for name in FILES if name not in ("status.json", "metarun.log") and (self.path / name).exists()]
        if (status := self.read("status.json")) and not {"status", "step", "pid"} <= status.keys():
            found.append("status.json")  # a run that failed before it had saved its config has one of its own
        if found:
            raise RunDirError(
                f"{self.shown}: holds {found[0]} but no run (.hydra/config.yaml); expected an empty directory, or "
                "one of a run; choose another hydra.run.dir"
            )

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
            RunDirError: it is not a JSON object.
        """
        remedy = "restore it from a copy"
        if name != "test_tasks.json":
            remedy += f", or remove it: {self.resume_command} makes a new one"
        try:
            content = parse_json(read(self.path / name, LARGEST_JSON))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunDirError(
                f"{self.path / name}: cannot be read ({reason(error)}): expected JSON, as metarun wrote it; {remedy}"
            ) from error
        if not isinstance(content, dict):
            raise RunDirError(f"{self.path / name}: expected a JSON object, as metarun wrote it; {remedy}")
        return content

    def read_metrics(self) -> str:
        """The text of metrics.jsonl.

        Raises:
            OSError: it cannot be read, or is far too large.
            ValueError: it is no text.
        """
        return read(self.metrics, LARGEST_METRICS).decode()

    def summary(self) -> dict[str, Any]:
        """What summary.json holds; {} where the run has none yet.

        Raises:
            RunDirError: it is not a summary.
        """
        content = self.read("summary.json")
        if content and not _is_summary(content):
            raise RunDirError(
                f"{self.path / 'summary.json'}: not a summary; expected it as metarun wrote it; restore it from a "
                f"copy, or remove it and test again: {self.resume_command}"
            )
        return content

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Replaces a JSON file of the run."""
        text = json.dumps(content, indent=2, allow_nan=False)
        text = re.sub(r"\[[^][{}\"]*\]", lambda numbers: " ".join(numbers[0].split()), text)  # on one line each
        write_atomically(self.path / name, (text + "\n").encode())

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
        handler = _LogFile(self.path / "metarun.log")
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)
            handler.close()


def shown(path: Path) -> Path:
    """A path as a person would type it; see RunDir.shown."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _is_summary(content: dict[str, Any]) -> bool:
    """Whether it has what is shown of a summary."""
    try:
        test = content["test"][content["metric"]]
        numbers = [content.get("objective", 0.0)]  # an evaluation has none
        numbers += [point[name] for point in (test, *test["by_step"]) for name in ("mean", "ci95")]
        numbers += [content["val"][content["metric"]]["mean"]] if "val" in content else []  # an evaluation has none
        numbers += [content.get("wall_seconds", 0.0)]
        counts = [test["tasks"], *(content.get(name, 0) for name in ("parameters", "meta_steps"))]
        words = [content["title"], content.get("algorithm", ""), *content["settings"].keys()]
        words += content["settings"].values()
        sound = content["metric"] in ("accuracy", "mse") and len(test["by_step"]) > 0
        sound = sound and all(type(count) is int and 0 <= count < 1e15 for count in counts)
        return sound and all(map(math.isfinite, numbers)) and all(isinstance(word, str) for word in words)
    except (KeyError, TypeError, AttributeError, OverflowError):
        return False


class _LogFile(logging.Handler):
    """Raises what keeps it from writing, where logging's own handlers would print a traceback and go on."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.file = path, None
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.file = self.file or Appended(self.path)
        self.file.write(f"{self.format(record)}\n".encode())

    def close(self) -> None:
        if self.file:
            self.file.close()
        super().close()


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
