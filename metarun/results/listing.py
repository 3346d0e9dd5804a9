"""Runs of any status, each read from its folder as plain data, fast enough for a thousand of them.

No lock is taken, and nothing is written. What cannot be read is listed with the reason.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from metarun.config.keys import key_of, leaves
from metarun.config.saved import LARGEST, read_choices, read_words
from metarun.errors import MetarunError
from metarun.files import read, read_beginning
from metarun.results.run_names import is_evaluation
from metarun.results.runs import find_runs
from metarun.storage.liveness import is_alive
from metarun.storage.metrics import read_metrics
from metarun.storage.records import Count, Metric, Position, Record, Status, Summary
from metarun.storage.rundir import RunDir
from metarun.text import reason

State = Literal["running", "done", "failed", "stopped", "stale", "damaged"]
OWN_FIELDS = ("algo", "data", "experiment", "sweep", "zip")  # words that are not in `differs`, nor are Hydra's own
MOST = 10**15  # outer steps, in a record
# The usual lines of overrides.yaml and choices.yaml, which need no YAML reader: it takes a second for a thousand runs.
WORD = re.compile(r"- ([A-Za-z][!-~]*=[!-~]*)")
CHOICE = re.compile(r"(\w+): ([A-Za-z][\w./-]*)")
NO_TEXT = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


class Listed(Record):
    """A run as `metarun ls` lists it. What is not known, or not yet, is None or empty. Accuracies are shares of 1."""

    folder: str  # its path, below the folder that was asked for as that was typed
    status: State  # stale: its process is gone, and nothing said so; damaged: it cannot be read
    reason: str | None = None  # why it failed, was stopped, is taken for stale, or cannot be read
    step: Count = 0  # outer steps done
    steps: Count | None = None  # that it has in all
    seconds_left: float | None = None  # that a running one has to go
    position: Position | None = None  # of a running one: what it does, how fast, how far
    algorithm: str = ""  # as chosen: algo=NAME
    source: str = ""  # data=NAME
    experiment: str | None = None  # experiment=NAME, if one was chosen
    differs: dict[str, str] = Field(default={})  # settings that were typed for it, by key, but for those three
    metric: Metric | None = None
    validation: float | None = None  # the best of a finished run, the last of a running one
    test: float | None = None  # of a finished run
    ci95: float | None = None  # half the width of its 95% interval over tasks
    began: float | None = None  # seconds since 1970
    tags: list[str] = Field(default=[])  # in the order of the alphabet
    evaluations: Count = 0  # folders in RUN/eval
    reproduces: str | None = None  # the run that it repeats, by `metarun reproduce`


def list_runs(folders: Iterable[str]) -> list[Listed]:
    """The runs in these folders and below, newest first, each once.

    Evaluations belong to their run, and are not listed. A folder that is not there holds no runs.
    """
    return [run for _, run in list_paths(folders)]


def list_paths(folders: Iterable[str]) -> list[tuple[Path, Listed]]:
    """The same, with the directory of each run: its name may be no text, and `folder` is."""
    found: dict[Path, tuple[Path, Listed]] = {}
    for name in folders:
        folder = Path(name)
        whole = folder.resolve()
        for path in find_runs(folder) if os.path.isdir(folder) else []:
            here = whole / path.relative_to(folder)
            if here not in found and not is_evaluation(path):
                found[here] = path, read_listed(path)
    return sorted(found.values(), key=lambda entry: (-(entry[1].began or 0), entry[1].folder))


def read_listed(path: Path) -> Listed:
    """The run in this directory, whatever has become of it."""
    rundir, broken = RunDir(path), {}
    known: dict[str, Any] = {"folder": os.fsencode(path).decode(errors="replace"), "began": _began(path)}
    for part in (_read_names, _read_settings, _read_state):  # where one is damaged, the others are known
        try:
            known |= part(rundir)
        except (OSError, MetarunError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error).removeprefix(f"{rundir.path}{os.sep}")
            why = " ".join(why.split()).encode(errors="replace").decode()  # a path may be no text
            broken = broken or {"status": "damaged", "reason": why}
    return Listed(**known | broken)


def _read_state(rundir: RunDir) -> dict[str, Any]:
    """How far the run is, how it ended, and what it came to."""
    os.listdir(rundir.path)  # or a folder without permission would look empty
    if not rundir.holds_run:
        return {"status": "damaged", "reason": ".hydra/config.yaml: missing; what is left here is no run"}
    status, summary = rundir.status(), rundir.summary()
    if status is None and summary is None and rundir.has_progress:  # it can go on, and is not to be thrown away
        step = saved_step(rundir)
        why = "status.json: missing or empty, as after a power cut"
        return {"status": "stale", "reason": why, "step": step, "steps": _steps_of_config(rundir)}
    if status is None and summary is None:
        return {"status": "damaged", "reason": "status.json: missing; the run had hardly begun"}
    status = status or Status(status="done", step=summary.steps or 0 if summary else 0)
    found = {"step": status.step, "steps": status.steps, "reason": status.error, "status": status.status}
    if position := status.position:
        found |= {"metric": position.metric, "validation": position.validation}
    if status.status == "done":
        found |= _read_result(summary)
    elif status.status == "running":
        found |= _see_process(rundir, status)
    if found["steps"] is None:
        found["steps"] = _steps_of_config(rundir)
    return found


def saved_step(rundir: RunDir) -> int:
    """The outer step of the newest checkpoint, from which the run goes on, by the names of the files; 0: none."""
    names = (re.fullmatch(r"step-(\d{8,15})\.json", path.name) for path in rundir.checkpoints.glob("step-*.json"))
    return max((int(name[1]) for name in names if name), default=0)


def _farthest_step(rundir: RunDir, status: Status) -> int:
    """The last outer step that a file knows of: the state of a process that was killed may be seconds old."""
    written: list[str] = []
    with suppress(OSError, MetarunError):
        written = re.findall(r'"step": (\d{1,14})\b', read_metrics(rundir))[-2:]  # the last may be cut off
    return max(status.step, saved_step(rundir), *map(int, written))


def _read_result(summary: Summary | None) -> dict[str, Any]:
    if summary is None:
        return {"status": "damaged", "reason": "summary.json: missing; metarun resume tests again"}
    test, best = summary.test, summary.validation
    found = {"metric": summary.metric, "test": test.mean, "ci95": test.ci95, "validation": best.mean if best else None}
    return found | ({"steps": summary.steps} if summary.steps else {})


def _see_process(rundir: RunDir, status: Status) -> dict[str, Any]:
    """Whether a run that says that it runs does so."""
    written = (rundir.path / "status.json").stat().st_mtime
    if is_alive(status, written):
        return {"position": status.position, "seconds_left": status.position and status.position.seconds_left}
    by = f"process {status.pid} on {status.host}" if status.pid else "its process"
    sign = status.position.updated if status.position and status.position.updated else written
    last = ""
    with suppress(ValueError, OverflowError):  # a file may have a time that no calendar has
        last = f"; last sign {datetime.fromtimestamp(sign):%Y-%m-%d %H:%M}"
    reason = f"{by} is gone, without a word{last}"
    return {"status": "stale", "reason": reason, "step": _farthest_step(rundir, status)}


def _read_names(rundir: RunDir) -> dict[str, Any]:
    """The algorithm, the task source, the experiment, tags and evaluations."""
    choices = _read_choices(rundir) or rundir.choices()
    return {
        "algorithm": choices.get("algo") or _class_of_config(rundir, "algo"),
        "source": choices.get("data") or _class_of_config(rundir, "data"),
        "experiment": choices.get("experiment"),
        "tags": rundir.tags(),
        "evaluations": _count_evaluations(rundir.path / "eval"),
    }


def _read_choices(rundir: RunDir) -> dict[str, str] | None:
    """Hydra's choices by group; None where they were not kept."""
    path = rundir.path / ".hydra" / "choices.yaml"
    with suppress(FileNotFoundError):
        text = read(path, LARGEST).decode(errors="replace")
        usual = [CHOICE.fullmatch(line) for line in text.splitlines()]
        if text.isascii() and usual and all(match and match[2].lower() not in NO_TEXT for match in usual):
            return {match[1]: match[2] for match in usual if match}
    return read_choices(path)


