"""Finished runs, found in folders and read as plain data; what cannot be used is left out with the reason."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from metarun import intervals
from metarun.config import published
from metarun.config.keys import key_of, leaves, policy, value_in_test
from metarun.config.saved import saved_config
from metarun.config.schema import Config
from metarun.errors import MetarunError, RunDirError, UsageError
from metarun.storage.records import (
    TASK_DIGITS,
    Environment,
    Published,
    Source,
    Status,
    Summary,
    Test,
    Validation,
)
from metarun.storage.rundir import RunDir
from metarun.text import reason, short_path

FORM = ("ways", "shots", "queries")
LARGEST = 1e150  # whose square is a number too
Digest = tuple[str, int]  # the digest of test tasks, and their number


@dataclass(frozen=True)
class Run:
    """A finished run, or an evaluation that `metarun eval` made of one.

    Attributes:
        config: of the test: of an evaluation the changed one.
        experiment: the experiment that was chosen, or ''.
        typed: by key, the words that were typed for it and on resuming it, but for what leaves an experiment the
            published one (config/keys.py).
        each: the metric of every test task; [] where it was not kept.
        clusters: the classes or tables that those tasks share; None where they share none, or none were kept.
        digest: of the test tasks; None where it was not kept. Runs with the same one were tested on the same tasks.
        each_digest: of every test task TASK_DIGITS digits, in a row; None where they were not kept.
        validated: the best validation of the run that an evaluation tests; None for a run, or where it is not known.
        outdated: of an evaluation whether its run has gone on since, and has another best checkpoint now.
        origin: the files of the run that was trained: of an evaluation others than rundir.
        environment: of the test; `trained_environment` that of training.
    """

    rundir: RunDir
    config: Config
    trained: Config
    summary: Summary
    experiment: str
    typed: dict[str, str]
    each: list[float]
    clusters: intervals.Clusters | None
    digest: Digest | None
    each_digest: str | None
    validated: Validation | None
    outdated: bool
    origin: RunDir
    environment: Environment
    trained_environment: Environment

    @property
    def evaluation(self) -> bool:
        """Whether it is an evaluation."""
        return self.origin is not self.rundir

    @property
    def validation(self) -> Validation | None:
        """The best validation of the model, by which its checkpoint was chosen; None where it is not known."""
        return self.validated if self.evaluation else self.summary.validation

    @property
    def checkpoint_step(self) -> int:
        """The outer step of the checkpoint that was tested; 0 where it is not known."""
        return self.summary.checkpoint.step if self.summary.checkpoint else 0

    @cached_property
    def changes(self) -> dict[str, Any]:
        """The settings, by key, that an evaluation changed and that can show in its result.

        Of a test on other data they are the name of its source, and the ways, shots and queries that are others.
        """
        old, new = (dict(leaves(config.plain())) for config in (self.trained, self.config))
        changed = [key for key in old | new if old.get(key) != new.get(key) and policy(key).evaluate]
        changed = [key for key in changed if value_in_test(old, key) != value_in_test(new, key)]
        changes = {key: new.get(key) for key in changed if policy(key).identity or key == "seed"}
        if (first := self.other_training) is None:
            return changes
        now = self.summary.source or first
        form = {f"data.{name}": getattr(now, name) for name in FORM if getattr(now, name) != getattr(first, name)}
        others = {key: value for key, value in changes.items() if not key.startswith("data.")}
        return {"data": now.name, **form, **others}

    @property
    def other_training(self) -> Source | None:
        """The task source that it was trained on, of an evaluation on other data; else None."""
        trained = self.summary.trained
        return trained.source if trained and trained.other_data else None

    @property
    def published(self) -> Published | None:
        """What a paper reports of it: only of an experiment as it is, tested as it is."""
        if self.typed or self.changes.keys() - {"test_tasks"}:
            return None
        found = published.published(self.experiment)
        return Published.model_validate(found) if found else None


@dataclass(frozen=True)
class LeftOut:
    """A folder that cannot be used, and why."""

    path: str
    reason: str


def leave_out(path: Path, why: str) -> LeftOut:
    """A folder with the reason, in a line that names the folder once."""
    name = " ".join(str(short_path(path)).split())
    return LeftOut(name, " ".join(why.split()).removeprefix(f"{name}: "))


def collect(folders: Iterable[str], evaluations: bool = False) -> tuple[list[Run], list[LeftOut]]:
    """All runs in these folders and below, in the order of their names, each once.

    A run's evaluations are runs of their own where its folder `eval`, or one in it, is named; with `evaluations` those
    of all runs are, after the runs. Reproductions come last, and are left out beside the run that they repeat.

    Raises:
        UsageError: a folder is not there, or holds no run.
    """
    found: dict[Path, None] = {}
    for name in folders:
        try:
            next(Path(name).iterdir(), None)
        except OSError as error:
            raise UsageError(f"{name!r} (command line): expected a folder with runs; {reason(error)}") from error
        below = dict.fromkeys(path.resolve() for path in find_runs(Path(name)))
        if not below:
            raise UsageError(f"{name!r} (command line): expected a folder with runs; there are none in it")
        found |= below
    if evaluations:
        found |= dict.fromkeys(path for run in list(found) for path in find_evaluations(run))
    return _leave_out_reproductions(*read_runs(found))


def _leave_out_reproductions(runs: list[Run], left_out: list[LeftOut]) -> tuple[list[Run], list[LeftOut]]:
    """The runs, without those that repeat another of them: they would stand in its place, or beside it."""
    there = {str(run.origin.path) for run in runs}
    first, repetitions = [], []
    for run in runs:
        original = run.trained_environment.reproduces
        if original is None:
            first.append(run)
        elif original in there:
            left_out.append(leave_out(run.rundir.path, f"a reproduction of {short_path(Path(original))}"))
        else:
            repetitions.append(run)
    return [*first, *repetitions], left_out


def read_runs(paths: Iterable[Path]) -> tuple[list[Run], list[LeftOut]]:
    """The runs in these directories, and those that cannot be used."""
    runs, left_out = [], []
    for path in paths:
        try:
            runs.append(read_run(path))
        except MetarunError as error:
            left_out.append(leave_out(path, str(error)))
        except OSError as error:
            left_out.append(leave_out(path, f"cannot be read: {reason(error)}"))
    return runs, left_out


def find_runs(folder: Path) -> Iterator[Path]:
    """The directories of runs and of evaluations in a folder, in the order of their names, but for those within runs.

    A folder that cannot be read is among them: read_run says why.
    """
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            if _may_be_run(here) or all((here / name).is_file() for name in ("config.yaml", "environment.json")):
                yield here
                continue
            children = sorted(here.iterdir(), reverse=True)
            waiting += [c for c in children if c.is_dir() and not c.is_symlink() and not c.name.startswith(".")]
        except OSError:
            yield here


def find_evaluations(run: Path) -> list[Path]:
    """The directories of the evaluations of a run; of an evaluation there are none."""
    folder = run / "eval"
    return list(find_runs(folder)) if folder.is_dir() and not folder.is_symlink() else []


def _may_be_run(folder: Path) -> bool:
    """Whether it is a run, or what is left of one."""
    return any((folder / name).exists() for name in (".hydra", "status.json", "metrics.jsonl"))


def read_run(path: Path) -> Run:
    """A finished run, or an evaluation.

    Raises:
        RunDirError: it has not finished, a file of it is damaged, or the run of an evaluation is gone.
    """
    rundir = origin = RunDir(path)
    if not _may_be_run(path):
        origin = RunDir(rundir.path.parent.parent.parent)  # of RUN/eval/<date>/<time>
        if not _may_be_run(origin.path):
            raise RunDirError("an evaluation of a run that is gone: expected it within its run, in RUN/eval")
    trained = origin.config()
    config = trained if origin is rundir else saved_config(rundir.path / "config.yaml")
    again = f"unless it still runs: {rundir.resume_command}"
    if origin is not rundir and not (path / "summary.json").exists():
        raise RunDirError("no result: it was stopped, or still runs; metarun eval makes it anew")
    if (summary := rundir.summary()) is None:
        status = rundir.status() or Status(status="running")
        if status.error:
            raise RunDirError(f"{status.status} at outer step {status.step}: {status.error}")
        raise RunDirError(f"no result yet, after outer step {status.step}; {again}")
    if origin is rundir and summary.steps not in (None, config.outer_steps):
        steps = config.outer_steps
        raise RunDirError(f"was finished after {summary.steps} outer steps, and is to go on to {steps}; {again}")
    points = (summary.test, *summary.test.by_step, *summary.validations.values())
    if any(abs(value) > LARGEST for p in points for value in (p.mean, getattr(p, "ci95", 0.0))):
        raise RunDirError(f"summary.json: expected numbers of at most {LARGEST:g}, that can be compared")
    environment = rundir.environment() or Environment()
    sessions = environment if origin is rundir else origin.environment() or Environment()
    experiment = origin.choices().get("experiment", "")
    typed = {key: word for key, word in read_words(origin, sessions).items() if not policy(key).published}
    tasks = _read_tasks(rundir, summary.test)
    now = None if origin is rundir else _read_summary(origin)
    tested = summary.checkpoint
    other = bool(now and now.checkpoint and tested and now.checkpoint.step != tested.step)
    outdated = False
    if other and now and now.checkpoint and tested:  # a later one is of a run that is to go on, and has since its test
        outdated = now.steps in (None, trained.outer_steps) or tested.step < now.checkpoint.step
    validated = now.validations.get(summary.metric) if now and (outdated or not other) else None
    more = validated, outdated, origin, environment, sessions
    return Run(rundir, config, trained, summary, experiment, typed, *tasks, *more)


def read_words(rundir: RunDir, environment: Environment) -> dict[str, str]:
    """By key, the words that were typed for a run; what was changed on resuming it has the value of now.

    Raises:
        RunDirError: its config cannot be read.
    """
    words = {key_of(word): word for word in rundir.overrides()}
    if changed := [key for session in environment.continued for key in session.changed]:
        values = dict(leaves(rundir.config().plain()))
        words |= {key: f"{key}={values.get(key)}" for key in changed}
    return words


def _read_summary(origin: RunDir) -> Summary | None:
    """That of the run of an evaluation, which can be read without it."""
    try:
        return origin.summary()
    except RunDirError:
        return None


def _read_tasks(rundir: RunDir, test: Test) -> tuple[list[float], intervals.Clusters | None, Digest | None, str | None]:
    """See Run.each, Run.clusters, Run.digest and Run.each_digest."""
    if (tasks := rundir.test_tasks()) is None:
        return [], None, None, None
    members, kept = tasks.clusters, tasks.each_digest
    whole = all(found is None or len(found) == test.tasks * n for found, n in ((members, 1), (kept, TASK_DIGITS)))
    if len(tasks.each) == test.tasks > 1 and whole and max(map(abs, tasks.each)) <= LARGEST:
        clusters = None if members is None else intervals.Clusters(members)
        mean, ci95 = intervals.over_tasks(tasks.each, tasks.queries if tasks.metric == "accuracy" else None, clusters)
        if tasks.queries is None:
            ci95 = intervals.former(tasks.each)
        if math.isclose(mean, test.mean) and math.isclose(ci95, test.ci95, rel_tol=1e-6, abs_tol=1e-12):
            return tasks.each, clusters, (tasks.digest, len(tasks.each)), kept
    raise RunDirError(
        f"{rundir.path}/test_tasks.json: does not belong to summary.json; expected both as metarun wrote them; restore "
        "them from a copy"
    )
