"""metarun report: runs beside each other, as an HTML page with pictures."""

import argparse
import sys
from pathlib import Path

from metarun.commands.arguments import add_folders, split_settings
from metarun.errors import RunDirError, UsageError
from metarun.text import count_of, printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders with runs, and the file to write."""
    add_folders(parser)
    parser.add_argument("--out", default="report.html", help="the file to write; out=FILE is the same")


def main(args: argparse.Namespace) -> int:
    """Writes the report; returns the exit code."""
    folders, named = split_settings("out", args.words)
    if not (out := args.out if named is None else named):
        raise UsageError("'' (out): expected a file to write, as in out=report.html")
    from metarun.results import compare, report, runs

    found, left_out = runs.collect(folders)
    rows, more = compare.compare_runs(found)
    left_out += more
    if not rows:
        for left in left_out:
            print(printable(f"left out: {left.path}: {left.reason}"), file=sys.stderr)
        raise RunDirError(
            f"no result in {count_of(len(left_out), 'folder')} (runs): expected a finished run; the reasons are above"
        )
    report.write_report(rows, left_out, Path(out))
    return 0
