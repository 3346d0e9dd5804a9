"""Removing a run: only files of the names that metarun makes, and folders that are empty then. No link is followed.

.hydra/config.yaml goes first: without it a directory is no run to any command, so that one of which only a part could
be removed is not taken for one. It is listed as damaged then, and can be removed again.

A directory without a file that metarun alone makes is another program's: .hydra is of any program that uses Hydra, and
wandb may be its results. Such a file goes last.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from metarun.files import locked

CONFIG = ".hydra/config.yaml"
RESULTS = r"(environment|summary|test_tasks)\.json|(curve|examples)\.png"
MADE = re.compile(  # by their paths in the run directory
    rf"{RESULTS}|status\.json|(metrics|timing)\.jsonl|metarun\.log|tags\.txt"
    r"|\.hydra/(config|overrides|choices|hydra)\.yaml"
    r"|checkpoints/step-\d+\.(pt|json)"
    rf"|eval/[\d-]+/[\d-]+/(config\.yaml|{RESULTS})"
    r"|adapt/[\d-]+/[\d-]+/(predictions\.csv|adapt\.html)"
)
OWN = re.compile(r"\.hydra/choices\.yaml|test_tasks\.json|timing\.jsonl|metarun\.log")
LOGGED = re.compile(r"(tensorboard|wandb|mlflow|mlruns)/.+", re.DOTALL)  # whose names are their programs', links too
TEMPORARY = re.compile(r"\.([^/]+)\.tmp$")  # of files that were being written when the process was killed


@dataclass
class Contents:
    """What lies in a run directory.

    Attributes:
        made: files that metarun made, in the order in which they are to go.
        foreign: others, and links, all of which stay, and with them the folders that they are in.
        size: bytes of those that were made.
    """

    made: list[Path] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)
    size: int = 0


def find_contents(run: Path) -> Contents:
    """What lies in a run directory. Raises OSError: a folder cannot be read."""
    found = Contents()
    for path, is_link in _walk(run):
        name = TEMPORARY.sub(r"\1", path.relative_to(run).as_posix())
        if not LOGGED.fullmatch(name) and (is_link or not MADE.fullmatch(name)):
            found.foreign.append(path)
            continue
        found.made.append(path)
        found.size += path.lstat().st_size
    own = {path for path in found.made if OWN.fullmatch(path.relative_to(run).as_posix())}
    if not own:
        return Contents(foreign=sorted([*found.made, *found.foreign]))
    found.made.sort(key=lambda path: (path != run / CONFIG, path in own))
    return found


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """The files below a folder, and whether they are links; links to folders are not entered."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))
            else:
                yield Path(entry.path), entry.is_symlink()


def remove_run(run: Path) -> Contents:
    """Removes what metarun made in a run directory, and folders that are empty then; returns what lay there.

    Raises:
        FileNotFoundError: it is gone.
        BlockingIOError: a process holds the directory, for it runs there.
        NoLocksError: the file system has no locks, and METARUN_LOCK is not `off`.
        OSError: something cannot be removed; a part may be gone by then.
    """
    if not run.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(run))
    with locked(run, wait=False):
        found = find_contents(run)
        for path in found.made:
            path.unlink()
        _remove_empty(run)
    with suppress(OSError):  # the folder of a day, where that was its last run
        if re.fullmatch(r"\d{4}-\d\d-\d\d", run.parent.name):
            run.parent.rmdir()
    return found


def _remove_empty(folder: Path) -> None:
    """Removes the folders below, and this one, as far as they are empty."""
    with os.scandir(folder) as entries:
        folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    for below in folders:
        _remove_empty(below)
    with suppress(OSError):
        folder.rmdir()
