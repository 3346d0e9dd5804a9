"""metarun eval: meta-test a trained run again, under other settings."""

import argparse

from metarun.commands.arguments import add_run, check_run
from metarun.engine.ranks import alone
from metarun.text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, and changes of the settings that act in meta-testing."""
    add_run(parser, "a setting that acts in meta-testing, such as data.eval_shots=5 or test_tasks=1000")


def main(args: argparse.Namespace) -> int:
    """Meta-tests the best checkpoint, and prints the result; returns the exit code."""
    check_run(args.run)
    alone("eval")
    from metarun.commands.rerun import evaluate
    from metarun.storage import metrics

    print(printable(metrics.closing(evaluate(args.run, args.words))))
    return 0
