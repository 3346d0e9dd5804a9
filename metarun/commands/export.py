"""metarun export: a trained run whole in one file, for machines without its data.

The file, of the format safetensors, holds the weights of the best checkpoint, the config, what is done to examples
before the learner sees them, and a card. Load it: metarun.load(FILE), or metarun adapt FILE ...

Examples:
    metarun export outputs/2026-01-31/12-00-00 letters.safetensors
"""

import argparse
from pathlib import Path

from metarun.commands.common import RUN, run_directory
from metarun.engine.ranks import refuse_several_processes
from metarun.text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, and the file."""
    parser.add_argument("run", type=run_directory, metavar="RUN", help=RUN)
    rule = "ends in .safetensors; an exported learner of that name is replaced, anything else is not"
    parser.add_argument("file", type=Path, metavar="FILE", help=rule)


def main(args: argparse.Namespace) -> None:
    """Writes the file, and prints its card."""
    refuse_several_processes("export")
    from metarun.run.loading import load_trained, save_trained
    from metarun.storage.exported import check_place

    check_place(args.file)
    card = save_trained(load_trained(args.run), args.file)
    size = f"{args.file} ({args.file.stat().st_size:,} bytes)"
    print(printable(f"{card}\n{'files':<13} {size}\n{'load':<13} metarun.load({str(args.file)!r})"), flush=True)
