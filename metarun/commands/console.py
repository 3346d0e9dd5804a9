"""What metarun says on the terminal: its log while it works, on stderr, and the result, on stdout."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from metarun.engine.ranks import is_rank_zero
from metarun.text import printable, short_path, typed_path

if TYPE_CHECKING:
    from metarun.storage.records import Summary


class _Console(logging.StreamHandler):
    """Writes to stderr; a path or a value of a stranger cannot steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def set_up_logging() -> None:
    """Sends metarun's log to stderr, without errors, for cli.main() prints those once; ranks above 0 only warn."""
    log = logging.getLogger("metarun")
    console = _Console()
    console.addFilter(lambda line: line.levelno < logging.ERROR)
    log.handlers = [console, *(handler for handler in log.handlers if not isinstance(handler, _Console))]
    log.propagate = False
    log.setLevel(logging.INFO if is_rank_zero() else logging.WARNING)


def print_run(summary: Summary, folder: Path) -> None:
    """Prints the closing words of a run, with where its files are and the command that repeats it."""
    path = folder.resolve()
    print_result(summary, {"files": str(short_path(path)), "reproduce": f"metarun reproduce {typed_path(path)}"})


def print_result(summary: Summary, more: dict[str, str]) -> None:
    """Prints the closing words of a run or an evaluation; see run.words.closing_words."""
    from metarun.run.words import closing_words

    print(printable(closing_words(summary, more)), flush=True)