def _read_settings(rundir: RunDir) -> dict[str, Any]:
    """What was typed for a run, to begin it and to go on with it; and the run that it repeats."""
    path, words = rundir.path / ".hydra" / "overrides.yaml", []
    with suppress(FileNotFoundError):
        text = read(path, LARGEST).decode(errors="replace")
        usual = [WORD.fullmatch(line) for line in text.splitlines()]
        if text.isascii() and ":" not in text and usual and all(usual):
            words = [match[1] for match in usual if match]
        else:
            words = read_words(path)
    pairs = ((key_of(word), word.partition("=")[2]) for word in words)
    differs = {key: value for key, value in pairs if key not in OWN_FIELDS and not f"{key}.".startswith("hydra.")}
    environment = rundir.environment()
    if environment and environment.continued:
        changed = {key for session in environment.continued for key in session.changed}
        values = dict(leaves(rundir.config().plain())) if changed else {}
        differs |= {key: str(values.get(key)) for key in sorted(changed)}
    return {"differs": differs, "reproduces": environment.reproduces if environment else None}


def _count_evaluations(folder: Path) -> int:
    with suppress(OSError):
        return sum(len(os.listdir(day)) for day in os.scandir(folder) if day.is_dir(follow_symlinks=False))
    return 0


def _steps_of_config(rundir: RunDir) -> int | None:
    """The outer steps of a run that does not say itself: meta_steps and budget stand at the top of its config."""
    text = _config_text(rundir)
    steps, budget = (re.search(rf"^{key}: ([\d.eE+-]+)$", text, re.MULTILINE) for key in ("meta_steps", "budget"))
    with suppress(ValueError, OverflowError):
        count = max(1, round(int(steps[1]) * float(budget[1] if budget else 1))) if steps else 0
        return count if 0 < count < MOST else None
    return None


def _class_of_config(rundir: RunDir, section: str) -> str:
    """The name of the class of a section, such as MAML: in older runs no choice by name was kept."""
    found = re.search(rf"^{section}:\n(?:  .*\n)*?  _target_: [\w.]*?(\w+)$", _config_text(rundir), re.MULTILINE)
    return found[1] if found else ""


def _config_text(rundir: RunDir) -> str:
    """The text of the saved config, for what has no need of a YAML reader; '' where it cannot be read."""
    with suppress(OSError):
        return read(rundir.path / ".hydra" / "config.yaml", LARGEST).decode(errors="replace")
    return ""


def _began(path: Path) -> float | None:
    """When a run began, by the first line of its log; else by the age of its first file, which a copy has new."""
    with suppress(OSError, ValueError, OverflowError):
        first = read_beginning(path / "metarun.log", len("2026-01-31 12:00:00,000")).decode()
        return datetime.fromisoformat(first.replace(",", ".")).timestamp()
    for name in (".hydra/overrides.yaml", "status.json", "."):
        with suppress(OSError):
            return (path / name).stat().st_mtime
    return None
