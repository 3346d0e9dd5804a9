"""What is done with run directories: metarun eval, resume, reproduce, table, report.

The words are checked before torch is imported, and table never imports it.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from metarun.commands.jobs import located
from metarun.engine.ranks import alone, is_first
from metarun.errors import RunDirError, UsageError
from metarun.text import nearest, printable

OF_ONE = ("eval", "resume", "reproduce")  # take a run directory
OF_MANY = {  # take folders with runs, and one setting: its key, its default, and what may be typed
    "table": ("format", "markdown", "format=markdown, format=csv or format=json"),
    "report": ("out", "report.html", "out=FILE.html"),
}


def verb(name: str, *words: str) -> int:
    """Does it; returns the exit code.

    Raises:
        MetarunError: as its class says.
    """
    verbs = (*OF_ONE, *OF_MANY)
    if name not in verbs and Path(name, ".hydra").is_dir():
        raise UsageError(f"{name!r} (command line): is a run directory; expected a verb before it: {', '.join(verbs)}")
    if name not in verbs:
        raise UsageError(
            f"{name!r} (command line): expected key=value or one of {', '.join(verbs)}{nearest(name, verbs)}"
        )
    if not words or not words[0] or words[0].startswith("-") or _is_setting(words[0]):
        what, example = ("folders with runs", "DIR...") if name in OF_MANY else ("a run directory", "DIR")
        raise UsageError(f"{name} (command line): expected {what}: metarun {name} {example}")
    return _compared(name, words) if name in OF_MANY else _again(name, Path(words[0]), list(words[1:]))


def _is_setting(word: str) -> bool:
    """Whether it is one, or a folder, which may have = in its name and need not be there."""
    return "=" in word and "/" not in word.partition("=")[0] and not Path(word).exists()


def _again(name: str, folder: Path, settings: list[str]) -> int:
    if (folder / "config.yaml").is_file() and folder.parent.parent.name == "eval":
        raise RunDirError(f"{folder}: is an evaluation; expected its run, {folder.parents[2]}")
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise RunDirError(f"{folder}: no run there; expected a folder with .hydra/config.yaml")
    if name != "resume":
        alone(name)
    from metarun.commands import rerun
    from metarun.storage import metrics as record

    if name == "reproduce":
        print(rerun.reproduce(folder, settings))
    elif name == "resume":
        summary = rerun.resume(folder, settings)
        if is_first():
            print(printable(record.closing(located(summary, folder))))
    else:
        print(printable(record.closing(rerun.evaluate(folder, settings))))
    return 0


def _compared(name: str, words: Iterable[str]) -> int:
    """Runs beside each other: a table on stdout, or a report in a file."""
    known, chosen, expected = OF_MANY[name]
    settings, folders = [word for word in words if _is_setting(word)], [word for word in words if not _is_setting(word)]
    for word in settings:
        key, _, chosen = word.partition("=")
        if key != known or not chosen:
            raise UsageError(f"{word!r} (command line): expected {expected}")
    if len(settings) > 1:
        raise UsageError(f"{known!r} (command line): given twice, as {' and '.join(settings)}; give it once")
    if "" in folders:
        raise UsageError("'' (command line): expected a folder with runs; . is the one that you are in")
    from metarun.results import compare, runs, table

    found, left_out = runs.collect(folders)
    rows, again = compare.rows_of(found)
    left_out += again
    if name == "table":
        print(printable(table.formatted(rows, left_out, chosen)))
    elif rows:
        from metarun.results import report

        report.write(rows, left_out, Path(chosen))
    if (name, chosen) == ("table", "csv") or (name == "report" and not rows):  # else the output itself says it
        for one in left_out:
            print(printable(f"left out: {one.path}: {one.reason}"), file=sys.stderr)
    if not rows:
        which = "the folder" if len(left_out) == 1 else f"any of {len(left_out)} folders"
        raise RunDirError(f"no result in {which} (runs): expected a finished run; the reasons are above")
    return 0
