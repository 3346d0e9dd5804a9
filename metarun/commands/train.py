"""metarun [key=value ...]: checks of all jobs, what is handed over to Hydra, and the jobs as Hydra calls them."""

import argparse
import atexit
import json
import logging
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from metarun.commands import help
from metarun.commands.console import print_run, set_up_logging
from metarun.commands.search import check_search, ranges
from metarun.config.compose import Source, compose, conf_dir, jobs, settled
from metarun.config.saved import check_choices, dump, saved_config
from metarun.config.schema import check
from metarun.engine.ranks import alone, beside_others, is_first
from metarun.errors import MetarunError, StoppedError, UsageError
from metarun.storage.records import Summary
from metarun.text import format_metric, printable, reason, short_path

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
    from metarun.run.train_and_test import execute  # imports torch, which reads the number of threads then

    set_up_logging()
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    words, folder = list(this.overrides.task), Path(this.runtime.output_dir)
    own = OmegaConf.to_container(this, resolve=False)
    if sweep:
        log.info("job %s: %s", this.job.num, " ".join(words))
    try:
        choices = {key: value for key, value in this.runtime.choices.items() if value and not key.startswith("hydra/")}
        summary = execute(check(settled(plain, words)), folder, words, choices, own, bar=not sweep)
        if summary is None:  # on a rank above 0
            return None
        if not sweep:
            print_run(summary, folder)
    except Exception as error:
        if not sweep or isinstance(error, StoppedError):
            ended.append(error)
            raise SystemExit(getattr(error, "code", 1)) from error  # Hydra lets this through
        files = str(short_path(folder))
        _leave(this.job.num, {"words": words, "error": str(error) or type(error).__name__, "files": files})
        return getattr(error, "objective", None)
    if sweep:
        _leave(this.job.num, {"words": words, "summary": summary.plain(), "files": str(short_path(folder))})
    return summary.objective


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
        "hydra.callbacks.metarun._target_": "metarun.commands.train.Place",
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
    if "error" in outcome:
        return f"failed: {outcome['error']}  {outcome['files']}"
    summary = Summary.from_json(json.dumps(outcome["summary"]))
    metric, test, val = summary.metric, summary.test, summary.validation
    best = f"val {format_metric(metric, val.mean)}  " if val else ""
    return f"{best}test {metric} {format_metric(metric, test.mean, test.ci95)}  {outcome['files']}"


def main(argv: list[str]) -> int:
    """Checks every job of a command line, then hands it over to Hydra."""
    parser = get_args_parser()
    parser.error = _usage  # pyright: ignore[reportAttributeAccessIssue]
    args = parser.parse_intermixed_args(argv)  # overrides may stand before and after options
    if args.help:
        return help.main(args)
    if args.experimental_rerun:
        raise UsageError(
            "--experimental-rerun (command line): would unpickle a file, which can run code; use metarun reproduce DIR"
        )
    if args.config_name:
        raise UsageError(
            f"--config-name {args.config_name} (command line): metarun has one config; choose experiment=name"
        )
    if args.resolve and not args.cfg:
        raise UsageError("--resolve (command line): expected --cfg job beside it")
    if args.cfg and args.multirun:
        raise UsageError("--cfg (command line): shows one config, and -m makes several; leave out either")
    with tempfile.TemporaryDirectory() if args.config_path else nullcontext() as temporary:
        return _handed_over(args, argv, _source(args, temporary))


