"""metarun report: runs beside each other, as an HTML page with pictures."""

import argparse
from pathlib import Path

from metarun.commands.common import add_folders, compare_folders
from metarun.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders with runs, and the file to write."""
    add_folders(parser)
    parser.add_argument("--out", default="report.html", help="the file to write; out=FILE is the same")


def main(args: argparse.Namespace) -> None:
    """Writes the report."""
    if not args.out:
        raise UsageError("'' (out): expected a file to write, as in out=report.html")
    from metarun.results.report import check_place, write_report

    check_place(Path(args.out))  # before the work
    write_report(*compare_folders(args.folders), Path(args.out))
