"""A sweep: what a search has to be, the folder of each job, and the closing words."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.types import IntervalSweep
from omegaconf import DictConfig, OmegaConf

from metarun.config.overrides import Overrides
from metarun.config.schema import Config
from metarun.errors import MetarunError, StoppedError, UsageError
from metarun.text import format_metric, printable, short_path, typed_path

if TYPE_CHECKING:
    from metarun.storage.records import Summary

NOTES = "METARUN_NOTES"  # in the environment of each job: the folder in which it notes how it ended
LONGEST = 255  # bytes that file systems allow a name


def name_folder(words: str) -> str:
    """The folder of a job: the words that Hydra joins, or where they are too long, their beginning and a digest."""
    if all(
        len(part.encode()) <= LONGEST for part in words.split("/")
    ):  # experiment=finn2017/omniglot_5w1s has a folder
        return words
    beginning = words.replace("/", "_").encode()[:200].decode(errors="ignore")
    return f"{beginning}-{hashlib.sha256(words.encode()).hexdigest()[:16]}"


OmegaConf.register_new_resolver("metarun_folder", name_folder, replace=True)  # jobs of a launcher import this too


def check_ranges(overrides: Overrides, sweeper: DictConfig) -> list[str]:
    """A word for each key with a range. Raises UsageError for a range without a search, and a search without any."""
    if sweeper._target_.endswith("OptunaSweeper") and not overrides.sweeps:
        raise UsageError(
            "'sweep=optuna' (command line): nothing to choose; give a key a range: key=interval(LESS,MORE)"
        )
    words = []
    for override in overrides.sweeps:
        if isinstance(value := override.value(), IntervalSweep):
            key, word = override.get_key_element(), override.input_line
            if sweeper._target_.endswith("BasicSweeper"):
                raise UsageError(
                    f"{word!r} (command line): a range is for a search; add -m sweep=optuna, or give values, {key}=A,B"
                )
            words.append(f"{key}={value.start}")
    return words


def check_objective(configs: list[Config], sweeper: DictConfig) -> None:
    """Raises UsageError for a search that would see the test tasks."""
    if not sweeper._target_.endswith("OptunaSweeper"):
        return
    if any(config.objective == "test" for config in configs):
        raise UsageError("'test' (objective): expected val; a search must not see the test tasks")
    import optuna

    optuna.logging.disable_default_handler()  # the closing words say how its trials end,
    optuna.logging.enable_propagation()  # and what it warns of is still said
    logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.ERROR)


def describe_result(summary: Summary) -> str:
    """The result of a run in a few words."""
    val = f"val {format_metric(summary.metric, summary.validation.mean)}  " if summary.validation else ""
    return f"{val}test {summary.metric} {format_metric(summary.metric, summary.test.mean, summary.test.ci95)}"


def note_job(number: int, words: list[str], folder: Path, result: str) -> None:
    """Notes how a job of this sweep ended; its own folder may be in use or another run's, and then says nothing."""
    notes = Path(os.environ[NOTES])
    notes.mkdir(parents=True, exist_ok=True)
    note = {"words": words, "folder": str(folder.resolve()), "result": result}
    (notes / f"{number:06}.json").write_text(json.dumps(note), encoding="utf-8")


def run_sweep(run: Callable[[], None], folder: Path, notes: Path) -> None:
    """Runs all jobs of a sweep, which note how they end, and prints a line for each.

    Raises MetarunError where a job failed; StoppedError, with how to go on, where a signal came.
    """
    jobs = []
    try:
        run()
    except StoppedError as error:
        again = f"for all other jobs repeat the sweep with hydra.sweep.dir={typed_path(folder)}"
        raise StoppedError(f"{error}; {again}", error.code - 128) from error
    finally:
        jobs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(notes.glob("*.json"))]
        shutil.rmtree(notes, ignore_errors=True)
        _print_jobs(jobs)
    if failed := sum(job["result"].startswith("failed: ") for job in jobs):
        raise MetarunError(
            f"{failed} of {len(jobs)} jobs failed (sweep): expected all to finish; see above, and metarun.log "
            "in their directories"
        )


def _print_jobs(jobs: list[dict]) -> None:
    """Prints a line for each job: the words that not all share, how it ended, its folder."""
    shared = set.intersection(*(set(job["words"]) for job in jobs)) if len(jobs) > 1 else set()
    names = [" ".join(word for word in job["words"] if word not in shared) for job in jobs]
    width = max(map(len, names), default=0)
    for name, job in zip(names, jobs, strict=True):
        print(printable(f"{name:<{width}}  {job['result']}  {short_path(Path(job['folder']))}"))
