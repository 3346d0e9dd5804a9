"""The arguments that several verbs have: a run directory and changes of its settings; folders with runs."""

import argparse
from pathlib import Path

from metarun.errors import RunDirError


def add_run(parser: argparse.ArgumentParser, changes: str) -> None:
    """Adds the arguments `run`, a directory, and `words`, changes of its settings."""
    parser.add_argument("run", type=Path, metavar="DIR", help="a run directory")
    parser.add_argument("words", nargs="*", metavar="key=value", help=changes)


def check_run(folder: Path) -> Path:
    """The folder, where it holds a run.

    Raises:
        RunDirError: it does not.
    """
    if (folder / "config.yaml").is_file() and folder.parent.parent.name == "eval":
        raise RunDirError(f"{folder}: is an evaluation; expected its run, {folder.parents[2]}")
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise RunDirError(f"{folder}: no run there; expected a folder with .hydra/config.yaml")
    return folder


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Adds the argument `words`: folders, and settings as in format=csv."""
    parser.add_argument("words", nargs="+", metavar="DIR", help="folders; every run in them and below is taken")


def split_settings(key: str, words: list[str]) -> tuple[list[str], str | None]:
    """The folders among these words, and the value of key=VALUE where that is among them; the last one wins."""
    values = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
    return [word for word in words if not word.startswith(f"{key}=")], values[-1] if values else None
