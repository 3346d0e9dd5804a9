"""Runs compared: one row for each configuration, averaged over its seeds.

Two kinds of uncertainty are kept apart, because they answer different questions:

    ± tasks   these trained models, on other tasks:   1.96 s/√T, over T tasks; of S models sqrt(Σ ci²)/S,
              or Σ ci/S where they were tested on the same ones
    ± seeds   other trained models:                   t s/√S, over S seeds, t of Student's distribution (95 %)

Two rows that were tested on the very same tasks are compared task by task, which is far sharper than comparing their
intervals: the mean of the differences, and their ± tasks.
"""

import json
import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from metarun.results.differing import differing, identity
from metarun.results.runs import LeftOut, Run, Tasks, left, over_tasks

# Student's t, two-sided 95 %, for 1 to 10 degrees of freedom (any table of it).
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Verdict:
    """How a mean lies to what a paper reports.

    Attributes:
        where: `inside` the published interval (where there is none, ours), or `above` or `below` it.
        away: our mean less theirs.
        meet: whether our interval and theirs meet, so that what is outside may still be compatible.
    """

    where: str
    away: float
    meet: bool


@dataclass
class Row:
    """One configuration.

    Attributes:
        runs: one for each seed.
        keys: of the configuration, those in which the rows of the table differ.
        mean: over tasks and seeds.
        ci95_tasks: half the width of its 95% interval over tasks.
        ci95_seeds: the same over seeds; None with one.
        validation: the mean over seeds of the best validation; None for an evaluation.
        published: what the experiment says a paper reports; None where there is nothing, or the experiment is not the
            published one any more, because a setting was typed beside it, or changed in an evaluation.
        verdict: how the mean lies to that, or None.
        best: whether no row on the same test tasks is better; None where there is none to compare with.
        difference: to the best of them, over the tasks that all of them were tested on, with its 95% interval.
        shared: whether some of the runs were tested on the same tasks, as evaluations of several models may be.
    """

    runs: list[Run]
    keys: dict[str, Any]
    mean: float = 0.0
    ci95_tasks: float = 0.0
    ci95_seeds: float | None = None
    validation: float | None = None
    published: dict[str, Any] | None = None
    verdict: Verdict | None = None
    best: bool | None = None
    difference: tuple[float, float] | None = None
    by_step: dict[int, tuple[float, float]] = field(default_factory=dict)
    shared: bool = False

    def __post_init__(self):
        tests = [run.test for run in self.runs]
        known = [run.tested_on for run in self.runs if run.tested_on]
        self.shared = len(set(known)) < len(known)
        self.mean, self.ci95_tasks = pooled(tests, self.shared)
        self.ci95_seeds = over_seeds([test["mean"] for test in tests])
        best = [run.validation for run in self.runs]
        self.validation = None if None in best else statistics.fmean(value for value in best if value is not None)
        self.published = next((run.published for run in self.runs if run.published), None)
        if self.published:
            self.verdict = verdict(self.mean, self.ci95_tasks, self.published)
        steps = min(len(test["by_step"]) for test in tests)
        wanted = [step for step in (self.published or {}).get("by_step") or {} if step < steps]
        self.by_step = {step: pooled([test["by_step"][step] for test in tests], self.shared) for step in wanted}

    @property
    def metric(self) -> str:
        """`accuracy` or `mse`."""
        return self.runs[0].metric

    @property
    def tasks(self) -> int:
        """Test tasks of each seed."""
        return self.runs[0].test["tasks"]


def pooled(points: list[dict[str, Any]], shared: bool = False) -> tuple[float, float]:
    """The mean of several models' means, and its interval over tasks.

    Args:
        points: mean and ci95 of each model.
        shared: whether models were tested on the same tasks, instead of each on its own. The interval is then as wide
            as it can be, for models may find the same tasks hard.
    """
    mean, widths = statistics.fmean(point["mean"] for point in points), [point["ci95"] for point in points]
    return mean, statistics.fmean(widths) if shared else math.hypot(*widths) / len(points)


def over_seeds(means: list[float]) -> float | None:
    """Half the width of the 95% interval of the mean of S models, from their spread; None for one."""
    if len(means) < 2:
        return None
    return student(len(means) - 1) * statistics.stdev(means) / math.sqrt(len(means))


