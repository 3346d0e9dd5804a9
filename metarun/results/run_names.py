"""A run by its name: its path, or the end of its path as `metarun ls` shows it."""

import os
from pathlib import Path

from metarun.errors import RunDirError
from metarun.text import typed_path

FOLDERS = ("outputs", "multirun")  # where runs and sweeps lie that were given no folder
ELLIPSES = ("…", "...")


def is_run(path: Path) -> bool:
    """Whether a directory holds a run."""
    return os.path.isfile(path / ".hydra" / "config.yaml")


def is_evaluation(path: Path) -> bool:
    """Whether it is the folder of an evaluation, as RUN/eval holds them."""
    return os.path.isfile(path / "config.yaml") and not os.path.exists(path / ".hydra")


def find_run(name: str) -> Path:
    """The run, or the evaluation, of that path; else the run in outputs or multirun whose path ends so.

    Raises:
        RunDirError: there is none, or more than one whose path ends so.
    """
    path = Path(name)
    if not name:
        raise RunDirError("'' (command line): no run there; expected a folder with .hydra/config.yaml")
    if is_run(path) or (is_evaluation(path) and os.path.isfile(path / "summary.json")):
        return path
    if os.path.lexists(path):
        return _explain(path)
    if run := find_by_end(name):
        return run
    raise RunDirError(f"{name}: no run there; expected a folder with .hydra/config.yaml; metarun ls lists runs")


def find_by_end(name: str) -> Path | None:
    """The run in outputs or multirun whose path ends so; None where there is none, or something else has that path.

    Raises RunDirError: there are more than one.
    """
    if not name or os.path.lexists(name):
        return None
    from metarun.results.runs import find_runs  # which takes a quarter of a second

    end = name
    for ellipsis in ELLIPSES:
        end = end.removeprefix(ellipsis)
    runs = [run for folder in FOLDERS if os.path.isdir(folder) for run in find_runs(Path(folder))]
    found = [run for run in runs if end and str(run).endswith(end.rstrip("/"))]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(typed_path(run) for run in found[:3])
        raise RunDirError(f"{name}: {len(found)} runs end so ({names}, ...); expected one; give more of its path")
    return None


def run_around(path: Path) -> Path | None:
    """The run that a file or a folder is a part of, such as RUN/checkpoints; None of a run itself, and of others."""
    whole = path.absolute()
    parents = [] if is_run(whole) else list(whole.parents)[:4]
    return next((parent for parent in parents if is_run(parent)), None)


def _explain(path: Path) -> Path:
    """Raises RunDirError for what is there, and is no run."""
    if (run := run_around(path)) is not None:
        raise RunDirError(f"{path}: a part of a run; expected the run; take {typed_path(run)}")
    from metarun.results.runs import find_runs

    below = [run for run in find_runs(path) if run != path] if os.path.isdir(path) else []
    if below:
        raise RunDirError(f"{path}: a folder with runs; expected one of them; metarun ls {typed_path(path)} lists them")
    if os.path.isdir(path) and os.path.exists(path / "status.json"):
        raise RunDirError(f"{path}: no run (.hydra/config.yaml): it failed before it began, or is damaged")
    raise RunDirError(f"{path}: no run there; expected a folder with .hydra/config.yaml; metarun ls lists runs")
