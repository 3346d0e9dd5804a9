"""metarun rm: remove runs, after asking. Only what metarun made goes; running ones and files of others stay."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from metarun.commands.ls import add_wanted, check_folders, read_wanted
from metarun.errors import RunDirError, UsageError, describe_os_error
from metarun.run.signals import stop_at_once
from metarun.text import count_of, format_bytes, printable, short_path

if TYPE_CHECKING:
    from metarun.results.listing import Listed
    from metarun.results.selection import Wanted
    from metarun.storage.removal import Contents

MOST = 40  # runs that are named before it asks; all are counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders, which of the runs in them, and whether to ask."""
    add_wanted(parser, "+", "runs, or folders; every run in them and below that the filters take")
    parser.add_argument("--yes", metavar="true", nargs="?", const="true", default="false", help="remove without asking")


def main(args: argparse.Namespace) -> None:
    """Says what would go, asks, and removes it."""
    from metarun.commands.ls import describe_nothing
    from metarun.results.listing import list_paths

    wanted, yes = read_wanted(args), _read_yes(args.yes)
    check_folders(args.folders)
    for name in args.folders:
        if os.path.islink(name.rstrip("/")):
            raise UsageError(f"{name!r} (command line): is a symbolic link; expected the folder that it leads to")
    there = list_paths(args.folders)
    found = {path: run for path, run in there if wanted.takes(run)}
    runs = {path: run for path, run in found.items() if run.status != "running"}
    if not runs:
        why = f"{count_of(len(found), 'run')} there, and running" if found else ""
        print(printable(why or describe_nothing([run for _, run in there], wanted, args.folders)))
        return
    running = len(found) - len(runs)
    contents = {path: _look_into(path) for path in runs}
    runs = {path: run for path, run in runs.items() if contents[path].made or not contents[path].foreign}
    if not runs:
        print(f"nothing there that metarun made: {count_of(len(contents), 'folder')} of another program")
        return
    _describe(runs, contents, running)
    if not yes and not _ask(len(runs)):
        print("nothing was removed")
        return
    with stop_at_once("runs that were removed until then are gone, the others are as they were"):
        _remove(list(runs), wanted)


def _read_yes(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise UsageError(f"{word!r} (yes): expected true or false; without it you are asked")
    return word.lower() == "true"


def _look_into(path: Path) -> Contents:
    from metarun.storage.removal import find_contents

    try:
        return find_contents(path)
    except OSError as error:
        raise describe_os_error(error) from error


def _describe(runs: dict[Path, Listed], contents: dict[Path, Contents], running: int) -> None:
    """Prints what would go, with sizes, and what stays."""
    from metarun.results.grid import Column, format_grid, terminal_width
    from metarun.results.listing_text import LONGEST, describe_state

    first = list(runs)[:MOST]
    columns = [
        Column("status", [describe_state(runs[path]) for path in first], least=10, most=LONGEST),
        Column("size", [format_bytes(contents[path].size) for path in first], right=True),
        Column("folder", [runs[path].folder for path in first], least=30, keep_end=True),
    ]
    lines = format_grid(columns, terminal_width())
    if len(runs) > len(first):
        lines.append(f"and {len(runs) - len(first)} more")
    foreign = [path for content in contents.values() for path in content.foreign]
    lines += [f"stays, for metarun did not make it: {short_path(path)}" for path in foreign[:MOST]]
    lines += [f"and {len(foreign) - MOST} more"] if len(foreign) > MOST else []
    lines += [f"stays, for it runs: {count_of(running, 'run')}"] if running else []
    total = format_bytes(sum(content.size for content in contents.values()))
    print(printable("\n".join([*lines, f"{count_of(len(runs), 'run')}, {total}"])), flush=True)


def _ask(count: int) -> bool:
    """Whether a person at the terminal says yes. Raises UsageError: there is none."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(f"{count_of(count, 'run')} (rm): no terminal to ask at; expected yes=true to remove them")
    try:
        return input("remove them for good? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _remove(paths: list[Path], wanted: Wanted) -> None:
    """Removes the runs, and says what stayed. Raises RunDirError: one could not be removed; the others were tried."""
    from metarun.results.listing import read_listed
    from metarun.storage.removal import remove_run

    removed, size, failed = 0, 0, []
    for path in paths:
        now = read_listed(path)  # it may have gone on while the question stood there
        if now.status == "running" or not wanted.takes(now):
            failed.append(f"{short_path(path)}: is {now.status} by now")
            continue
        try:
            contents = remove_run(path)
        except BlockingIOError:
            failed.append(f"{short_path(path)}: in use by another process")
        except OSError as error:
            failed.append(str(describe_os_error(error)))
        else:
            removed, size = removed + 1, size + contents.size
    print(f"removed {count_of(removed, 'run')}, {format_bytes(size)}")
    if failed:
        for line in failed[:-1]:
            print(printable(f"not removed: {line}"), file=sys.stderr)
        raise RunDirError(f"not removed: {failed[-1]}")
