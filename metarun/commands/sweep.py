"""A sweep: what a search has to be, the folder of each job, and the closing words."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.types import IntervalSweep
from omegaconf import DictConfig, OmegaConf

from metarun.commands.search_words import describe_search
from metarun.config.overrides import Overrides
from metarun.errors import MetarunError, StoppedError, UsageError
from metarun.text import count_of, format_metric, printable, short_path, typed_path

if TYPE_CHECKING:
    from metarun.commands.search import Search
    from metarun.storage.rundir import RunDir

FAILURES = "METARUN_FAILURES"  # in the environment of each job: the file to which it adds a line when it fails
LONGEST = 255  # bytes that file systems allow a name


def name_folder(words: str) -> str:
    """The folder of a job, by the words that Hydra joins: those, or where they make no legal name, a short form.

    The short form is their beginning and a digest, so that the same words always have the same folder.
    """
    parts = words.split("/")  # experiment=finn2017/omniglot_5w1s lies in a folder of its own
    if all(0 < len(p.encode()) <= LONGEST and p.isprintable() and p not in (".", "..") for p in parts) or not words:
        return words
    beginning = "".join(char if char.isprintable() and char != "/" else "_" for char in words)
    return f"{beginning.encode()[:200].decode(errors='ignore')}-{hashlib.sha256(words.encode()).hexdigest()[:16]}"


OmegaConf.register_new_resolver("metarun_folder", name_folder, replace=True)  # jobs of a launcher import this too


def refuse_ranges(overrides: Overrides, sweeper: DictConfig) -> None:
    """Raises UsageError for a range in a sweep that is no search."""
    for override in overrides.sweeps:
        if isinstance(override.value(), IntervalSweep) and sweeper._target_.endswith("BasicSweeper"):
            key, word = override.get_key_element(), override.input_line
            raise UsageError(
                f"{word!r} (command line): a range is for a search; add -m sweep=optuna, or give values, {key}=A,B"
            )


def note_failure(words: list[str], folder: Path, error: Exception) -> None:
    """Notes that a job of this sweep failed; its own folder may be in use or another run's, and then says nothing."""
    failure = {"words": words, "folder": str(folder.resolve()), "error": str(error) or type(error).__name__}
    Path(os.environ[FAILURES]).parent.mkdir(parents=True, exist_ok=True)
    with open(os.environ[FAILURES], "a", encoding="utf-8") as file:
        file.write(json.dumps(failure) + "\n")


def run_sweep(run: Callable[[], None], folder: Path, failures: Path, search: Search | None = None) -> None:
    """Runs all jobs of a sweep or a search, which note failures in a file, and prints the closing words.

    Raises MetarunError where a job failed; StoppedError, with how to go on, where a signal came.
    """
    failed = []
    try:
        run()
    except StoppedError as error:
        again = f"for all other jobs repeat the sweep with hydra.sweep.dir={typed_path(folder)}"
        raise StoppedError(f"{error}; {search.how_to_repeat(folder) if search else again}", error.code - 128) from error
    finally:
        if failures.exists():
            failed = [json.loads(line) for line in failures.read_text(encoding="utf-8").splitlines()]
            failures.unlink()
        if search:
            print(printable(describe_search(search, folder, failed)))
        else:
            _print_runs(folder, failed)
    if failed:
        raise MetarunError(
            f"{count_of(len(failed), 'job')} failed (sweep): expected all to finish; see above, and metarun.log in "
            "their directories"
        )


def _print_runs(folder: Path, failed: list[dict]) -> None:
    """Prints a line for each run in the folder: the words that not all share, its result; and for each refused job."""
    from metarun.results.runs import find_runs
    from metarun.storage.rundir import RunDir

    lines = []
    for path in find_runs(folder) if folder.is_dir() else []:
        rundir = RunDir(path)
        try:
            lines.append((rundir.overrides() or [path.name], _describe(rundir), path))
        except MetarunError as error:
            lines.append(([path.name], f"failed: {error}", path))
    listed = {(path, result) for _, result, path in lines}
    for job in failed:
        if (Path(job["folder"]), f"failed: {job['error']}") not in listed:  # it never became a run
            lines.append((job["words"], f"failed: {job['error']}", Path(job["folder"])))
    same = set.intersection(*(set(words) for words, *_ in lines)) if len(lines) > 1 else set()
    names = [" ".join(word for word in words if word not in same) for words, *_ in lines]
    width = max(map(len, names), default=0)
    for name, (_, result, path) in zip(names, lines, strict=True):
        print(printable(f"{name:<{width}}  {result}  {short_path(path)}"))


def _describe(rundir: RunDir) -> str:
    """The result of a run, or how it ended."""
    status, summary = rundir.status(), rundir.summary()
    if status and status.status != "done":
        return f"{status.status}: {status.error}" if status.error else f"{status.status} at outer step {status.step}"
    if summary is None:
        return "failed: no result"
    val = f"val {format_metric(summary.metric, summary.validation.mean)}  " if summary.validation else ""
    return f"{val}test {summary.metric} {format_metric(summary.metric, summary.test.mean, summary.test.ci95)}"
