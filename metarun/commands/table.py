"""metarun table: runs beside each other, with what the papers report.

Examples:
    metarun table outputs
    metarun table outputs/sweeps/a outputs/sweeps/b format=csv > runs.csv
"""

import argparse

from metarun.commands.common import add_folders, compare_folders, print_left_out
from metarun.text import printable

PRINTS = "metarun.results.table.Table"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders with runs, and a format."""
    add_folders(parser)
    formats = ("markdown", "csv", "json")
    parser.add_argument("--format", choices=formats, default="markdown", help="format=csv is the same as --format csv")


def main(args: argparse.Namespace) -> None:
    """Prints the table."""
    from metarun.results.table import format_table

    rows, left_out = compare_folders(args.folders)
    print(printable(format_table(rows, left_out, args.format)))
    if args.format == "csv":  # which has no place for them
        print_left_out(left_out)
