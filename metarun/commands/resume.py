"""metarun resume: continue an interrupted run, or print the result of a finished one."""

import argparse

from metarun.commands.common import add_run, print_run
from metarun.config.keys import keys_that


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, and changes of the settings that leave it the same run."""
    add_run(parser, f"a setting that may change: {', '.join(keys_that('resume'))}")


def main(args: argparse.Namespace) -> None:
    """Continues the run, and prints its result."""
    from metarun.config.edit import with_changes
    from metarun.run.train_and_test import execute
    from metarun.storage.rundir import RunDir

    rundir = RunDir(args.run)
    config = with_changes(rundir.config().plain(), args.words)
    if summary := execute(config, args.run, args.words, rundir.choices()):
        print_run(summary, args.run)