def student(freedom: int) -> float:
    """The 97.5 % point of Student's t.

    Above 10 degrees of freedom by its expansion around the normal distribution's (Abramowitz & Stegun, 26.7.5).
    """
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4 / freedom
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96 / freedom**2
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / freedom**3
    return z + first + second + third


def verdict(mean: float, ci95: float, published: dict[str, Any]) -> Verdict:
    """How a mean with this interval lies to a published one, which may have none."""
    theirs, away = published.get("ci95"), mean - published["mean"]
    inside = abs(away) <= (ci95 if theirs is None else theirs)
    where = "inside" if inside else "above" if away > 0 else "below"
    return Verdict(where, away, inside or (theirs is not None and abs(away) <= theirs + ci95))


def rows_of(runs: list[Run]) -> tuple[list[Row], list[LeftOut]]:
    """The rows of a table, and the runs that repeat another one's configuration and seed."""
    groups: dict[str, dict[int, Run]] = {}
    again = []
    for run in runs:
        said = None
        group = [run.metric, run.evaluation, run.changes, identity(run), said]
        seeds = groups.setdefault(json.dumps(group, sort_keys=True), {})
        if (first := seeds.setdefault(run.trained.seed, run)) is not run:
            again.append(left(run.rundir.path, f"the same configuration and seed as {first.rundir.short}"))
    members = [[seeds[seed] for seed in sorted(seeds)] for seeds in groups.values()]
    rows = []
    for metric in dict.fromkeys(some[0].metric for some in members):  # what they are compared among
        alike = [some for some in members if some[0].metric == metric]
        first = [next((run for run in some if run.experiment), some[0]) for some in alike]
        compared = [Row(some, keys) for some, keys in zip(alike, differing(first), strict=True)]
        _compare(compared)
        rows += compared
    return rows, again


def _compare(rows: list[Row]) -> None:
    """Puts into each row its difference to the best of those that were tested on the same tasks."""
    results = [_by_tasks(row) for row in rows]
    where: dict[Tasks, list[int]] = {}
    for number, each in enumerate(results):
        for tasks in each:
            where.setdefault(tasks, []).append(number)
    bests: dict[frozenset[Tasks], tuple[int, set[Tasks]] | None] = {}
    for number, row in enumerate(rows):
        tested = frozenset(results[number])
        if tested not in bests:
            bests[tested] = _best(tested, results, where, higher=row.metric == "accuracy")
        if (found := bests[tested]) is None:
            continue
        best, common = found
        row.best = best == number
        if not row.best:
            pairs = [zip(results[number][tasks], results[best][tasks], strict=True) for tasks in sorted(common)]
            points = [over_tasks([a - b for a, b in pair]) for pair in pairs]
            row.difference = pooled([{"mean": mean, "ci95": ci95} for mean, ci95 in points])


def _best(
    tested: frozenset[Tasks], results: list[dict[Tasks, list[float]]], where: dict[Tasks, list[int]], higher: bool
) -> tuple[int, set[Tasks]] | None:
    """The best row of those that share some of these tasks, and the tasks by which; None where there is but one row.

    Those are what all of the rows were tested on, so that the best is best in every comparison; where there is nothing
    that all were tested on, what most were.
    """
    same = sorted({number for tasks in tested for number in where[tasks]})
    if len(same) < 2:
        return None
    common = set.intersection(*(set(results[number]) for number in same))
    if not common:
        common = {max(sorted(tested), key=lambda tasks: len(where[tasks]))}
        same = where[next(iter(common))]
    means = {n: statistics.fmean(statistics.fmean(results[n][tasks]) for tasks in common) for n in same}
    return (max if higher else min)(same, key=means.__getitem__), common


def _by_tasks(row: Row) -> dict[Tasks, list[float]]:
    """The metric of every test task, by what they are tasks of; of several models their mean."""
    found: dict[Tasks, list[list[float]]] = {}
    for run in row.runs:
        if run.tested_on:
            found.setdefault(run.tested_on, []).append(run.each)
    return {tasks: [statistics.fmean(each) for each in zip(*models, strict=True)] for tasks, models in found.items()}
