"""The closing words of a search: the best trials, how many failed or were pruned, and where all of them are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarun.errors import MetarunError
from metarun.storage.rundir import RunDir
from metarun.text import count_of, format_metric, short_path, typed_path

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
    times = Counter(map(_words, finished))  # trials of the same words are the same runs
    for words in list(times)[:BEST]:
        value = next(trial.value for trial in finished if _words(trial) == words)
        repeated = f" ({times[words]} trials)" if times[words] > 1 else ""
        lines.append(f"  {format_metric(search.metric, value):<9} {words}{repeated}")
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
    if folder.is_dir():
        more["all runs"] = f"metarun table {typed_path(folder)}"
    return "\n".join([*lines, *(f"{name:<14}{text}" for name, text in more.items())])


def _end_of(trial: FrozenTrial) -> str:
    names = {"COMPLETE": "finished", "FAIL": "failed", "PRUNED": "pruned"}
    return trial.user_attrs.get("end") or names.get(trial.state.name, "unfinished")


def _words(trial: FrozenTrial) -> str:
    """What was chosen for a trial, with six digits of a number."""
    return " ".join(
        f"{key}={f'{value:.6g}' if isinstance(value, float) else value}" for key, value in trial.params.items()
    )


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
