"""metarun watch: the runs that go on, live, from any shell; ctrl-C ends the watching and leaves the runs alone.

A line for each run: step, what it does, time left, loss, the last validation, training tasks a second, peak memory. A
run that ends meanwhile stays there, with how it ended: done, failed with the reason, stopped, or stale where its
process is gone without a word. In a pipe, or with once=true, it prints the runs that go on now, and ends.
"""

import argparse
import os
import sys
import time

from metarun.commands.ls import FOLDERS, check_folders
from metarun.errors import UsageError
from metarun.text import is_terminal, printable

LEAST = 0.1  # seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders, how often to look, and whether to look once."""
    folders = f"folders with runs, or runs; by default {' and '.join(FOLDERS)}"
    parser.add_argument("folders", nargs="*", metavar="DIR", help=folders)
    parser.add_argument("--every", metavar="SECONDS", type=_read_seconds, default=1.0, help="every=5; by default 1")
    parser.add_argument("--once", choices=("true", "false"), default="false", help="once=true: print them, and end")


def _read_seconds(word: str) -> float:
    try:
        if LEAST <= (seconds := float(word)) <= 3600:
            return seconds
    except ValueError:
        pass
    raise UsageError(f"{word!r} (every): expected seconds, from {LEAST} to 3600")


def main(args: argparse.Namespace) -> None:
    """Prints the runs, over and over on a terminal."""
    from metarun.results.watched import Watch, draw
    from metarun.run.signals import until_ctrl_c

    check_folders(args.folders)
    folders = args.folders or FOLDERS
    watch = Watch(folders)
    if args.once == "true" or not is_terminal(sys.stdout) or os.environ.get("TERM") == "dumb":
        print(printable(draw(watch.look(), folders)))
        return
    before, size = 0, None
    with until_ctrl_c():
        while True:
            begin = time.monotonic()
            columns, lines = os.get_terminal_size(sys.stdout.fileno())
            frame = printable(draw(watch.look(), folders, columns, lines - 2))
            frame += "\nctrl-C ends this, and no run" if watch.runs else "; waiting for one (ctrl-C ends this)"
            again = f"\x1b[{before}A" if before and size == (columns, lines) else "\x1b[H\x1b[2J" if before else ""
            before, size = frame.count("\n") + 1, (columns, lines)
            text = "".join(f"{line[:columns]}\x1b[K\n" for line in frame.split("\n"))
            print(f"{again}{text}\x1b[J", end="", flush=True)
            time.sleep(max(0.0, args.every - (time.monotonic() - begin)))
    print()  # below the ^C of the terminal
