"""metarun ls: the runs in folders, of any status, newest first."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from metarun.errors import UsageError
from metarun.results.run_names import FOLDERS, run_around
from metarun.text import nearest, printable, reason, typed_path

if TYPE_CHECKING:
    from metarun.results.listing import Listed
    from metarun.results.selection import Wanted

PRINTS = "metarun.results.listing_text.Listing"  # with format=json
STATES = ("running", "done", "failed", "stopped", "stale", "damaged")
MOST = 40  # lines of a table, unless limit=N says otherwise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders, what is wanted of the runs in them, the order, the number and the format."""
    add_wanted(parser, "*", f"folders; every run in them and below is listed; by default {' and '.join(FOLDERS)}")
    rule = "began (newest first), val or test (best first; of accuracies the highest, then of mse the lowest), step, "
    parser.add_argument("--sort", metavar="ORDER", default="began", help=rule + "status, algo, data or folder")
    most = f"so many at most, or all; by default {MOST} lines of text, and all of json and csv"
    parser.add_argument("--limit", metavar="N", type=_read_limit, help=most)
    formats = ("text", "json", "csv")
    parser.add_argument("--format", choices=formats, default="text", help="format=json is the same as --format json")


def add_wanted(parser: argparse.ArgumentParser, number: str, folders: str) -> None:
    """Adds the arguments `folders`, so many, and what is wanted of the runs in them."""
    parser.add_argument("folders", nargs=number, metavar="DIR", help=folders)
    parser.add_argument("--status", metavar="STATUS", help=f"{', '.join(STATES)}; several with commas")
    parser.add_argument("--algo", metavar="NAME", help="the algorithm, as in algo=maml")
    parser.add_argument("--data", metavar="NAME", help="the task source, as in data=omniglot")
    parser.add_argument("--tag", metavar="WORD", help="a word that metarun tag gave it")
    parser.add_argument("--since", metavar="WHEN", help="began so long ago at most: 30m, 12h, 7d; or since 2026-01-31")


def read_wanted(args: argparse.Namespace) -> Wanted:
    """What is wanted. Raises UsageError: there is no such status, or no such time."""
    from metarun.results.selection import Wanted, read_since

    lists = {name: _split(name, getattr(args, name)) for name in ("status", "algo", "data", "tag")}
    for status in lists["status"]:
        if status.lower() not in STATES:
            raise UsageError(f"{status!r} (status): expected one of {', '.join(STATES)}{nearest(status, STATES)}")
    return Wanted(**lists, since=None if args.since is None else read_since(args.since))


def _split(name: str, word: str | None) -> list[str]:
    """The names in a word. Raises UsageError for a word of none: of a variable of the shell that is not set."""
    parts = [part.strip() for part in (word or "").split(",") if part.strip()]
    if word is not None and not parts:
        raise UsageError(f"{word!r} ({name}): expected a name; leave {name}= out for all")
    return parts


def _read_limit(word: str) -> int:
    if word.lower() == "all":
        return sys.maxsize
    if not word.isdecimal() or not int(word):
        raise UsageError(f"{word!r} (limit): expected a number of runs, at least 1, or all")
    return int(word)


def check_folders(folders: list[str]) -> None:
    """Raises UsageError for a folder that is not there, cannot be read, or is a part of a run."""
    for name in folders:
        try:
            next(os.scandir(name), None)
        except (OSError, ValueError) as error:
            hint = f"; did you mean status={name.lower()}?" if name.lower() in STATES else ""
            other = ", or one of status=, algo=, data=, tag=, since=" if "=" in name else ""
            rule = f"expected a folder with runs{other}; {reason(error)}{hint}"
            raise UsageError(f"{name!r} (command line): {rule}") from error
        if (run := run_around(Path(name))) is not None:
            rule = f"is a part of a run; expected a folder with runs; metarun show {typed_path(run)} shows the run"
            raise UsageError(f"{name!r} (command line): {rule}")


def main(args: argparse.Namespace) -> None:
    """Prints the runs."""
    from metarun.results.grid import terminal_width
    from metarun.results.listing import list_runs
    from metarun.results.listing_text import Listing, as_csv, as_text, count_states
    from metarun.results.selection import ORDERS, order_by, sort_runs

    order, wanted = order_by(args.sort), read_wanted(args)
    check_folders(args.folders)
    there = list_runs(args.folders or FOLDERS)
    found = sort_runs([run for run in there if wanted.takes(run)], order)
    runs = found[: args.limit or (MOST if args.format == "text" else None)]
    if args.format == "json":
        print(Listing(runs=runs, not_shown=len(found) - len(runs)).to_document())
    elif args.format == "csv":
        print(printable(as_csv(runs)))
    elif runs:
        print(printable(as_text(runs, terminal_width())))
        hidden = f"; {len(found) - len(runs)} more with limit=all" if len(found) > len(runs) else ""
        print(f"\n{count_states(found)}; {ORDERS[order][1]}{hidden}")
    else:
        print(printable(describe_nothing(there, wanted, args.folders)))


def describe_nothing(there: list[Listed], wanted: Wanted, folders: list[str]) -> str:
    """What was looked for where, and what there is instead."""
    where = " and ".join(folders or FOLDERS)
    if not there:
        begin = "" if folders else "; metarun algo=maml begins one, metarun ls DIR looks elsewhere"
        return f"no runs in {where}{begin}"
    from metarun.results.listing_text import count_states

    lines = [f"no runs with {wanted.describe()} in {where}; there are {count_states(there)}"]
    names = {"algo": {run.algorithm for run in there}, "data": {run.source for run in there}}
    names["tag"] = {tag for run in there for tag in run.tags}
    lines += [f"{key}: {', '.join(sorted(names[key])) or 'none'}" for key in names if getattr(wanted, key)]
    return "\n".join(lines)
