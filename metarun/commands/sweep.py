"""A sweep: what a search has to be, the folder of each job, and the closing words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metarun.commands.search_words import describe_search
from metarun.commands.sweep_progress import SweepProgress, following, read_notes
from metarun.config.overrides import Overrides, parse
from metarun.config.schema import Config
from metarun.errors import MetarunError, StoppedError, UsageError
from metarun.run.signals import stop_at_once
from metarun.text import count_of, format_metric, printable, short_path, typed_path

if TYPE_CHECKING:
    from metarun.commands.search import Search
    from metarun.storage.rundir import RunDir


def refuse_ranges(overrides: Overrides, sweepers: list[DictConfig]) -> None:
    """Raises UsageError for a range in a sweep that is no search: in a word, or in a file."""
    brought = [parse(f"{key}={value}" for key, value in (s.get("params") or {}).items()) for s in sweepers]
    for override in [sweep for each in (overrides, *brought) for sweep in each.sweeps]:
        if isinstance(override.value(), IntervalSweep) and sweepers[0]._target_.endswith("BasicSweeper"):
            key, word = override.get_key_element(), override.input_line
            raise UsageError(
                f"{word!r} (command line): a range is for a search; add -m sweep=optuna, or give values, {key}=A,B"
            )


def check_together(settings: list[DictConfig], multirun: bool, searches: bool) -> None:
    """Checks Hydra's own settings of the jobs of a sweep, or of the one run.

    Raises:
        UsageError: they need another launcher, sweeper or folder each; or files bring values to a run that is no sweep,
            or to some trials of a search.
    """
    for hydra in settings:  # with the same clock, in ${now:%H-%M-%S}
        OmegaConf.copy_cache(settings[0]._get_root(), hydra._get_root())
    if multirun and len(folders := {str(hydra.sweep.dir): None for hydra in settings}) > 1:
        raise UsageError(f"{' and '.join(folders)} (hydra.sweep.dir): expected one folder for all jobs of the sweep")
    subdir = OmegaConf.to_container(settings[0].sweep, resolve=False)["subdir"]  # pyright: ignore
    if len(settings) > 1 and "${" not in subdir:
        rule = "expected a name with something of each job, such as ${hydra.job.num}; or leave it out"
        raise UsageError(f"{subdir!r} (hydra.sweep.subdir): {rule}")
    if "${hydra.job." not in subdir and len(settings) > 1:  # those it can have once the jobs are launched
        try:
            names = [str(hydra.sweep.subdir) for hydra in settings]
        except OmegaConfBaseException as error:
            rule = "expected values such as ${hydra.job.num} or ${seed}; a choice is ${hydra.runtime.choices.algo}"
            raise UsageError(f"{subdir!r} (hydra.sweep.subdir): {rule}") from error
        [(twice, jobs)] = Counter(names).most_common(1)
        if jobs > 1:
            rule = "expected a folder for each, or one writes over the other; add ${hydra.job.num}, or leave it out"
            raise UsageError(f"{twice} (hydra.sweep.subdir): is the folder of {jobs} jobs: {rule}")
    plain: list[Any] = [OmegaConf.to_container(hydra, resolve=False) for hydra in settings]
    for hydra in plain:
        params = hydra["sweeper"].get("params") or {}
        if params and not multirun:
            raise UsageError(f"{', '.join(params)} (hydra.sweeper.params): a sweep has several runs; add -m")
        if searches and params != (plain[0]["sweeper"].get("params") or {}):
            raise UsageError(f"{', '.join(params)} (hydra.sweeper.params): expected the same for all of a search")
        if not searches:
            hydra["sweeper"].pop("params", None)
    for key in ("launcher", "sweeper", "sweep"):
        if any(hydra[key] != plain[0][key] for hydra in plain):
            raise UsageError(
                f"hydra.{key} (sweep): not the same for all jobs, as files bring it; expected one; make a sweep of each"
            )


def choices_of(hydra: Any) -> dict[str, str]:
    """The choices of a job by group, such as {"algo": "maml"}, given Hydra's own settings."""
    return {group: name for group, name in hydra.runtime.choices.items() if name and "hydra/" not in group}


def refuse_twins(jobs: list[tuple[list[str], Config, DictConfig]]) -> None:
    """Raises UsageError for two jobs that are the same run: they would share a folder."""
    seen: dict[str, list[str]] = {}
    for words, config, hydra in jobs:
        same = seen.setdefault(json.dumps([config.plain(), choices_of(hydra)], sort_keys=True), words)
        if same is not words:
            other = "" if same == words else f", as with {' '.join(same)}"
            raise UsageError(f"{' '.join(words)} (sweep): twice the same run{other}; give each value once")


def run_sweep(run: Callable[[], None], folder: Path, progress: SweepProgress, search: Search | None = None) -> None:
    """Runs all jobs of a sweep or a search, which note their ends in a file, and prints the closing words.

    Raises MetarunError where a job failed; StoppedError, with how to go on, where a signal came.
    """
    failed = []
    try:
        with stop_at_once("nothing that was saved is lost"), following(progress):
            run()
    except StoppedError as error:
        again = f"for all other jobs repeat the sweep with hydra.sweep.dir={typed_path(folder)}"
        raise StoppedError(f"{error}; {search.how_to_repeat(folder) if search else again}", error.code - 128) from error
    finally:
        failed = [line for line in read_notes(progress.notes) if line.get("error")]
        progress.notes.unlink(missing_ok=True)
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
    from metarun.results.runs import find_runs, read_words
    from metarun.storage.records import Environment
    from metarun.storage.rundir import RunDir

    lines = []
    for path in find_runs(folder) if folder.is_dir() else []:
        rundir = RunDir(path)
        try:
            words = read_words(rundir, rundir.environment() or Environment())
            lines.append(([*words.values()] or [path.name], describe_end(rundir), path))
        except MetarunError as error:
            lines.append(([path.name], f"failed: {error}", path))
    listed = {(path.resolve(), result.partition(": ")[2]) for _, result, path in lines}
    for job in failed:
        if (Path(job["folder"]), job["error"]) not in listed:  # it never became a run, or that says another thing
            lines.append((job["words"], f"failed: {job['error']}", Path(job["folder"])))
    same = set.intersection(*(set(words) for words, *_ in lines)) if len(lines) > 1 else set()
    names = [" ".join(word for word in words if word not in same) for words, *_ in lines]
    width = max(map(len, names), default=0)
    for name, (_, result, path) in zip(names, lines, strict=True):
        print(printable(f"{name:<{width}}  {result}  {short_path(path)}"))


def describe_end(rundir: RunDir) -> str:
    """The result of a run, or how it ended."""
    status, summary = rundir.status(), rundir.summary()
    if status and status.status != "done":
        return f"{status.status}: {status.error}" if status.error else f"{status.status} at outer step {status.step}"
    if summary is None:
        return "failed: no result"
    val = f"val {format_metric(summary.metric, summary.validation.mean)}  " if summary.validation else ""
    return f"{val}test {summary.metric} {format_metric(summary.metric, summary.test.mean, summary.test.ci95)}"
