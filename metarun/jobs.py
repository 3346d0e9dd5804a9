"""The jobs of a command, as Hydra calls them, and how they ended."""

import logging
import math
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from metarun.compose import without_protocol
from metarun.config import checked
from metarun.errors import MetarunError, StoppedError

log = logging.getLogger("metarun")


@dataclass
class Outcome:
    """How a job of this command ended."""

    words: str
    summary: dict[str, Any] | None = None
    error: Exception | None = None


outcomes: list[Outcome] = []
stopped: list[StoppedError] = []
main_process: int | None = None  # None in the processes of a launcher


def job(composed: DictConfig) -> float:
    """One job, called by Hydra; returns the objective, nan for a job that failed.

    An exception must not reach Hydra, which would print it in its own way and give up the jobs that are left.
    """
    from metarun import run

    plain: Any = OmegaConf.to_container(composed, resolve=True)
    this = HydraConfig.get()
    words, folder = list(this.overrides.task), Path(this.runtime.output_dir)
    own = OmegaConf.to_container(this, resolve=False)
    sweep = this.mode == RunMode.MULTIRUN
    if sweep:
        log.info("job %s: %s", this.job.num, " ".join(words))
    outcome = Outcome(" ".join(words))
    outcomes.append(outcome)
    try:
        summary = run.execute(checked(without_protocol(plain)), folder, words, own, bar=not sweep)
    except StoppedError as error:
        stopped.append(error)
        raise SystemExit(error.code) from error  # which Hydra lets through, so that a signal ends a whole sweep
    except Exception as error:
        if os.getpid() != main_process:
            raise  # a launcher's own process, whose outcomes the main one does not see
        outcome.error = error
        return math.nan
    outcome.summary = located(summary, folder)
    return summary["objective"]


def outcome_of(app: Callable[[], Any], sweep: bool) -> int:
    """Runs Hydra's app, which calls job(), and says how it ended; raises what went wrong in it."""
    global main_process
    main_process = os.getpid()
    outcomes.clear()
    stopped.clear()
    try:
        app()
    except SystemExit:
        if stopped:
            raise stopped[0] from None
        raise
    return closing_words(sweep)


def closing_words(sweep: bool) -> int:
    """The closing words of a command; raises what went wrong in it."""
    from metarun import record

    if not sweep:
        if error := outcomes[0].error:
            raise error
        print(record.closing(outcomes[0].summary or {}))
        return 0
    split = [outcome.words.split() for outcome in outcomes]
    same = set.intersection(*map(set, split)) if len(split) > 1 else set()
    names = [" ".join(word for word in words if word not in same) for words in split]
    width = max(map(len, names), default=0)
    print()
    for name, outcome in zip(names, outcomes, strict=True):
        print(f"{name:<{width}}  {_result(outcome)}")
    if failed := sum(outcome.error is not None for outcome in outcomes):
        raise MetarunError(
            f"{failed} of {len(outcomes)} jobs failed (sweep): expected all to finish; metarun.log in their "
            f"directories says why"
        )
    return 0


def _result(outcome: Outcome) -> str:
    from metarun import record

    if outcome.summary is None:
        return f"failed: {outcome.error}"
    metric = outcome.summary["metric"]
    test = outcome.summary["test"][metric]
    return f"test {metric} {record.shown(metric, test['mean'], test['ci95'])}  {outcome.summary['files']}"


def located(summary: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A summary with where its files are, and the command that repeats it."""
    from metarun.rundir import RunDir

    shown = str(RunDir(folder).shown)
    return {**summary, "files": shown, "reproduce": f"metarun reproduce {shlex.quote(shown)}"}
