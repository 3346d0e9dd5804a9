"""metarun resume: continue an interrupted run, or print the result of a finished one."""

import argparse

from metarun.commands.arguments import add_run, check_run
from metarun.config.keys import keys_that
from metarun.engine.ranks import is_first
from metarun.text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, and changes of the settings that leave it the same run."""
    add_run(parser, f"a setting that may change: {', '.join(keys_that('resume'))}")


def main(args: argparse.Namespace) -> int:
    """Continues the run, and prints its result; returns the exit code."""
    check_run(args.run)
    from metarun.commands.rerun import resume
    from metarun.commands.train import located
    from metarun.storage import metrics

    summary = resume(args.run, args.words)
    if is_first():
        print(printable(metrics.closing(located(summary, args.run))))
    return 0