def _handed_over(args: argparse.Namespace, argv: list[str], source: Source) -> int:
    runs = not (args.cfg or args.hydra_help or args.info or args.shell_completion)
    if runs:
        if args.multirun:
            alone("a sweep")
        _check(args, source)
    elif args.cfg and not args.multirun:
        compose(args.overrides, source)  # what is shown is what would run
    # Where configs come from is settled; Hydra wants the options first, and all overrides together.
    named = args.config_path
    elsewhere = ("-cp", "--config-path", named, f"-cp={named}", f"--config-path={named}")
    flags = [word for word in argv if word not in args.overrides and word not in elsewhere]
    sys.argv = ["metarun", *flags, *args.overrides, *_defaults(args.overrides, args.multirun, runs)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and main() reports
    app = hydra.main(config_path=str(source.primary or conf_dir()), config_name="config", version_base="1.3")(job)
    if not runs:
        return app() or 0
    run_all(app, args.multirun)
    return 0


def _check(args: argparse.Namespace, source: Source) -> None:
    """Every job is composed and built, and the data of each made ready, before the first one starts."""
    for word in args.overrides:
        key, _, value = word.partition("=")
        if key in ("hydra.run.dir", "hydra.sweep.dir") and value.strip("'\"") in ("", "null"):
            raise UsageError(f"{word!r} (command line): expected a folder; give it a name, or leave it out")
        if key == ("hydra.run.dir" if args.multirun else "hydra.sweep.dir"):
            kinds = ("a sweep", "hydra.sweep.dir") if args.multirun else ("a run without -m", "hydra.run.dir")
            raise UsageError(f"{word!r} (command line): {kinds[0]} has its folder from {kinds[1]}")
    chosen = [word for word in args.overrides if word.partition("=")[0] == "sweep" and word != "sweep=null"]
    if chosen and not args.multirun:
        raise UsageError(f"{chosen[0]!r} (command line): a sweep has several runs; add -m")
    between = [f"{key}={value}" for key, value in ranges(args.overrides, source)]
    combinations = [[*words, *between] for words in jobs(args.overrides, source)] if args.multirun else [args.overrides]
    configs = [compose(words, source) for words in combinations]
    if args.multirun:
        check_search(args.overrides, configs, source)
    from metarun.run.build import build_experiment

    prepared = []
    for words, config in zip(combinations, configs, strict=True):
        try:
            experiment = build_experiment(config)
        except UsageError as error:
            raise UsageError(f"{error} (in {' '.join(words)})" if args.multirun else str(error)) from error
        if config.data not in prepared:
            experiment.source.prepare(experiment.device)
            prepared.append(config.data)


def _usage(message: str) -> NoReturn:
    raise UsageError(f"{message} (command line): see metarun --help")


def _source(args: argparse.Namespace, temporary: str | None) -> Source:
    """The folders named on the command line.

    A saved config may be a stranger's, and Hydra would use whatever else lies in its folder; so Hydra is given a copy
    of the config alone, once that is seen to hold values only.
    """
    primary = Path(temporary) if temporary else None
    if primary:
        plain = saved_config(Path(args.config_path, "config.yaml")).plain()
        (primary / "config.yaml").write_text(dump(plain), encoding="utf-8")
    extra = Path(args.config_dir).resolve() if args.config_dir else None
    if extra and not extra.is_dir():
        raise UsageError(f"{args.config_dir} (--config-dir): expected a folder with choices, such as algo/mine.yaml")
    if extra:
        check_choices(extra)
    return Source(primary, extra)


def _defaults(overrides: list[str], sweep: bool, runs: bool) -> list[str]:
    """Metarun's settings for Hydra itself, where the user has given none."""
    given = {word.lstrip("+~").partition("=")[0] for word in overrides}
    wanted = {
        "hydra.sweep.subdir": "${hydra.job.override_dirname}",
        "hydra.job.config.override_dirname.exclude_keys": "[data.root]",
        "hydra.job.name": "metarun",
        "hydra.output_subdir": "null",  # run.py writes .hydra itself, once it has seen what is there
        "hydra/job_logging": "none",
        "hydra/hydra_logging": "none",
    }
    if sweep:
        wanted |= {f"+{key}": value for key, value in sweep_settings().items()}
    where = "hydra.sweep.dir" if sweep else "hydra.run.dir"
    if runs and not is_first():  # Hydra wants a folder, and this process needs none
        given.discard(where)
        wanted[where] = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, wanted[where], ignore_errors=True)
    elif runs and where not in given:
        from metarun.storage.rundir import fresh

        wanted[where] = str(fresh(Path("outputs", "sweeps") if sweep else Path("outputs")))
    words = [f"{key}={value}" for key, value in wanted.items() if key not in given]
    if sweep and "hydra/launcher" in given:  # its jobs may start in another folder than this one
        relative = re.compile(r"hydra\.sweep\.dir=(?=[\w.])")
        here = [relative.sub("hydra.sweep.dir=${hydra.runtime.cwd}/", word) for word in (*overrides, *words)]
        words += [word for word in here if word.startswith("hydra.sweep.dir=${hydra.runtime.cwd}")]
    return words
