"""metarun show: all about one run: what was typed, results, curve, where it computed, how to go on."""

import argparse
import os
import sys
from pathlib import Path

from metarun.errors import RunDirError, UsageError
from metarun.text import count_of, printable, typed_path

PRINTS = "metarun.results.showing.RunFacts"  # with format=json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run and a format."""
    name = "a run directory, or the end of its path as metarun ls shows it; or the folder of an evaluation"
    parser.add_argument("run", metavar="RUN", help=name)
    formats = ("text", "json")
    parser.add_argument("--format", choices=formats, default="text", help="format=json is the same as --format json")


def main(args: argparse.Namespace) -> None:
    """Prints the run; of a folder with several runs a line that says so."""
    from metarun.results.grid import terminal_width
    from metarun.results.run_names import find_run
    from metarun.results.showing import show_run
    from metarun.results.showing_text import as_text

    try:
        path = find_run(args.run)
    except RunDirError:
        if (damaged := _find_remains(args.run)) is None:
            _describe_folder(args.run, args.format)
            return
        path = damaged
    facts = show_run(path)
    if args.format == "json":
        print(facts.to_document())
    else:
        print(printable(as_text(facts, terminal_width(), _has_braille())))


def _find_remains(name: str) -> Path | None:
    """The folder of a run that has no config any more, or not yet; None where it is none."""
    path = Path(name)
    names = ("status.json", "metrics.jsonl", ".hydra")
    return path if name and any(os.path.exists(path / part) for part in names) else None


def _describe_folder(name: str, kind: str) -> None:
    """Prints what a folder with several runs is. Raises RunDirError where it is none."""
    from metarun.results.listing import list_runs
    from metarun.results.listing_text import count_states
    from metarun.results.run_names import find_run

    runs = list_runs([name]) if os.path.isdir(name) else []
    if not runs:
        find_run(name)
    if kind != "text":
        words = f"metarun ls {typed_path(Path(name))} format={kind}"
        raise UsageError(f"{name!r} (command line): holds {count_of(len(runs), 'run')}; expected one; {words}")
    print(printable(f"{name}: a folder with {count_states(runs)}; metarun ls {typed_path(Path(name))} lists them"))


def _has_braille() -> bool:
    """Whether the encoding of the output has the letters of which curves are made."""
    try:
        "\u28ff".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
