"""metarun reproduce: run a finished run again and compare; exit 0 if bitwise identical, else 6."""

import argparse

from metarun.commands.arguments import add_run, check_run
from metarun.config.keys import keys_that
from metarun.engine.ranks import alone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, and where to compute and read."""
    add_run(parser, f"where to compute and read: {', '.join(keys_that('reproduce'))}")


def main(args: argparse.Namespace) -> int:
    """Repeats the run, and prints how much of it is identical; returns the exit code."""
    check_run(args.run)
    alone("reproduce")
    from metarun.commands.rerun import reproduce

    print(reproduce(args.run, args.words))
    return 0
