"""Runs compared: one row for each configuration, averaged over its seeds.

Two kinds of uncertainty are kept apart, because they answer different questions:

    ± tasks   these trained models, on other tasks:   1.96 s/√T, over T tasks; of S models sqrt(Σ ci²)/S
    ± seeds   other trained models:                   t s/√S, over S seeds, t of Student's distribution (95 %)

Two rows that were tested on the very same tasks are compared task by task, which is far sharper than comparing their
intervals: the mean of the differences, and their ± tasks.
"""

import json
import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from metarun.config import among, leaves
from metarun.runs import PLACES, LeftOut, Run, key_of, left, over_tasks

# A configuration is everything but these: who repeats it elsewhere, or with another seed, repeats the same one.
APART = ("seed", "checkpoint_every", "log_every", *PLACES)
ABSENT = object()  # a key that another algorithm has
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
        difference: to the best of them, over the tasks that both were tested on, with its 95% interval.
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

    def __post_init__(self):
        tests = [run.test for run in self.runs]
        self.mean, self.ci95_tasks = pooled(tests)
        self.ci95_seeds = over_seeds([test["mean"] for test in tests])
        best = [run.validation for run in self.runs]
        self.validation = None if None in best else statistics.fmean(value for value in best if value is not None)
        first = self.runs[0]
        as_published = "published" in first.typed or not (first.typed or first.changes)
        self.published = first.config.published if as_published else None
        if self.published:
            self.verdict = verdict(self.mean, self.ci95_tasks, self.published)
        steps = min(len(test["by_step"]) for test in tests)
        wanted = [step for step in (self.published or {}).get("by_step") or {} if step < steps]
        self.by_step = {step: pooled([test["by_step"][step] for test in tests]) for step in wanted}

    @property
    def metric(self) -> str:
        """`accuracy` or `mse`."""
        return self.runs[0].metric

    @property
    def tasks(self) -> int:
        """Test tasks of each seed."""
        return self.runs[0].test["tasks"]


def pooled(points: list[dict[str, Any]]) -> tuple[float, float]:
    """The mean of several models' means, and its interval over tasks; each model has tasks of its own."""
    mean = statistics.fmean(point["mean"] for point in points)
    return mean, math.hypot(*(point["ci95"] for point in points)) / len(points)


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
        group = [run.metric, run.evaluation, run.changes, _identity(run)]
        seeds = groups.setdefault(json.dumps(group, sort_keys=True), {})
        if (first := seeds.setdefault(run.trained.seed, run)) is not run:
            again.append(left(run.rundir.path, f"the same configuration and seed as {first.rundir.shown}"))
    members = [[seeds[seed] for seed in sorted(seeds)] for seeds in groups.values()]
    rows = []
    for metric in dict.fromkeys(some[0].metric for some in members):  # what they are compared among
        alike = [some for some in members if some[0].metric == metric]
        rows += [Row(some, keys) for some, keys in zip(alike, _differing([some[0] for some in alike]), strict=True)]
    for row in rows:
        _compare(row, rows)
    return rows, again


def _identity(run: Run) -> dict[str, Any]:
    """What makes a configuration the one it is, key by key; null is as good as absent, as in older saved configs."""
    flat = {key: _canonical(value) for key, value in leaves(run.config.plain()) if not among(APART, key)}
    return {key: value for key, value in flat.items() if value is not None}


def _canonical(value: Any) -> Any:
    """1.0 as 1: whoever types either means the same."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _differing(runs: list[Run]) -> list[dict[str, Any]]:
    """For each of these runs the keys that tell it from the others.

    Algorithms, task sources and learners are told apart by name, and their settings only where they differ under one
    name, or were typed; published experiments by their names, and beyond those by what was typed.
    """
    flat, kinds = [_identity(run) for run in runs], [_kinds(run) for run in runs]
    named = all(run.experiment for run in runs)
    typed = {key_of(word) for run in runs for word in run.words}
    chosen: list[dict[str, Any]] = [{} for _ in runs]

    def tell(key: str, values: list[Any]) -> None:
        for row, value in zip(chosen, values, strict=True):
            row.update({} if value is ABSENT else {key: value})

    tell("experiment", [run.experiment or ABSENT for run in runs])
    if named and any(run.config.budget != 1 for run in runs):
        tell("budget", [run.config.budget for run in runs])
    for section in () if named else kinds[0]:
        if len({kind[section] for kind in kinds}) > 1:
            tell(section, [kind[section] for kind in kinds])
    for key in dict.fromkeys(key for one in flat for key in one):
        section, _, last = key.partition(".")
        values = [one.get(key, ABSENT) for one in flat]
        of_kind = {(kind.get(section), repr(value)) for kind, value in zip(kinds, values, strict=True)}
        within = len(of_kind) > len({kind for kind, _ in of_kind})
        chosen_apart = key in typed and len(set(map(repr, values))) > 1
        if last != "_target_" and (chosen_apart or (within and not named)):
            tell(key, values)
    for title, changed in (("changed", _changed), ("eval", _evaluated)):
        tell(title, [changed(run, row) or ABSENT for run, row in zip(runs, chosen, strict=True)])
    return chosen


def _changed(run: Run, keys: dict[str, Any]) -> str:
    """What was typed beside an experiment and has no column."""
    return " ".join(word for key, word in run.typed.items() if run.experiment and key not in keys)


def _evaluated(run: Run, keys: dict[str, Any]) -> str:
    """What an evaluation changed and has no column."""
    rest = [f"{key}={json.dumps(value)}" for key, value in run.changes.items() if key not in keys]
    return " ".join(rest) if rest or not run.evaluation or run.changes else "again"


def _kinds(run: Run) -> dict[str, str]:
    """What the sections of a config are, by name."""
    plain = run.config.plain()
    classes = {name: str(plain[name].get("_target_", "")).rpartition(".")[2] for name in ("data", "model")}
    return {"algo": run.summary.get("algorithm", run.summary["title"].partition(" on ")[0]), **classes}


def _compare(row: Row, rows: list[Row]) -> None:
    """Puts into a row its difference to the best of those that were tested on the same tasks."""
    mine = {run.digest: run.each for run in row.runs if run.digest}
    same = [other for other in rows if mine.keys() & {run.digest for run in other.runs} and other.metric == row.metric]
    if len(same) < 2:
        return
    best = (max if row.metric == "accuracy" else min)(same, key=lambda other: other.mean)
    row.best = best is row
    if best is row:
        return
    theirs = {run.digest: run.each for run in best.runs}
    points = []
    for digest in mine.keys() & theirs.keys():
        mean, ci95 = over_tasks([a - b for a, b in zip(mine[digest], theirs[digest], strict=True)])
        points.append({"mean": mean, "ci95": ci95})
    row.difference = pooled(points)
