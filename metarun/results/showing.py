"""All that is known of a run, or of an evaluation of one, read from its folder as facts."""

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from metarun.config.defaults import differing_settings
from metarun.config.keys import leaves
from metarun.config.saved import saved_config
from metarun.errors import MetarunError
from metarun.results.listing import Listed, read_listed, saved_step
from metarun.results.run_names import is_evaluation
from metarun.results.runs import find_runs
from metarun.storage.metrics import parse_events, read_metrics
from metarun.storage.records import Count, EarlierTest, Environment, Metric, Record, Summary
from metarun.storage.rundir import RunDir

DIVERGED = re.compile("is not finite|no validation has a finite metric")  # in what a DivergedError says


class Changed(Record):
    """A setting that differs: its value, and the default of its choice, or of an evaluation the value of its run.

    Null where there is none.
    """

    value: Any = None
    default: Any = None


class CurvePoint(Record):
    """A point of the learning curve."""

    step: Count  # outer steps done
    split: Literal["train", "val", "test"]
    value: float  # the metric: in training over one meta-batch, else over the tasks of the split
    loss: float | None = None  # the mean meta-loss; training only


class File(Record):
    """A file of the run, or a folder, with all that lies in it; no link is followed."""

    name: str  # of a folder with a slash at its end
    bytes: Count


class Tested(Record):
    """An evaluation that `metarun eval` made of the run."""

    folder: str
    changes: dict[str, Any] = Field(default={})  # the settings that it changed, by key
    metric: Metric
    mean: float  # accuracies are shares of 1
    ci95: float
    tasks: Count


class RunFacts(Record):
    """What `metarun show format=json` prints."""

    kind: Literal["run", "evaluation"]
    run: Listed  # as `metarun ls` lists it
    of: str | None = None  # of an evaluation: its run
    command: str | None = None  # that began it
    choices: dict[str, str] = Field(default={})  # by group, as algo: maml
    settings: dict[str, Changed] | None = None  # that differ from the defaults; see Changed
    summary: Summary | None = None  # the content of summary.json
    earlier: list[EarlierTest] = Field(default=[])  # the tests so far of a run that goes on, or is to
    environment: Environment | None = None  # where it computed: the content of environment.json
    host: str | None = None  # the machine of its last process
    saved_step: Count | None = None  # outer steps done in the newest checkpoint of a run that can go on from there
    metric: Metric | None = None  # of the curve and of earlier tests
    curve: list[CurvePoint] = Field(default=[])  # in the order in which it was written
    evaluations: list[Tested] = Field(default=[])
    files: list[File] = Field(default=[])
    go_on: dict[str, str] = Field(default={})  # what to type next, by what it does


def show_run(path: Path) -> RunFacts:
    """All of the run, or the evaluation, in this folder. What is damaged is left out; `run.reason` says so."""
    evaluation = is_evaluation(path)
    rundir, origin = RunDir(path), _origin(path) if evaluation else RunDir(path)
    run = list_evaluation(path) if evaluation else read_listed(path)
    status, summary = _try(rundir.status), _try(rundir.summary)
    words, environment = [] if evaluation else _try(rundir.overrides) or [], _try(rundir.environment)
    metric, curve = (None, []) if evaluation else _read_curve(rundir)
    return RunFacts(
        kind="evaluation" if evaluation else "run",
        run=run,
        of=str(origin.short) if evaluation else None,
        command=None if evaluation else shlex.join(["metarun", *_find_config_folders(environment), *words]),
        choices=_try(origin.choices) or {},
        settings=_changes_of(path, origin) if evaluation else _try(lambda: _find_settings(rundir)),
        summary=summary if evaluation or run.status == "done" else None,
        earlier=summary.tests_so_far if summary and not evaluation and run.status != "done" else [],
        environment=environment,
        host=status.host if status else None,
        saved_step=_try(lambda: saved_step(rundir)) if run.status in ("failed", "stopped", "stale") else None,
        metric=metric or (summary.metric if summary and not evaluation else None),
        curve=curve,
        evaluations=[] if evaluation else list(_read_evaluations(rundir)),
        files=list(_find_files(rundir.path)),
        go_on=_advise(run, rundir, summary, origin if evaluation else None),
    )


def _try(call: Any) -> Any:
    """What a reader reads; None where it cannot."""
    with suppress(OSError, MetarunError):
        return call()
    return None


def _find_settings(rundir: RunDir) -> dict[str, Changed] | None:
    """The settings that differ from the defaults of the run's choices; None where those are not known."""
    found = differing_settings(rundir.config(), rundir.choices())
    return None if found is None else {key: Changed(value=a, default=b) for key, (a, b) in found.items()}


def _changes_of(path: Path, origin: RunDir) -> dict[str, Changed] | None:
    """The settings of an evaluation that are others than its run's; None where one of them cannot be read."""
    new, old = _try(lambda: saved_config(path / "config.yaml")), _try(origin.config)
    if new is None or old is None:
        return None
    a, b = (dict(leaves(config.plain())) for config in (old, new))
    keys = [key for key in a | b if a.get(key) != b.get(key) and key.partition(".")[0] != "logger"]
    return {key: Changed(value=b.get(key), default=a.get(key)) for key in keys}


