"""A run directory: claimed by one process at a time, and the only place that a run writes to."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from socket import gethostname
from typing import Any, TypeVar

from metarun.config.saved import dump, read_choices, read_words, saved_config
from metarun.config.schema import Config
from metarun.errors import RunDirError, describe_os_error
from metarun.files import LOCK, Appended, NoLocksError, check_parent, locked, read, write_atomically
from metarun.storage.records import Environment, Phase, Position, Record, Status, Summary, Tasks
from metarun.text import reason, short_path, typed_path

OTHER = "choose another hydra.run.dir"
LARGEST_JSON = 10_000_000  # bytes
LARGEST_FACTS = 1_000_000_000  # test_tasks.json: seven million tasks of twenty classes; environment.json: all words
LARGEST_TEXT = 64_000
# All that metarun makes in a run directory.
FOLDERS = (".hydra", "checkpoints", "eval", "adapt", "tensorboard", "wandb", "mlflow")
FILES = (
    *("environment.json", "metrics.jsonl", "timing.jsonl", "summary.json", "test_tasks.json"),
    *("curve.png", "examples.png", "tags.txt"),
)
TAG = re.compile(r"[^\W_][\w.:@+-]{0,62}")  # a word that no shell and no option can mistake

R = TypeVar("R", bound=Record)

log = logging.getLogger("metarun")


class RunDir:
    """The files of a run, by name; the directory need not be there."""

    def __init__(self, path: Path):
        self.path = path.resolve()
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.curve = self.path / "curve.png"
        self.examples = self.path / "examples.png"

    @property
    def short(self) -> Path:
        """The path as a person would type it: relative where it lies below the working directory."""
        return short_path(self.path)

    @property
    def typed(self) -> str:
        """The path for a command line: no shell and no option can mistake it."""
        return typed_path(self.path)

    @property
    def resume_command(self) -> str:
        """What to type to go on with the run."""
        return f"metarun resume {self.typed}"

    @property
    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / ".hydra" / "config.yaml").exists()

    def config(self) -> Config:
        """The saved config.

        Raises:
            RunDirError: there is none, or it is not one, or it is no longer the one that was run.
        """
        config = saved_config(self.path / ".hydra" / "config.yaml")
        environment = self.environment()
        if environment and environment.config not in (None, config.fingerprint):
            raise RunDirError(
                f"{self.short}: .hydra/config.yaml was changed since the run began; expected the config that was run; "
                f"undo that, or start a new run from it: metarun -cp {self.typed}/.hydra"
            )
        return config

    def overrides(self) -> list[str]:
        """The words of the command line that began the run; [] where they were not kept."""
        return read_words(self.path / ".hydra" / "overrides.yaml")

    def choices(self) -> dict[str, str]:
        """Hydra's choices by group, such as {"algo": "maml"}; of an older run those that were typed."""
        if (choices := read_choices(self.path / ".hydra" / "choices.yaml")) is not None:
            return choices
        pairs = (word.lstrip("+").partition("=") for word in self.overrides())
        groups = ("algo", "data", "model", "device", "engine", "logger", "experiment")
        return {key: value for key, _, value in pairs if key in groups and value.isprintable()}

    def read(self, name: str, record: type[R], most: int = LARGEST_JSON) -> R | None:
        """A JSON file of the run as its record; None where there is none. Raises RunDirError: it is no such record."""
        try:
            return record.from_json(read(self.path / name, most))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            made_again = name in ("status.json", "summary.json")
            new = f", or remove the file: {self.resume_command} makes a new one" if made_again else ""
            raise RunDirError(
                f"{self.path / name}: cannot be read ({reason(error)}): expected it as metarun wrote it; restore it "
                f"from a copy{new}"
            ) from error

    def summary(self) -> Summary | None:
        """What a finished run came to; None before."""
        return self.read("summary.json", Summary)

    def status(self) -> Status | None:
        """How far the run is; None where nothing says so, as in an empty file after a power cut."""
        path = self.path / "status.json"
        if path.is_file() and not path.is_symlink() and not path.stat().st_size:
            return None
        return self.read("status.json", Status)

    def environment(self) -> Environment | None:
        """Where the run computed."""
        return self.read("environment.json", Environment, LARGEST_FACTS)

    def reproduction_of(self) -> str | None:
        """The directory of the run that this one repeats, as `metarun reproduce` made it; None of any other run."""
        environment = self.environment()
        return environment.reproduces if environment else None

    def test_tasks(self) -> Tasks | None:
        """The metric of every test task."""
        return self.read("test_tasks.json", Tasks, LARGEST_FACTS)

    def tags(self) -> list[str]:
        """The words that its user gave it, in order; what is no such word in their file is passed over."""
        try:
            words = read(self.path / "tags.txt", LARGEST_TEXT).decode(errors="replace").split()
        except OSError:
            return []
        return sorted({word for word in words if TAG.fullmatch(word)})

    def write_tags(self, tags: Iterable[str]) -> None:
        """Replaces the words that its user gave it, a line for each."""
        write_atomically(self.path / "tags.txt", "".join(f"{tag}\n" for tag in sorted(set(tags))).encode())

    def write(self, name: str, record: Record, sync: bool = True) -> None:
        """Replaces a JSON file of the run; `sync` as in files.write_atomically."""
        write_atomically(self.path / name, record.to_json(), sync)

    def write_status(
        self,
        status: Phase,
        step: int,
        error: str | None = None,
        *,
        steps: int | None = None,
        position: Position | None = None,
        sync: bool = True,
    ) -> None:
        """Replaces status.json: running, done, failed or stopped, after how many outer steps of how many, and why."""
        facts = {"step": step, "steps": steps, "error": error, "position": position}
        self.write("status.json", Status(status=status, pid=os.getpid(), host=gethostname(), **facts), sync)

    def begin(self, config: Config, overrides: list[str], choices: dict[str, str], hydra: Any = None) -> None:
        """Saves the config as Hydra does, resolved; of a run that goes on only that. Its file makes this a run."""
        folder = self.path / ".hydra"
        if not self.holds_run:
            folder.mkdir(exist_ok=True)
            write_atomically(folder / "overrides.yaml", dump(overrides).encode())
            write_atomically(folder / "choices.yaml", dump(choices).encode())
            if hydra is not None:
                write_atomically(folder / "hydra.yaml", dump({"hydra": hydra}).encode())
        write_atomically(folder / "config.yaml", dump(config.plain()).encode())

    @property
    def has_progress(self) -> bool:
        """Whether there is something that another run would lose: an outer step, a checkpoint or a result."""
        status = self.status()
        rows = self.metrics.exists() and self.metrics.stat().st_size > 0
        checkpoints = next(self.checkpoints.glob("step-*"), None) if self.checkpoints.is_dir() else None
        return rows or checkpoints is not None or self.summary() is not None or bool(status and status.step)

    def forget(self) -> None:
        """Removes what a run without progress has left, so that another one may begin here; its log stays."""
        for name in (*FILES, ".hydra/hydra.yaml", ".hydra/config.yaml"):  # the last one makes it a run
            (self.path / name).unlink(missing_ok=True)

    def check_free(self) -> None:
        """Refuses a directory that holds no run, but files of the names that a run would write, or other people's.

        Those are another program's, or their config is gone. A status.json alone is left by a run that failed before it
        had saved its config; hidden files and logs of a shell or of a cluster may lie there before a run begins.

        Raises:
            RunDirError: there are such files.
        """
        self.status()
        if found := [name for name in FILES if (self.path / name).exists()]:
            raise RunDirError(
                f"{self.short}: holds {found[0]} but no run (.hydra/config.yaml); expected an empty directory, or "
                "one of a run; choose another hydra.run.dir"
            )
        there = sorted(self.path.iterdir()) if self.path.is_dir() else []
        if found := [path.name for path in there if not _may_lie_there(path)]:
            names = ", ".join([*found[:3], *(["..."] if len(found) > 3 else [])])
            rule = "expected an empty directory, or one of a run; choose another hydra.run.dir"
            raise RunDirError(f"{self.short}: holds {names} but no run: {rule}")

    def check_place(self, remedy: str = OTHER) -> None:
        """Raises RunDirError, which says the remedy, where the directory can neither be written nor made."""
        try:
            check_parent(self.path / "status.json")
        except OSError as error:
            error.filename = str(self.path)
            raise describe_os_error(error, remedy) from error

    def refuse_links(self) -> None:
        """Raises RunDirError for a folder that leads out of a stranger's directory: we would write elsewhere."""
        for name in FOLDERS:
            if (path := self.path / name).is_symlink():
                raise RunDirError(f"{path}: is a symbolic link; expected a folder; put what it leads to in its place")

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Holds the directory; the kernel lets go of it when the process ends, however it ends.

        Raises:
            RunDirError: another process holds it, or it cannot be made, written or locked.
        """
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.path, wait=False))
            except BlockingIOError as error:
                holder = self.status()
                by = f" by process {holder.pid} on {holder.host}" if holder else ""
                raise RunDirError(f"{self.path}: in use{by}; wait for it, or choose another hydra.run.dir") from error
            except NoLocksError as error:
                raise RunDirError(
                    f"{self.path} ({error.strerror}): expected locks, which keep a second process from writing there; "
                    f"choose another hydra.run.dir, or set {LOCK}=off and take care of that yourself"
                ) from error
            except OSError as error:
                raise describe_os_error(error, OTHER) from error
            self.refuse_links()
            yield

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


def _may_lie_there(path: Path) -> bool:
    """Whether a file is one that a new run may find in its directory."""
    return path.name == "status.json" or path.name[0] == "." or path.suffix in (".log", ".out", ".err")


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


def name_dated_folder(parent: Path) -> Path:
    """`parent/<date>/<time>`, by the clock."""
    return parent / datetime.now().strftime("%Y-%m-%d/%H-%M-%S-%f")


def make_dated_folder(parent: Path, path: Path | None = None, remedy: str = OTHER) -> Path:
    """Makes and returns `parent/<date>/<time>`, which no other process gets too: `path`, if that is still free.

    Raises:
        RunDirError: it cannot be made; says the remedy.
    """
    while True:
        path, mine = None, path or name_dated_folder(parent)
        try:
            mine.parent.mkdir(parents=True, exist_ok=True)
            mine.mkdir()
            return mine
        except FileExistsError as error:
            if not mine.is_dir():  # but a file is in the way
                raise describe_os_error(error, remedy) from error
        except OSError as error:
            raise describe_os_error(error, remedy) from error
