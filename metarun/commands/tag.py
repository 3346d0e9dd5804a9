"""metarun tag: give a run words of your own, by which metarun ls tag=WORD finds it; or print them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from metarun.commands.common import RUN
from metarun.errors import UsageError, describe_os_error
from metarun.files import LOCK, NoLocksError, locked
from metarun.text import printable

if TYPE_CHECKING:
    from metarun.storage.rundir import RunDir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, words to add, and words to take away."""
    parser.add_argument("run", metavar="RUN", help=RUN)
    parser.add_argument("words", nargs="*", metavar="WORD", help="words to add: letters, digits and _ . : @ + -")
    removal = "words to take away, with commas between them; -WORD is the same as remove=WORD"
    parser.add_argument("--remove", metavar="WORD", action="append", default=[], help=removal)


def main(args: argparse.Namespace) -> None:
    """Changes the tags, and prints them."""
    from metarun.results.run_names import find_run, is_evaluation
    from metarun.storage.rundir import TAG, RunDir

    rundir = RunDir(find_run(args.run))
    if is_evaluation(rundir.path):
        raise UsageError(f"{rundir.short} (command line): is an evaluation; expected a run, whose tags are its too")
    gone = [word for words in args.remove for word in words.split(",") if word]
    for word in (*args.words, *gone):
        if not TAG.fullmatch(word):
            raise UsageError(f"{word!r} (tag): expected letters, digits and _ . : @ + -, a letter or a digit first")
    if both := sorted(set(args.words) & set(gone)):
        raise UsageError(f"{both[0]!r} (tag): to be added and taken away; expected one of the two")
    if args.words or gone:
        try:
            with locked(rundir.path / ".hydra", wait=True):  # others may tag it too
                _change(rundir, args.words, gone)
        except NoLocksError as error:
            raise describe_os_error(error, f"set {LOCK}=off") from error
        except OSError as error:
            raise describe_os_error(error) from error
    print(printable(f"{rundir.short}: {' '.join(rundir.tags()) or 'no tags'}"))


def _change(rundir: RunDir, added: list[str], gone: list[str]) -> None:
    tags = set(rundir.tags())
    for word in gone:
        if word not in tags:
            there = ", ".join(sorted(tags)) or "none"
            raise UsageError(f"{word!r} (remove): {rundir.short} has no such tag; its tags: {there}")
    if (new := (tags | set(added)) - set(gone)) != tags:
        rundir.write_tags(new)
