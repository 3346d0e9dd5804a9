"""Runs compared: a row for each configuration, averaged over its seeds.

Rows whose seeds were tested on the same tasks are compared task by task, see differences.py, which is far sharper than
comparing their intervals. See intervals.py for those.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from metarun import intervals
from metarun.config.keys import NEWER, leaves, policy
from metarun.config.own_code import spell_target
from metarun.config.schema import Config
from metarun.results.differences import Contender, Contest, Difference, compare_rows
from metarun.results.material import code_of, data_of, describe_material
from metarun.results.runs import LeftOut, Run, leave_out
from metarun.storage.records import Metric, Point, Published, Validation

OUTDATED = "its run went on since, and has another best checkpoint"


@dataclass(frozen=True)
class Verdict:
    """How a mean lies to what a paper reports: where, how far above it, and whether the intervals meet.

    `where` is `inside` the published interval (where there is none, ours), or `above` or `below` it.
    """

    where: str
    away: float
    meet: bool


@dataclass(frozen=True)
class Row:
    """A configuration: its runs, one for each seed, and their mean.

    Attributes:
        keys: the settings, by key, in which the rows of the table differ.
        ci95_tasks: half the width of its 95% interval over tasks.
        ci95_seeds: the same over seeds; None with one seed.
        number: of the row among all that are compared, of any metric, from 1.
        validation: the mean over seeds of the best validation; None for an evaluation.
        model_validation: the same of the models; for an evaluation that of its runs.
        curve: mean and ci95_tasks after each inner step that all its runs made.
        contest: the rows that were tested on the same tasks, all of them; None where there is no other one.
        to_best: the difference to the best of those.
    """

    runs: list[Run]
    keys: dict[str, Any]
    mean: float
    ci95_tasks: float
    ci95_seeds: float | None = None
    number: int = 1
    validation: float | None = None
    model_validation: float | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)
    published: Published | None = None
    verdict: Verdict | None = None
    contest: Contest | None = None
    to_best: Difference | None = None

    @property
    def ci95(self) -> float:
        """The wider of the two intervals: what seeds and tasks together leave open."""
        return max(self.ci95_tasks, self.ci95_seeds or 0.0)

    @property
    def metric(self) -> Metric:
        """`accuracy` or `mse`."""
        return self.runs[0].summary.metric

    @property
    def by_step(self) -> dict[int, tuple[float, float]]:
        """The curve after those inner steps of which a paper reports the mean."""
        steps = self.published.by_step if self.published else ()
        return {step: self.curve[step] for step in steps if step < len(self.curve)}


def compare_runs(runs: Sequence[Run]) -> tuple[list[Row], list[LeftOut]]:
    """The rows of a table, and the runs that repeat another one's configuration and seed, or test what is no more."""
    metrics: dict[Metric, dict[str, dict[int, Run]]] = {}  # by metric, configuration and seed
    repeated = []
    for run in sorted(runs, key=lambda run: run.outdated):  # those last, which others may have taken the place of
        tested, trained = identity(run.config), None
        if run.evaluation:  # what does not act in a test is as it was in training, where that may have gone on since
            tested = {key: value for key, value in tested.items() if policy(key).evaluate}
            trained = _identity_of_training(run)
        changes = {key: value for key, value in run.changes.items() if policy(key).train}
        parts = [run.evaluation, changes, tested, trained, data_of(run), code_of(run)]
        configuration = json.dumps(parts, sort_keys=True)
        if run.outdated:
            newer = metrics.get(run.summary.metric, {}).get(configuration, {}).get(run.trained.seed)
            what = f"{newer.rundir.short} tests that" if newer else "expected a test of that; metarun eval makes it"
            repeated.append(leave_out(run.rundir.path, f"{OUTDATED}: {what}"))
            continue
        seeds = metrics.setdefault(run.summary.metric, {}).setdefault(configuration, {})
        if (first := seeds.setdefault(run.trained.seed, run)) is run:
            continue
        if run.evaluation and first.origin.path == run.origin.path and run.checkpoint_step > first.checkpoint_step:
            seeds[run.trained.seed] = run  # of a run that was not finished at the first one
            repeated.append(leave_out(first.rundir.path, f"{OUTDATED}: {run.rundir.short} tests that"))
        else:
            repeated.append(leave_out(run.rundir.path, f"the same configuration and seed as {first.rundir.short}"))
    rows = []
    for metric, configurations in metrics.items():
        alike = [[seeds[seed] for seed in sorted(seeds)] for seeds in configurations.values()]
        keys = distinguish([next((run for run in group if run.experiment), group[0]) for group in alike])
        made = [make_row(*parts) for parts in zip(alike, keys, count(len(rows) + 1))]
        contenders = []
        for row in made:
            validations = [run.validation and run.validation.mean for run in row.runs]
            contenders.append(Contender(row.number, row.runs, validations))
        found = compare_rows(contenders, higher=metric == "accuracy")
        for row in made:
            contest, to_best = found.get(row.number, (None, None))
            rows.append(replace(row, contest=contest, to_best=to_best))
    return rows, repeated


