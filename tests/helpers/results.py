"""Runs with results of one's own, in memory and on disk."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import yaml

from metarun import intervals
from metarun.config.schema import check
from metarun.storage.records import Point, Summary, Test


def alter(run, each, *, seed=0, digest="", metric="mse", settings=(), **fields):
    """A run like this one, with these metrics of its test tasks, and settings by their dotted keys."""
    plain = run.config.plain() | {"seed": seed}
    for key, value in dict(settings).items():
        *sections, last = key.split(".")
        node = plain
        for section in sections:
            node = node[section]
        node[last] = value
    config = check(plain)
    test = Test(tasks=len(each), by_step=[_point(each)] * 3, **_point(each).model_dump())
    summary = run.summary.model_copy(update={"metric": metric, "tests": {metric: test}})
    kept = {"each": list(each), "each_digest": None}
    fields = {"config": config, "trained": config, "summary": summary, "typed": {}, **kept, **fields}
    return replace(run, digest=(digest or f"tasks of seed {seed}", len(each)), **fields)


def _point(each):
    mean, ci95 = intervals.over_tasks(each)
    return Point(mean=mean, ci95=ci95)


def edit(folder, name, change):
    """Changes a JSON or YAML file of a run, as if another run had written it."""
    path = Path(folder) / name
    parse, write = (json.loads, json.dumps) if name.endswith(".json") else (yaml.safe_load, yaml.safe_dump)
    content = parse(path.read_text())
    change(content)
    path.write_text(write(content))


def copy_run(original, folder, each, *, seed=0, words=(), **algo):
    """A copy of a run directory with these metrics of its test tasks, this seed, words and settings of algo."""
    shutil.copytree(original, folder)
    test = Test(tasks=len(each), by_step=[_point(each)] * 3, **_point(each).model_dump())
    path = Path(folder) / "summary.json"
    summary = Summary.from_json(path.read_bytes()).model_copy(update={"tests": {"mse": test}})
    path.write_bytes(summary.to_json())
    edit(
        folder, "test_tasks.json", lambda t: t.update(digest=f"tasks of seed {seed}", each=list(each), each_digest=None)
    )
    edit(folder, ".hydra/config.yaml", lambda c: c.update(seed=seed) or c["algo"].update(algo))
    (Path(folder) / ".hydra/overrides.yaml").write_text(yaml.safe_dump(list(words)))
    chosen = {key: value for key, _, value in (word.partition("=") for word in words) if key == "experiment"}
    (Path(folder) / ".hydra/choices.yaml").write_text(yaml.safe_dump(chosen))
    edit(folder, "environment.json", lambda e: e.pop("config"))
    return folder
