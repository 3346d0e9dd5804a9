"""metarun table: runs beside each other, with what the papers report.

Examples:
    metarun table outputs
    metarun table outputs evaluations=true       with what metarun eval made of the runs, as over data.shots=1,5,10
    metarun table outputs/sweeps/a outputs/sweeps/b format=csv > runs.csv
"""

import argparse
from pathlib import Path

from metarun.commands.common import add_folders, compare_folders, print_left_out
from metarun.text import count_of, printable, typed_path

PRINTS = "metarun.results.table.Table"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders with runs, and a format."""
    add_folders(parser)
    formats = ("markdown", "csv", "json")
    parser.add_argument("--format", choices=formats, default="markdown", help="format=csv is the same as --format csv")


def main(args: argparse.Namespace) -> None:
    """Prints the table."""
    from metarun.results.table import count_evaluations, format_table

    evaluations = args.evaluations == "true"
    rows, left_out = compare_folders(args.folders, evaluations)
    print(printable(format_table(rows, left_out, args.format)))
    if args.format == "markdown" and not evaluations and (more := count_evaluations(rows)):
        command = " ".join(["metarun table", *(typed_path(Path(name)) for name in args.folders), "evaluations=true"])
        print(printable(f"\nThese runs have {count_of(more, 'evaluation')} more: {command}"))
    if args.format == "csv":  # which has no place for them
        print_left_out(left_out)
