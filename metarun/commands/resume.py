"""metarun resume: continue an interrupted run, or print the result of a finished one.

Examples:
    metarun resume outputs/2026-01-31/12-00-00
    metarun resume RUN meta_steps=10000          a finished run, for more outer steps
    metarun resume RUN device=cuda data.root=/there
"""

import argparse

from metarun.commands.common import add_run, print_run
from metarun.config.keys import key_of, keys_that


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
    changed = {key_of(word) for word in args.words}
    words = [*(word for word in rundir.overrides() if key_of(word) not in changed), *args.words]
    if summary := execute(config, args.run, words, rundir.choices()):
        print_run(summary, args.run)
