"""Rows compared task by task: which were tested on the same tasks, the one to choose, how far the others are from it.

    one seed       d = mean over tasks of the paired differences,   t s/√T (clustered as the tasks are)
    S seeds        d = mean over seeds of those means,              t s/√S over seeds, paired by seed

Where tasks share classes or tables, all seeds share them too: what an interval over tasks is wider for that is in the
one over seeds as well, sqrt(w² + c²), for the spread over seeds has nothing of it.

Rows are comparable where the seeds that both have were tested on the same tasks; their difference is over those. Task i
is a function of seed, split and i alone, so that the first tasks of one row may be all of another: they are then
compared on those. Among comparable rows the best is chosen by validation, for the best of several tests is no test;
over the seeds that all of them have, for the tasks of another seed are others: a row that has none of those which the
rows before it share is not compared with them.
Where validation does not tell them apart, as among evaluations of one run, differences are to the best in the test, and
`Contest.by` says so.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from metarun import intervals
from metarun.config.keys import leaves
from metarun.config.schema import PATHS
from metarun.results.runs import Digest, Run


@dataclass(frozen=True)
class Difference:
    """The difference to the best of comparable rows, with its 95% interval; zero for the best itself.

    `equal` is whether both have the same metric on every task.
    """

    mean: float = 0.0
    ci95: float = 0.0
    best: bool = False
    equal: bool = False


@dataclass(frozen=True)
class Contest:
    """Comparable rows.

    Attributes:
        rows: their numbers, in order; at least two.
        best: the number of the row to choose, by validation or, where that does not tell them apart, by the test.
        means: of each row on the tasks that all have, over its seeds.
        tasks: how many tasks of each seed both have, a row and the best, by number.
        seeds: how many seeds both have, by number.
        shared: whether all seeds were tested on the same tasks.
        chosen_over: the seeds over which the best is chosen: those that all rows have; none where that is no matter.
    """

    rows: tuple[int, ...]
    best: int
    by: Literal["validation", "test"]
    best_in_test: int
    means: Mapping[int, float]
    tasks: Mapping[int, int]
    seeds: Mapping[int, int]
    shared: bool = False
    chosen_over: tuple[int, ...] = ()


@dataclass(frozen=True)
class Contender:
    """A row: its number, its runs, one for each seed in order, and the validation of each model if it is known."""

    number: int
    runs: Sequence[Run]
    validations: Sequence[float | None]

    @property
    def tasks(self) -> int:
        """How many test tasks each of its seeds has."""
        return min(len(run.each) for run in self.runs)


def compare_rows(rows: Sequence[Contender], *, higher: bool) -> dict[int, tuple[Contest, Difference]]:
    """By number, the contest of each row that has one, and its difference to the best there.

    `higher` is whether more is better.
    """
    clusters = {run.digest: run.clusters for row in rows for run in row.runs if run.digest and run.clusters}
    found = {}
    for group in _group(rows):
        if len(group) < 2:
            continue
        tasks = min(row.tasks for row in group)
        contest = _judge(group, tasks, higher)
        best = next(row for row in group if row.number == contest.best)
        for row in (row for row in group if contest.seeds[row.number]):
            difference = Difference(best=True) if row is best else _subtract(row, best, clusters)
            found[row.number] = contest, difference
    return found


def _group(rows: Sequence[Contender]) -> list[list[Contender]]:
    """The rows by what they were tested on, in the order of their numbers; those of the most tasks and seeds first."""
    known = {run.digest: run.each_digest for row in rows for run in row.runs if run.each_digest}
    groups: list[list[Contender]] = []
    kept = [row for row in rows if all(run.digest for run in row.runs)]
    for row in sorted(kept, key=lambda row: (-len(row.runs[0].each), -len(row.runs))):
        fitting = (g for g in groups if _begin_alike(g[0].runs, row.runs, known) and _share_seeds([*g, row]))
        group = next(fitting, None)
        groups.append([row]) if group is None else group.append(row)
    return [sorted(group, key=lambda row: row.number) for group in groups]


def _share_seeds(rows: Sequence[Contender]) -> bool:
    """Whether there is a seed that all rows have; or none is needed, for all runs were tested on the same tasks."""
    seeds = [{run.trained.seed for run in row.runs} for row in rows]
    return bool(set.intersection(*seeds)) or len({run.digest for row in rows for run in row.runs}) == 1


def _begin_alike(more: Sequence[Run], fewer: Sequence[Run], known: Mapping[Digest | None, str]) -> bool:
    """Whether the tasks of each run of the second row are the first ones of that run of the first row."""
    pairs = _pair(more, fewer)
    for run, shorter in pairs:
        begin = known.get(shorter.digest)
        if run.digest != shorter.digest and (begin is None or not known.get(run.digest, "").startswith(begin)):
            return False
    return bool(pairs)


def _pair(a: Sequence[Run], b: Sequence[Run]) -> list[tuple[Run, Run]]:
    """The runs of two rows that have the same seed of training; where there are none, in order."""
    seeds = {run.trained.seed: run for run in b}
    pairs = [(run, seeds[run.trained.seed]) for run in a if run.trained.seed in seeds]
    return pairs or (list(zip(a, b, strict=True)) if len(a) == len(b) else [])


def _judge(group: Sequence[Contender], tasks: int, higher: bool) -> Contest:
    """The contest of comparable rows on their first tasks."""
    sign, judged = -1 if higher else 1, _over_shared_seeds(group)
    means = {r.number: statistics.fmean(statistics.fmean(run.each[:tasks]) for run in r.runs) for r in judged}
    best_in_test = min(means, key=lambda number: sign * means[number])
    best, by = best_in_test, "test"
    if len({_validated_on(run) for row in group for run in row.runs}) == 1:
        # An evaluation has the validation of its run, which is before it where both are here.
        known = {r.number: [value for value in r.validations if value is not None] for r in judged}
        order = {
            r.number: (sign * statistics.fmean(known[r.number]), r.runs[0].evaluation)
            for r in judged
            if len(known[r.number]) == len(r.runs)
        }
        first = min(order, key=order.__getitem__, default=0)
        if len(order) == len(group):
            # Rows that have the same metric on every task are one model, whichever is taken.
            ties = [[run.each[:tasks] for run in r.runs] for r in judged if order[r.number] == order[first]]
            best, by = (first, "validation") if all(tie == ties[0] for tie in ties) else (best, by)
    chosen = next(row for row in group if row.number == best)
    return Contest(
        rows=tuple(means),
        best=best,
        by=by,
        best_in_test=best_in_test,
        means=means,
        tasks={row.number: min(row.tasks, chosen.tasks) for row in group},
        seeds={row.number: len(_pair(row.runs, chosen.runs)) for row in group},
        shared=any(len({run.digest for run in row.runs}) < len(row.runs) for row in group),
        chosen_over=tuple(run.trained.seed for run in judged[0].runs) if judged != list(group) else (),
    )


def _over_shared_seeds(group: Sequence[Contender]) -> list[Contender]:
    """The rows over the seeds that all of them have; as they are, where there are none and all have the same tasks."""
    shared = set.intersection(*({run.trained.seed for run in row.runs} for row in group))
    if not shared:
        return list(group)
    judged = []
    for row in group:
        kept = [n for n, run in enumerate(row.runs) if run.trained.seed in shared]
        judged.append(Contender(row.number, [row.runs[n] for n in kept], [row.validations[n] for n in kept]))
    return judged


def _validated_on(run: Run) -> str:
    """What tells validations on other problems apart: the settings of the source, where an evaluation changed those."""
    if not any(key == "data" or key.startswith("data.") for key in run.changes):
        return ""
    data = {key: value for key, value in leaves({"data": run.trained.data}) if key.partition(".")[2] not in PATHS}
    return json.dumps(data, sort_keys=True)


def _subtract(row: Contender, best: Contender, clusters: Mapping[Digest | None, intervals.Clusters]) -> Difference:
    """The difference of two rows on the tasks and over the seeds that both have; of one seed over those tasks."""
    tasks, pairs = min(row.tasks, best.tasks), _pair(row.runs, best.runs)
    gaps = [[a - b for a, b in zip(run.each[:tasks], other.each[:tasks], strict=True)] for run, other in pairs]
    equal = not any(map(any, gaps))
    found = []
    for gap, pair in zip(gaps, pairs, strict=True):
        shared = next((clusters[run.digest] for run in pair if run.digest in clusters), None)
        if shared is not None and len(shared.members) > tasks:
            shared = intervals.Clusters(shared.members[:tasks])
        found.append((*intervals.over_tasks(gap, clusters=shared), intervals.over_tasks(gap)[1]))
    means, widths, unclustered = zip(*found, strict=True)
    if (ci95 := intervals.over_seeds(means, widths, unclustered)) is None:
        return Difference(*found[0][:2], equal=equal)
    return Difference(statistics.fmean(means), ci95, equal=equal)
