"""The closing words of a search: the best trials, how many failed or were pruned, and where all of them are."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarun.config.keys import key_of
from metarun.errors import MetarunError
from metarun.storage.rundir import RunDir
from metarun.text import count_of, format_metric, short_path, spell_plain, typed_path

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from metarun.commands.search import Search

BEST = 5  # trials that have a line


def describe_search(search: Search, folder: Path, failed: list[dict[str, Any]]) -> str:
    """The closing words.

    Args:
        search: done or stopped.
        folder: of its runs.
        failed: the words, the folder and the error of each job that failed.
    """
    if search.study is None:
        return ""
    trials = search.study.get_trials(deepcopy=False)
    by_end: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        by_end.setdefault(_end_of(trial), []).append(trial)
    sign = 1 if search.direction == "minimize" else -1
    finished = sorted(by_end.get("finished", []), key=lambda trial: (sign * trial.value, trial.number))
    counts = ", ".join(f"{len(some)} {end}" for end, some in sorted(by_end.items()))
    mean = f", the mean over {len(search.seeds)} seeds" if len(search.seeds) > 1 else ""
    first = "smallest" if sign > 0 else "largest"
    lines = ["", f"search, {count_of(len(trials), 'trial')}: {counts or 'none'}"]
    if finished:
        lines.append(f"the best by validation {search.metric}{mean}, {first} first:")
    times = Counter(map(_chosen, finished))  # trials of the same values are the same runs
    for chosen in list(times)[:BEST]:
        trial = next(trial for trial in finished if _chosen(trial) == chosen)
        repeated = f" ({times[chosen]} trials)" if times[chosen] > 1 else ""
        lines.append(f"  {format_metric(search.metric, trial.value):<9} {_words(trial)}{repeated}")
    if len(times) > BEST:
        lines.append(f"  and {len(times) - BEST} more")
    more = {}
    if failed:
        words = " ".join(_searched(search, failed[0]["words"]))
        more["failed"] = f"{count_of(len(failed), 'job')}, the first {words}: {failed[0]['error']}"
    if pruned := by_end.get("pruned"):
        last = pruned[-1]
        more["pruned"] = f"{_words(last)} was the last"
        if folders := last.user_attrs.get("folders"):
            more["pruned"] += f"; to go on: metarun resume {typed_path(Path(folders[-1]))}"
    if finished:
        best = finished[0]
        more["best trial"] = f"{_words(best)}  val {search.metric} {format_metric(search.metric, best.value)}"
        more["test"] = _tests(best)
        more["files"] = _folders(best)
        more |= {"full run": _full_run(search, best)} if search.folders.primary is None else {}
    if folder.is_dir():
        more["all runs"] = f"metarun table {typed_path(folder)}"
    return "\n".join([*lines, *(f"{name:<14}{text}" for name, text in more.items())])


def _end_of(trial: FrozenTrial) -> str:
    names = {"COMPLETE": "finished", "FAIL": "failed", "PRUNED": "pruned"}
    return trial.user_attrs.get("end") or names.get(trial.state.name, "unfinished")


def _chosen(trial: FrozenTrial) -> tuple[tuple[str, Any], ...]:
    """The values that were chosen for a trial, by key."""
    return tuple(trial.params.items())


def _words(trial: FrozenTrial) -> str:
    return " ".join(_spell_chosen(trial))


def _spell_chosen(trial: FrozenTrial) -> list[str]:
    """The words of what was chosen for a trial, with four digits of a number, as many as one reads."""
    values = {key: f"{v:.4g}" if isinstance(v, float) else spell_plain(v) for key, v in trial.params.items()}
    return [f"{key}={value}" for key, value in values.items()]


def _full_run(search: Search, best: FrozenTrial) -> str:
    """What to type for the run of a trial, over all of meta_steps, without what makes it a trial of a search."""
    fixed = [word.removeprefix("++") for word in search.fixed]
    words = [word for word in fixed if key_of(word) not in (*best.params, "sweep", "budget", "objective")]
    seeds = [word.partition("=")[2] for several in search.seeds for word in several]
    first = ["-m", f"seed={','.join(seeds)}"] if len(seeds) > 1 else [f"seed={seed}" for seed in seeds]
    choices = ["-cd", str(short_path(search.folders.extra))] if search.folders.extra else []
    chosen = [f"{key}={spell_plain(value)}" for key, value in best.params.items()]  # with all digits: it is to be typed
    return shlex.join(["metarun", *choices, *first, *words, *chosen])


def _searched(search: Search, words: list[str]) -> list[str]:
    """The words of a job that not all trials share."""
    return [word for word in words if word not in search.fixed]


def _folders(trial: FrozenTrial) -> str:
    return " ".join(typed_path(Path(folder)) for folder in trial.user_attrs.get("folders", []))


def _tests(trial: FrozenTrial) -> str:
    """The tests of a trial's runs."""
    found = []
    for folder in trial.user_attrs.get("folders", []):
        try:
            summary = RunDir(Path(folder)).summary()
        except MetarunError:
            summary = None
        test = summary and f"{summary.metric} {format_metric(summary.metric, summary.test.mean, summary.test.ci95)}"
        found.append(test or f"none in {short_path(Path(folder))}")
    return ", ".join(found)
