"""metarun table: runs beside each other, with what the papers report."""

import argparse
import sys

from metarun.commands.arguments import add_folders, split_settings
from metarun.errors import RunDirError, UsageError
from metarun.text import count_of, printable

FORMATS = ("markdown", "csv", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders with runs, and a format."""
    add_folders(parser)
    parser.add_argument("--format", default="markdown", help="markdown, csv or json; format=csv is the same")


def main(args: argparse.Namespace) -> int:
    """Prints the table; returns the exit code."""
    folders, named = split_settings("format", args.words)
    chosen = args.format if named is None else named
    if chosen not in FORMATS:
        raise UsageError(f"{chosen!r} (format): expected markdown, csv or json, as in format=csv")
    from metarun.results import compare, runs, table

    found, left_out = runs.collect(folders)
    rows, more = compare.compare_runs(found)
    left_out += more
    print(printable(table.format_table(rows, left_out, chosen)))
    if chosen == "csv":  # which has no place for them
        for left in left_out:
            print(printable(f"left out: {left.path}: {left.reason}"), file=sys.stderr)
    if not rows:
        raise RunDirError(
            f"no result in {count_of(len(left_out), 'folder')} (runs): expected a finished run; the reasons are above"
        )
    return 0