def make_row(runs: list[Run], keys: dict[str, Any], number: int = 1) -> Row:
    """The row of a configuration from its runs, one for each seed; not yet compared with others."""
    digests = [run.digest for run in runs if run.digest]
    shared = len(set(digests)) < len(digests)  # as evaluations of several models may have the same tasks

    def without_clusters(points: Sequence[Point]) -> list[float]:
        return [point.ci95 if point.unclustered is None else point.unclustered for point in points]

    def pool(points: Sequence[Point]) -> tuple[float, float]:
        return intervals.pooled([(point.mean, point.ci95) for point in points], shared, without_clusters(points))

    tests = [run.summary.test for run in runs]
    mean, ci95 = pool(tests)
    widths = [test.ci95 for test in tests]
    published = next((run.published for run in runs if run.published), None)
    return Row(
        runs=runs,
        keys=keys,
        mean=mean,
        ci95_tasks=ci95,
        ci95_seeds=intervals.over_seeds([test.mean for test in tests], widths, without_clusters(tests)),
        number=number,
        validation=_mean_of([run.summary.validation for run in runs]),
        model_validation=_mean_of([run.validation for run in runs]),
        curve=[pool(points) for points in zip(*(run.summary.test.by_step for run in runs), strict=False)],
        published=published,
        verdict=judge(mean, ci95, published) if published else None,
    )


def _mean_of(validations: Sequence[Validation | None]) -> float | None:
    """Their mean; None where one is not known."""
    known = [validation.mean for validation in validations if validation]
    return statistics.fmean(known) if len(known) == len(validations) else None


def judge(mean: float, ci95: float, published: Published) -> Verdict:
    """How a mean with its interval over tasks lies to a published one, which may have no interval."""
    theirs, away = published.ci95, mean - published.mean
    inside = abs(away) <= (ci95 if theirs is None else theirs)
    where = "inside" if inside else "above" if away > 0 else "below"
    return Verdict(where, away, inside or (theirs is not None and abs(away) <= theirs + ci95))


def identity(config: Config) -> dict[str, Any]:
    """The settings, by key, in which two configurations are two; null is as good as absent, and 1 as 1.0."""
    found = {}
    for key, value in leaves(config.plain()):
        rounding = key.startswith(("device.", "engine."))  # off is as good as absent, as in older saved configs
        if policy(key).identity and value is not None and (value or not rounding):
            found[key] = int(value) if isinstance(value, float) and value.is_integer() else value
    return found


def _identity_of_training(run: Run) -> dict[str, Any]:
    """The settings, by key, that made the model of a run, or that an evaluation tests."""
    return {key: value for key, value in identity(run.trained).items() if policy(key).train}