def _origin(evaluation: Path) -> RunDir:
    """The run of an evaluation, which lies in RUN/eval/<date>/<time>."""
    return RunDir(evaluation.resolve().parent.parent.parent)


def list_evaluation(path: Path) -> Listed:
    """An evaluation as a run is listed."""
    origin = _origin(path)
    listed = read_listed(origin.path)
    summary = _try(RunDir(path).summary)
    changes = {key: str(changed.value) for key, changed in (_changes_of(path, origin) or {}).items()}
    found: dict[str, Any] = {"status": "damaged", "reason": "summary.json: cannot be read"}
    found |= {"metric": None, "test": None, "ci95": None}  # and not those of the run
    if summary:
        found |= {"status": "done", "reason": None, "metric": summary.metric, "test": summary.test.mean}
        found |= {"ci95": summary.test.ci95, "source": summary.choices.get("data", listed.source)}
    folder = os.fsencode(path).decode(errors="replace")
    found |= {"folder": folder, "differs": changes, "validation": None, "position": None, "seconds_left": None}
    return listed.model_copy(update={**found, "began": path.stat().st_mtime, "evaluations": 0, "tags": []})


def _read_curve(rundir: RunDir) -> tuple[Metric | None, list[CurvePoint]]:
    """The metric and the events of metrics.jsonl, without a last line that is still being written; none if damaged."""
    text = _try(lambda: read_metrics(rundir)) or ""
    whole = text[: text.rfind("\n") + 1]
    metric: Metric = "accuracy" if '"accuracy"' in whole else "mse"
    try:
        events = parse_events(whole, metric)
    except ValueError:
        return None, []
    curve = [CurvePoint(step=event.step, split=event.split, value=event.value, loss=event.loss) for event in events]
    return (metric, curve) if curve else (None, [])


def _read_evaluations(rundir: RunDir) -> Iterator[Tested]:
    folder = rundir.path / "eval"
    for path in find_runs(folder) if folder.is_dir() and not folder.is_symlink() else []:
        if summary := _try(RunDir(path).summary):
            changed = _changes_of(path, rundir) or {}
            result = {"metric": summary.metric, "tasks": summary.test.tasks}
            result |= {"mean": summary.test.mean, "ci95": summary.test.ci95}
            changes = {key: change.value for key, change in changed.items()}
            yield Tested(folder=str(RunDir(path).short), changes=changes, **result)


def _find_files(folder: Path) -> Iterator[File]:
    """The files and folders of a run, in the order of their names."""
    with suppress(OSError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            is_folder = entry.is_dir(follow_symlinks=False)
            name = os.fsencode(entry.name).decode(errors="replace") + ("/" if is_folder else "")
            yield File(name=name, bytes=_size(entry))


def _find_config_folders(environment: Environment | None) -> list[str]:
    """The options that named folders of configs for a run, with their values; they are no words of its config."""
    argv, found = environment.argv if environment else [], []
    for number, word in enumerate(argv):
        option, equals, _ = word.partition("=")
        if option in ("-cd", "--config-dir", "-cp", "--config-path"):
            found += [word] if equals else argv[number : number + 2]
    return found


def _size(entry: os.DirEntry) -> int:
    with suppress(OSError):
        if not entry.is_dir(follow_symlinks=False):
            return entry.stat(follow_symlinks=False).st_size
        return sum(map(_size, os.scandir(entry.path)))
    return 0


def _advise(run: Listed, rundir: RunDir, summary: Summary | None, origin: RunDir | None) -> dict[str, str]:
    """What can be typed next, for a run of this status; of an evaluation what can be typed for its run."""
    place = (origin or rundir).typed
    again = {"a new run from its config": f"metarun -cp {place}/.hydra key=value"}
    test = {"test again": f"metarun eval {place} data.eval_shots=5"}
    if origin:
        return {"its run": f"metarun show {place}", **test}
    if run.status == "done":
        own = {"apply to your own examples": f"metarun adapt {place} support=... query=..."}
        training = summary.training if summary else None
        more = "budget=1" if training and training.budget < 1 else f"meta_steps={2 * (run.steps or 1)}"
        longer = {} if training and not training.trains else {"train longer": f"metarun resume {place} {more}"}
        return {**test, **own, "repeat": f"metarun reproduce {place}", **longer, **again}
    if run.status == "running":
        return {"watch": f"metarun watch {place}"}
    if run.status == "damaged":  # of what is there still, resume makes anew what it can
        on = {"go on": f"metarun resume {place}"} if _try(lambda: saved_step(rundir)) else {}
        return {**on, "remove": f"metarun rm {place}"}
    if run.status == "failed" and DIVERGED.search(run.reason or ""):  # it would do so again, at the same step
        rate = {"begin anew with another rate": f"metarun -cp {place}/.hydra algo.inner_lr=..."}
        return {**rate, "remove": f"metarun rm {place}"}
    return {"go on": f"metarun resume {place}", **again, "remove": f"metarun rm {place}"}
