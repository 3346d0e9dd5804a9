"""Two runs or more side by side: the settings, results, versions and data in which they differ."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from metarun.config.keys import leaves, policy
from metarun.config.saved import saved_config
from metarun.results.grid import Column, format_grid
from metarun.results.listing import Listed, read_listed
from metarun.results.run_names import is_evaluation
from metarun.results.showing import list_evaluation
from metarun.storage.records import Environment, Record, Summary
from metarun.storage.rundir import RunDir
from metarun.text import format_duration, format_metric, spell_plain

Values = dict[str, list[Any]]  # by name: a value for each run, in their order; null where a run has none
PLACE = ("device", "threads", "processes", "platform", "cpu_capability", "chunk", "eval_chunk", "host")


class Differing(Record):
    """What `metarun diff format=json` prints. But for `results`, names whose values are all the same are left out."""

    runs: list[str]  # their folders
    choices: Values = Field(default={})  # by group, as algo
    settings: Values = Field(default={})  # by key
    results: Values = Field(default={})  # accuracies as shares of 1, seconds; `metric` says which metric
    place: Values = Field(default={})  # device, threads, ...: where they computed
    versions: Values = Field(default={})  # by package; and the commit
    data: Values = Field(default={})  # digests of the data, of its split, and of the user's code by module
    same_tasks: bool | None = None  # whether they were tested on the very same tasks; null where that is not known

    @property
    def alike(self) -> bool:
        """Whether nothing differs but where and when they computed."""
        return not (self.choices or self.settings or self.versions or self.data)


def find_differences(paths: Sequence[Path]) -> Differing:
    """The runs, or evaluations, in these folders side by side.

    Raises:
        RunDirError: the config of one cannot be read, or another file of it is damaged.
    """
    runs = [_read(path) for path in paths]
    environments = [run.environment for run in runs]
    return Differing(
        runs=[run.listed.folder for run in runs],
        choices=_differing([run.choices for run in runs]),
        settings=_differing_settings(runs),
        results=_align([run.results for run in runs]),
        place=_differing([_pick(e, PLACE) | {"host": run.host} for e, run in zip(environments, runs, strict=True)]),
        versions=_differing([e.versions | _describe_commit(e) for e in environments]),
        data=_differing([_pick(e, ("data_digest", "split_hash", "first_tasks")) | _code(e) for e in environments]),
        same_tasks=_have_same_tasks([run.tasks for run in runs]),
    )


@dataclass(frozen=True)
class _Side:
    """A run, or an evaluation, as far as it is compared."""

    listed: Listed
    settings: dict[str, Any]
    trained: dict[str, Any]  # the settings that act in training, of the run that was trained
    choices: dict[str, str]
    environment: Environment
    host: str | None
    results: dict[str, Any]
    tasks: tuple[str, int] | None  # the digest of its test tasks, and their number


def _read(path: Path) -> _Side:
    rundir, evaluation = RunDir(path), is_evaluation(path)
    trained = RunDir(path.resolve().parent.parent.parent).config() if evaluation else rundir.config()
    config = saved_config(path / "config.yaml") if evaluation else trained
    summary, status, tasks = rundir.summary(), rundir.status(), rundir.test_tasks()
    listed = list_evaluation(path) if evaluation else read_listed(path)
    return _Side(
        listed=listed,
        settings=dict(leaves(config.plain())),
        trained={key: value for key, value in leaves(trained.plain()) if policy(key).train},
        choices=summary.choices if evaluation and summary else rundir.choices(),
        environment=rundir.environment() or Environment(),
        host=status.host if status else None,
        results=_list_results(listed, summary if listed.status == "done" else None),
        tasks=(tasks.digest, len(tasks.each)) if tasks else None,
    )


def _differing_settings(runs: Sequence[_Side]) -> Values:
    """Those that differ; under `KEY in training` also those of training that tests have other values of."""
    found, trained = (_differing([getattr(run, name) for run in runs]) for name in ("settings", "trained"))
    hidden = {f"{key} in training": values for key, values in trained.items() if found.get(key) != values}
    return found | hidden


def _list_results(listed: Listed, summary: Summary | None) -> dict[str, Any]:
    """The result of a run by name; null of what it has not."""
    found = {name: getattr(listed, name) for name in ("status", "step", "metric", "validation", "test", "ci95")}
    more = {"tasks": summary.test.tasks, "parameters": summary.parameters} if summary else {}
    return found | more | ({"wall_seconds": summary.wall_seconds} if summary else {})


def _pick(record: Record, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names if hasattr(record, name)}


def _describe_commit(environment: Environment) -> dict[str, Any]:
    git = environment.git
    return {"commit": git.commit[:12] + (" (with changes)" if git.dirty else "") if git else None}


def _code(environment: Environment) -> dict[str, Any]:
    return {f"code {name}": digest for name, digest in environment.code.items()}


def _have_same_tasks(tasks: Sequence[tuple[str, int] | None]) -> bool | None:
    return None if None in tasks else len(set(tasks)) == 1


def _align(runs: Sequence[dict[str, Any]]) -> Values:
    """By name the values of all runs; 1 is as good as 1.0, and null as absent."""
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: [run.get(name) for run in runs] for name in names}


def _differing(runs: Sequence[dict[str, Any]]) -> Values:
    """The same, of names whose values are not all the same."""
    return {name: values for name, values in _align(runs).items() if len(set(map(_identity, values))) > 1}


def _identity(value: Any) -> str:
    return json.dumps(float(value) if isinstance(value, int) and not isinstance(value, bool) else value, sort_keys=True)


def as_text(differing: Differing, width: int | None) -> str:
    """The runs by number, and below that a column for each."""
    runs = [f"{number}  {folder}" for number, folder in enumerate(differing.runs, start=1)]
    settings = {key: values for key, values in differing.settings.items() if not key.endswith("._target_")}
    sections = [
        differing.choices | (settings if differing.choices else differing.settings),
        _format_results(differing.results),
        differing.place | differing.versions | {name: _cut(values) for name, values in differing.data.items()},
    ]
    names, rows = [], []
    for section in filter(None, sections):
        if rows:  # a blank line
            names, rows = [*names, ""], [*rows, [""] * len(runs)]
        names += section
        rows += [["" if value is None else spell_plain(value) for value in values] for values in section.values()]
    cells = [Column(str(number), column, least=6) for number, column in enumerate(zip(*rows, strict=True), start=1)]
    lines = [*runs, "", *format_grid([Column("", names, least=12, keep_end=True), *cells], width), ""]
    return "\n".join([*lines, *_sum_up(differing)])


def _sum_up(differing: Differing) -> list[str]:
    same = not (differing.choices or differing.settings)
    lines = ["the same settings, versions and data"] if differing.alike else ["the same settings"] if same else []
    if differing.same_tasks is not None:
        lines.append(f"{'tested' if differing.same_tasks else 'not tested'} on the very same tasks")
    return lines


def _cut(values: list[Any]) -> list[Any]:
    """The beginnings of digests."""
    return [value[:12] if isinstance(value, str) else value for value in values]


def _format_results(results: Values) -> Values:
    """Results in people's units: a test with its interval."""
    metrics = results["metric"]
    found: Values = {"status": results["status"], "outer steps": results["step"]}
    for name in ("validation", "test"):
        ci95 = results["ci95"] if name == "test" else [None] * len(metrics)
        cells = [
            None if metric is None or value is None else f"{metric} {format_metric(metric, value, interval)}"
            for metric, value, interval in zip(metrics, results[name], ci95, strict=True)
        ]
        found |= {name: cells} if any(cells) else {}
    found |= {"test tasks": results["tasks"], "parameters": results["parameters"]} if "tasks" in results else {}
    seconds = results.get("wall_seconds", [])
    return found | ({"took": [None if s is None else format_duration(s) for s in seconds]} if any(seconds) else {})
