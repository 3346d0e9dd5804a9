"""The jobs of a command, as Hydra and its launchers call them, and how they ended."""

import json
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from metarun.config.compose import settled
from metarun.config.schema import checked
from metarun.engine.ranks import beside_others, is_first
from metarun.errors import MetarunError, StoppedError, UsageError
from metarun.text import printable, reason

OUTCOMES = "METARUN_OUTCOMES"  # in the environment of each job of a sweep: the folder where they say how they ended

log = logging.getLogger("metarun")
places: list[Path] = []  # where the jobs of this sweep say how they ended, once that is settled
ended: list[Exception] = []  # what ended the command; Hydra would print it in its own way


def job(composed: DictConfig) -> float | None:
    """One job, called by Hydra, perhaps in a process of a launcher; returns the objective, None if it failed before.

    An exception must not reach Hydra, which would give up the jobs that are left; and at nan, as at an exception, its
    Optuna sweeper would give up the study.
    """
    this = HydraConfig.get()
    sweep = this.mode == RunMode.MULTIRUN
    if sweep:
        beside_others(this.job.num, this.launcher)
    from metarun.run import train_and_test as run  # imports torch, which reads the number of threads then
    from metarun.storage import metrics as record
    from metarun.storage.rundir import RunDir

    talk()
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    words, folder = list(this.overrides.task), Path(this.runtime.output_dir)
    own = OmegaConf.to_container(this, resolve=False)
    if sweep:
        log.info("job %s: %s", this.job.num, " ".join(words))
    try:
        summary = located(run.execute(checked(settled(plain, words)), folder, words, own, bar=not sweep), folder)
        if not sweep and is_first():
            print(printable(record.closing(summary)), flush=True)
    except Exception as error:
        if not sweep or isinstance(error, StoppedError):
            ended.append(error)
            raise SystemExit(getattr(error, "code", 1)) from error  # Hydra lets this through
        shown = str(RunDir(folder).shown)
        _leave(this.job.num, {"words": words, "error": str(error) or type(error).__name__, "files": shown})
        return getattr(error, "objective", None)
    if sweep:
        _leave(this.job.num, {"words": words, "summary": summary})
    return summary.get("objective")


def talk() -> None:
    """Sends metarun's log to stderr; errors are not said there, but once, by main()."""
    console = _Console()
    console.addFilter(lambda line: line.levelno < logging.ERROR)
    others = [handler for handler in log.handlers if not isinstance(handler, _Console)]
    log.handlers, log.propagate = [console, *others], False
    log.setLevel(logging.INFO if is_first() else logging.WARNING)


class _Console(logging.StreamHandler):
    """Paths and values of strangers are among what is said."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def run_all(app: Callable[[], Any], sweep: bool) -> None:
    """Runs Hydra's app, which calls job(); says how a sweep ended, and raises what went wrong."""
    ended.clear()
    places.clear()
    refused = None
    try:
        app()
    except SystemExit:
        if ended:
            raise _for_sweep(ended[0]) if sweep else ended[0] from None
        raise
    except StoppedError as error:
        raise _for_sweep(error) if sweep else error from None
    except (RuntimeError, ImportError, TypeError, ValueError) as error:  # of a launcher or a sweeper: job() raises none
        refused = error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("optuna", "sqlalchemy"):
            raise
        raise UsageError(
            f"{reason(error)} (hydra.sweeper.storage): expected null, or a database in a folder that is there, such as "
            "sqlite:///study.db"
        ) from error
    finally:
        outcomes = _collected() if sweep else []
        _show(outcomes)
    if failed := sum("error" in outcome for outcome in outcomes):
        raise MetarunError(
            f"{failed} of {len(outcomes)} jobs failed (sweep): expected all to finish; metarun.log in their "
            f"directories says why"
        )
    if refused is not None:
        why = f"{type(refused).__name__}: {reason(refused)} (Hydra): expected settings that work"
        raise UsageError(why) from refused


def _for_sweep(error: Exception) -> Exception:
    """A stop, with how to go on with the jobs that are left."""
    if not isinstance(error, StoppedError) or not places:
        return error
    sweep = places[0].parent
    return StoppedError(f"{error}; for all other jobs repeat the sweep with hydra.sweep.dir={sweep}", error.code - 128)


def sweep_settings() -> dict[str, str]:
    """What tells each job of a sweep, wherever it runs, where to say how it ended, and this process where that is."""
    return {
        f"hydra.job.env_set.{OUTCOMES}": f"${{hydra.sweep.dir}}/.outcomes-{secrets.token_hex(8)}",
        "hydra.callbacks.metarun._target_": "metarun.commands.jobs.Place",
    }


class Place(Callback):
    """Called by Hydra when it has settled where a sweep is."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Remembers where the jobs will say how they ended."""
        places[:] = [Path(config.hydra.job.env_set[OUTCOMES]).absolute()]


def _leave(number: int, outcome: dict[str, Any]) -> None:
    folder = Path(os.environ[OUTCOMES])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number:09d}.json").write_text(json.dumps(outcome), encoding="utf-8")


def _collected() -> list[dict[str, Any]]:
    """How the jobs of this sweep ended, in their order."""
    found = []
    for folder in places:
        found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _show(outcomes: list[dict[str, Any]]) -> None:
    """A line for each job: the words that it does not share with all others, and its result."""
    words = [outcome["words"] for outcome in outcomes]
    same = set.intersection(*map(set, words)) if len(words) > 1 else set()
    names = [" ".join(word for word in some if word not in same) for some in words]
    width = max(map(len, names), default=0)
    for name, outcome in zip(names, outcomes, strict=True):
        print(printable(f"{name:<{width}}  {_result(outcome)}"), file=sys.stdout)


def _result(outcome: dict[str, Any]) -> str:
    from metarun.storage import metrics as record

    if "error" in outcome:
        return f"failed: {outcome['error']}  {outcome['files']}"
    summary, metric = outcome["summary"], outcome["summary"]["metric"]
    test, val = summary["test"][metric], summary.get("val", {}).get(metric)
    best = f"val {record.shown(metric, val['mean'])}  " if val else ""
    return f"{best}test {metric} {record.shown(metric, test['mean'], test['ci95'])}  {summary['files']}"


def located(summary: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A summary with where its files are, and the command that repeats it."""
    from metarun.storage.rundir import RunDir

    rundir = RunDir(folder)
    return {**summary, "files": str(rundir.shown), "reproduce": f"metarun reproduce {rundir.typed}"}
