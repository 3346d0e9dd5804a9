"""metarun diff: runs side by side: the settings, versions and data in which they differ, and their results."""

import argparse

from metarun.errors import UsageError, describe_os_error
from metarun.text import printable

PRINTS = "metarun.results.differing.Differing"  # with format=json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Runs and a format."""
    name = "run directories, or the ends of their paths as metarun ls shows them; or folders of evaluations"
    parser.add_argument("runs", metavar="RUN", nargs="+", help=name)
    formats = ("text", "json")
    parser.add_argument("--format", choices=formats, default="text", help="format=json is the same as --format json")


def main(args: argparse.Namespace) -> None:
    """Prints in what the runs differ."""
    from metarun.results.differing import as_text, find_differences
    from metarun.results.grid import terminal_width
    from metarun.results.run_names import find_run

    paths = [find_run(name) for name in args.runs]
    if len({path.resolve() for path in paths}) < 2:
        raise UsageError(f"{args.runs[0]!r} (command line): one run; expected two or more to compare")
    try:
        differing = find_differences(paths)
    except OSError as error:
        raise describe_os_error(error) from error
    print(differing.to_document() if args.format == "json" else printable(as_text(differing, terminal_width())))
