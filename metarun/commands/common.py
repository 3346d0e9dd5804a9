"""What verbs share: their arguments, the log on stderr while they work, and the result on stdout."""

from __future__ import annotations

import argparse
import codecs
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarun.config.folders import conf_dir
from metarun.engine.ranks import is_rank_zero
from metarun.errors import RunDirError, UsageError
from metarun.results.run_names import find_by_end, is_run
from metarun.text import count_of, printable, typed_path

if TYPE_CHECKING:
    from metarun.results.compare import Row
    from metarun.results.runs import LeftOut
    from metarun.storage.records import Summary


RUN = "a run directory, or the end of its path as metarun ls shows it"


def add_run(parser: argparse.ArgumentParser, changes: str) -> None:
    """Adds the arguments `run`, a directory, and `words`, changes of its settings."""
    parser.add_argument("run", type=run_directory, metavar="RUN", help=RUN)
    parser.add_argument("words", nargs="*", metavar="key=value", help=changes)


def run_directory(name: str) -> Path:
    """The directory of that name, or the run whose path ends so. Raises RunDirError: it holds no run."""
    path = Path(name)
    if is_run(path):
        return path
    if run := find_by_end(name):
        return run
    expected = "expected a folder with .hydra/config.yaml"
    if parent := next((parent for parent in path.absolute().parents if is_run(parent)), None):
        expected += f", which is {typed_path(parent)}"
    elif below := list(islice(_runs_below(path), 4)):
        expected += f", such as {', '.join(typed_path(run) for run in below[:3])}"
    raise RunDirError(f"{name}: no run there; {expected}")


def _runs_below(folder: Path, depth: int = 3) -> Iterator[Path]:
    """The runs in the folders below, down to some depth, in the order of their names."""
    with suppress(OSError):
        for child in sorted(child for child in folder.iterdir() if child.is_dir() and child.name[0] != "."):
            if is_run(child):
                yield child
            elif depth > 1:
                yield from _runs_below(child, depth - 1)


def find_choices(name: str | None, check_names: bool = True) -> Path | None:
    """The folder with choices of the user's own that --config-dir names; None where it names none.

    Raises UsageError: there is no such folder; or a choice in it has the name of one of metarun's, and another content,
    or a first line that Hydra cannot read.
    """
    if not name:
        return None
    from metarun.config.through_hydra import forget_composed

    folder = Path(name).resolve()
    if not os.path.isdir(folder):
        raise UsageError(f"{name} (--config-dir): expected a folder with choices, such as algo/mine.yaml")
    forget_composed()  # its files may have changed since an earlier call in this process
    for file in filter(Path.is_file, folder.rglob("*.yaml")) if check_names else []:
        choice, content = file.relative_to(folder), file.read_bytes()
        if content.startswith(codecs.BOM_UTF8) and b"@package" in content.partition(b"\n")[0]:
            rule = "begins with a byte-order mark, with which `# @package` is not seen; save it as UTF-8 without one"
            raise UsageError(f"{choice} (--config-dir): {rule}")
        if (own := conf_dir() / choice).is_file() and own.read_bytes() != content:
            rule = "metarun has a choice of that name, and takes it; give yours another"
            raise UsageError(f"{choice} (--config-dir): {rule}")
    return folder


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments `folders` and `evaluations`."""
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folders; every run in them and below is taken")
    words = "evaluations=true: the evaluations of these runs too, which metarun eval made"
    parser.add_argument("--evaluations", choices=("true", "false"), default="false", help=words)


def compare_folders(folders: list[str], evaluations: bool = False) -> tuple[list[Row], list[LeftOut]]:
    """The rows of the runs in these folders, with their evaluations or without, and what is left out.

    Raises RunDirError where there is no row.
    """
    from metarun.results import compare, runs

    found, left_out = runs.collect(folders, evaluations)
    rows, more = compare.compare_runs(found)
    left_out += more
    if not rows:
        print_left_out(left_out)
        number = count_of(len(left_out), "folder")
        raise RunDirError(f"no result in {number} (runs): expected a finished run; the reasons are above")
    return rows, left_out


def print_left_out(left_out: Iterable[LeftOut]) -> None:
    """Prints on stderr what is left out of a comparison, with the reasons."""
    for left in left_out:
        print(printable(f"left out: {left.path}: {left.reason}"), file=sys.stderr)


class _Console(logging.StreamHandler):
    """Writes to stderr, beside a bar; a path or a value of a stranger cannot steer the terminal.

    What a task source says is written once: it is made ready to be checked, and again for each job. A record may say so
    of itself by `once`; and by `aloud` that it is for the log alone, for a bar shows it.
    """

    def __init__(self, said: set[str]):
        super().__init__()
        self.said = said

    def filter(self, record: logging.LogRecord) -> Any:
        once = getattr(record, "once", Path(record.pathname).parent.name == "data")
        line = record.getMessage() if once else ""
        again = line in self.said
        self.said |= {line} if line else set()
        return not again and getattr(record, "aloud", True) and super().filter(record)

    def emit(self, record: logging.LogRecord) -> None:
        bars = sys.modules.get("tqdm")
        with bars.tqdm.external_write_mode(self.stream) if bars else nullcontext():
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def set_up_logging() -> None:
    """Sends metarun's log to stderr, without errors, for cli.main() prints those once; ranks above 0 only warn."""
    log = logging.getLogger("metarun")
    before = [handler for handler in log.handlers if isinstance(handler, _Console)]
    console = _Console(before[0].said if before else set())
    console.addFilter(lambda line: line.levelno < logging.ERROR)
    log.handlers = [console, *(handler for handler in log.handlers if handler not in before)]
    log.propagate = False
    log.setLevel(logging.INFO if is_rank_zero() else logging.WARNING)


def print_run(summary: Summary, folder: Path) -> None:
    """Prints the closing words of a run, with where its files are and the command that repeats it."""
    path = typed_path(folder.resolve())
    print_result(summary, {"files": path, "reproduce": f"metarun reproduce {path}"})


def print_result(summary: Summary, more: dict[str, str]) -> None:
    """Prints the closing words of a run or an evaluation; see run.words.closing_words."""
    from metarun.run.words import closing_words

    print(printable(closing_words(summary, more)), flush=True)
