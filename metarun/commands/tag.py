"""metarun tag: give a run words of your own, by which metarun ls tag=WORD finds it; or print them."""

import argparse

from metarun.commands.common import RUN
from metarun.errors import UsageError, describe_os_error
from metarun.text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, words to add, and words to take away."""
    parser.add_argument("run", metavar="RUN", help=RUN)
    parser.add_argument("words", nargs="*", metavar="WORD", help="words to add: letters, digits and _ . : @ + -")
    removal = "words to take away, with commas between them; -WORD is the same as remove=WORD"
    parser.add_argument("--remove", metavar="WORD", action="append", default=[], help=removal)


def main(args: argparse.Namespace) -> None:
    """Changes the tags, and prints them."""
    from metarun.results.run_names import find_run
    from metarun.storage.rundir import TAG, RunDir

    rundir = RunDir(find_run(args.run))
    gone = [word for words in args.remove for word in words.split(",") if word]
    for word in (*args.words, *gone):
        if not TAG.fullmatch(word):
            raise UsageError(f"{word!r} (tag): expected letters, digits and _ . : @ + -, a letter or a digit first")
    tags = set(rundir.tags())
    for word in gone:
        if word not in tags:
            there = ", ".join(sorted(tags)) or "none"
            raise UsageError(f"{word!r} (remove): {rundir.short} has no such tag; its tags: {there}")
    if both := sorted(set(args.words) & set(gone)):
        raise UsageError(f"{both[0]!r} (tag): to be added and taken away; expected one of the two")
    new = (tags | set(args.words)) - set(gone)
    if new != tags:
        try:
            rundir.write_tags(new)
        except OSError as error:
            raise describe_os_error(error) from error
    print(printable(f"{rundir.short}: {' '.join(sorted(new)) or 'no tags'}"))