def distinguish(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """For each run the keys, with their values, that tell it from the others.

    Published experiments are told apart by their names, else algorithms, task sources and learners by theirs. A setting
    has a column where it differs under one name, or differs and was typed.
    """
    named = all(run.experiment for run in runs)
    parts = [_name_classes(run) for run in runs]
    settings = []
    for run, part in zip(runs, parts, strict=True):
        experiment = {"experiment": run.experiment} if run.experiment else {}
        settings.append({**experiment, **({} if named else part), **identity(run.config)})
    typed = {key for run in runs for key in run.typed}
    columns = []
    for key in dict.fromkeys(key for row in settings for key in row if not key.endswith("._target_")):
        values = [repr(row.get(key)) for row in settings]
        section, dot, _ = key.partition(".")
        names = [row.get("experiment" if named else section) if named or dot else "" for row in settings]
        if section == "data" and dot:  # of one experiment too there may be tests on other data
            names = [(name, part["data"]) for name, part in zip(names, parts, strict=True)]
        within_a_name = len(set(zip(names, values, strict=True))) > len(set(names))
        shorter = key == "budget" and set(values) != {"1"}
        if within_a_name or (key in typed and len(set(values)) > 1) or shorter or key == "experiment":
            columns.append(key)
    rows = [
        {key: value for key in columns if (value := row.get(key, _absent(run, key))) is not None}
        | _describe_changes(run, columns)
        | training
        for run, row, training in zip(runs, settings, _distinguish_training(runs), strict=True)
    ]
    alike: dict[str, list[Run]] = {}
    for run, row in zip(runs, rows, strict=True):
        alike.setdefault(repr(row), []).append(run)
    return [row | describe_material(run, alike[repr(row)]) for run, row in zip(runs, rows, strict=True)]


def _distinguish_training(runs: Sequence[Run]) -> list[dict[str, str]]:
    """For each run {} or, under `trained with`, settings of training that tell its model from those of other tests.

    An evaluation has other values of them, which hide what the model was trained with.
    """
    by_source: dict[str | None, list[dict[str, Any]]] = {}
    trained = [_identity_of_training(run) if run.evaluation else {} for run in runs]
    sources = [run.other_training.name if run.other_training else None for run in runs]
    for source, settings in zip(sources, trained, strict=True):
        by_source.setdefault(source, []).extend([settings] if settings else [])
    telling = {source: _differing_keys(settings) for source, settings in by_source.items()}
    found = []
    for run, source, settings in zip(runs, sources, trained, strict=True):
        tested = identity(run.config)
        hidden = [key for key in settings if key in telling[source] and settings[key] != tested.get(key)]
        words = " ".join(f"{key}={json.dumps(settings[key])}" for key in hidden)
        found.append({"trained with": words} if words else {})
    return found


def _differing_keys(rows: Sequence[dict[str, Any]]) -> set[str]:
    """The keys, but for classes, that not all have with the same value."""
    keys = {key for row in rows for key in row if not key.endswith("._target_")}
    return {key for key in keys if len({repr(row.get(key)) for row in rows}) > 1}


def _absent(run: Run, key: str) -> Any:
    """The value of a setting that counts as absent, as it means what earlier versions did; None where there is none.

    Shots in the test are those in training where they are no others.
    """
    section, _, name = key.partition(".")
    if key == "data.eval_shots":
        return run.config.data.get("shots")
    return NEWER[key] if key in NEWER and name in getattr(run.config, section) else None


def _name_classes(run: Run) -> dict[str, str]:
    """The algorithm, the task source and the learner, by the names of their classes; for people the algorithm's own."""
    sections = (run.config.algo, run.config.data, run.config.model)
    algo, data, model = (spell_target(section.get("_target_", "")) for section in sections)
    return {"algo": run.summary.algorithm or algo, "data": data, "model": model}


def _describe_changes(run: Run, columns: list[str]) -> dict[str, str]:
    """What was typed beside an experiment, and what an evaluation changed, where that has no column."""
    typed = " ".join(word for key, word in run.typed.items() if run.experiment and key not in columns)
    changes = {key: value for key, value in run.changes.items() if key not in (*columns, "data")}
    on = [f"on {run.changes['data']}"] if "data" in run.changes else []
    tested = " ".join([*on, *(f"{key}={json.dumps(value)}" for key, value in changes.items())])
    again = "again" if run.evaluation and not run.changes else ""
    trained = run.other_training.name if run.other_training else ""
    found = {"changed": typed, "eval": tested or again, "trained on": trained}
    return {name: words for name, words in found.items() if words}
