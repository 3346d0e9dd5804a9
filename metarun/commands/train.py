"""metarun [key=value ...]: checks of all jobs, what is handed over to Hydra, and the jobs as Hydra calls them."""

import argparse
import atexit
import logging
import os
import secrets
import shutil
import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from hydra import version
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metarun.commands.common import print_run, set_up_logging
from metarun.commands.search import DIVERGED, PRUNED, Search
from metarun.commands.search_space import cover
from metarun.commands.sweep import FAILURES, note_failure, refuse_ranges, run_sweep
from metarun.config.compose import HYDRA, compose, forget_composed, hydra_settings, plain_config
from metarun.config.folders import ConfigFolders
from metarun.config.keys import key_of
from metarun.config.overrides import combinations, parse
from metarun.config.saved import dump, saved_config
from metarun.config.schema import check
from metarun.config.search import PLUGIN
from metarun.engine.ranks import is_rank_zero, refuse_several_processes, share_the_machine
from metarun.errors import DivergedError, MetarunError, PrunedError, RunDirError, StoppedError, UsageError
from metarun.storage.rundir import RunDir, make_dated_folder
from metarun.text import reason, short_path

log = logging.getLogger("metarun")
HYDRA_DEFAULTS = {
    "hydra.sweep.subdir": '"${metarun_folder:${hydra.job.override_dirname}}"',
    "hydra.job.config.override_dirname.exclude_keys": "[data.root]",
    "hydra.job.name": "metarun",
    "hydra.output_subdir": "null",  # a run writes .hydra itself, once it has seen what is there
    # A file of choices may set up logging too, which can run code: without a root, Hydra leaves it alone.
    "hydra/job_logging": "none",
    "hydra.job_logging.root": "null",
    "hydra/hydra_logging": "none",
    "hydra.hydra_logging.root": "null",
}


def main(argv: list[str]) -> None:
    """Checks every job of a command line, then hands it over to Hydra."""
    parser = get_args_parser()
    parser.error = _refuse  # pyright: ignore[reportAttributeAccessIssue]
    args = parser.parse_intermixed_args(argv)  # overrides may stand before and after options
    if args.experimental_rerun:
        _refuse("--experimental-rerun", "would unpickle a file, which can run code; use metarun reproduce DIR")
    if args.config_name:
        _refuse(f"--config-name {args.config_name}", "metarun has one config; choose experiment=name")
    if args.config_dir:  # its files may have changed since an earlier call in this process
        forget_composed()
    with tempfile.TemporaryDirectory() if args.config_path else nullcontext() as temporary:
        folders = _find_folders(args, temporary)
        args.config_path, args.overrides = None, list(args.overrides)
        run = partial(_hand_over, args, parser, str(folders.paths()[0]))
        if args.cfg or args.resolve or args.hydra_help or args.info or args.shell_completion:
            if args.cfg:
                compose(args.overrides, folders)  # what is shown is what would run
            args.overrides += _defaults(args.overrides)
            run()
        elif args.multirun:
            refuse_several_processes("a sweep")
            _sweep(args, folders, run, _check_jobs(args, folders))
        else:
            _check_jobs(args, folders)
            args.overrides += _defaults(args.overrides) + _run_folder(args.overrides)
            run()


def _refuse(option: str, rule: str = "see metarun --help") -> NoReturn:
    raise UsageError(f"{option} (command line): {rule}")


def _find_folders(args: argparse.Namespace, temporary: str | None) -> ConfigFolders:
    """The folders named on the command line.

    A saved config may be a stranger's, and Hydra would use whatever else lies in its folder; so Hydra is given a copy
    of the config alone, once that is seen to hold values only.
    """
    if temporary:
        plain = saved_config(Path(args.config_path, "config.yaml")).plain()
        Path(temporary, "config.yaml").write_text(dump(plain), encoding="utf-8")
    extra = Path(args.config_dir).resolve() if args.config_dir else None
    if extra and not extra.is_dir():
        raise UsageError(f"{args.config_dir} (--config-dir): expected a folder with choices, such as algo/mine.yaml")
    return ConfigFolders(Path(temporary) if temporary else None, extra)


def _check_jobs(args: argparse.Namespace, folders: ConfigFolders) -> Search | None:
    """Composes and builds every job, and makes the data of each ready, before the first one starts.

    Returns:
        The search, where the words are one.
    """
    overrides = parse(args.overrides, folders)
    mine, other = ("sweep", "run") if args.multirun else ("run", "sweep")
    for override in overrides.parsed:
        key, word = override.get_key_element(), override.input_line
        if key == f"hydra.{mine}.dir" and not override.value():
            raise UsageError(f"{word!r} (command line): expected a folder; give it a name, or leave it out")
        if key == f"hydra.{other}.dir":
            raise UsageError(f"{word!r} (command line): is for a {other}; for a {mine} set hydra.{mine}.dir")
        if key == "sweep" and override.value() and not args.multirun:
            raise UsageError(f"{word!r} (command line): a sweep has several runs; add -m")
    settings = hydra_settings(tuple(overrides.fixed) if args.multirun else (), folders)
    if params := settings.sweeper.get("params"):  # what a file of the group sweep adds to the command line
        overrides = parse([*(f"{key}={value}" for key, value in params.items()), *args.overrides], folders)
    searches = settings.sweeper._target_ == PLUGIN
    if not searches:
        refuse_ranges(overrides, settings.sweeper)
    jobs = [args.overrides]
    if args.multirun:
        jobs = cover(overrides, folders) if searches else list(combinations(overrides, folders))
    configs = [compose(words, folders) for words in jobs]
    if searches and any(config.objective == "test" for config in configs):
        raise UsageError("'test' (objective): expected val; a search must not see the test tasks")
    from metarun.run.build import build_experiment

    prepared, metrics = [], set()
    for words, config in zip(jobs, configs, strict=True):
        try:
            experiment = build_experiment(config)
        except UsageError as error:
            raise UsageError(f"{error} (in {' '.join(words)})" if args.multirun else str(error)) from error
        if config.data not in prepared:
            experiment.source.prepare(experiment.device)
            prepared.append(config.data)
        metrics.add(experiment.source.metric)
    if not searches:
        return None

    def metric_of(composed: DictConfig) -> str:
        return build_experiment(check(_plain(composed))).source.metric

    reference = plain_config(tuple(parse(jobs[0], folders).choices), folders)
    longest = max(config.outer_steps for config in configs)
    return Search(settings, overrides, folders, reference, metrics, longest, metric_of)


def _defaults(overrides: list[str]) -> list[str]:
    """The words of metarun's settings for Hydra itself, where the user has given none."""
    given = {key_of(word) for word in overrides}
    return [
        f"{key}={value}" for key, value in HYDRA_DEFAULTS.items() if not {key_of(key), key.rpartition(".")[0]} & given
    ]


def _run_folder(overrides: list[str]) -> list[str]:
    """The word that gives a run its folder, where the user has not."""
    if not is_rank_zero():  # Hydra wants a folder, and this process needs none
        folder = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        overrides[:] = [word for word in overrides if not word.startswith("hydra.run.dir=")]
        return [f"hydra.run.dir={folder}"]
    if any(word.startswith("hydra.run.dir=") for word in overrides):
        return []
    return [f"hydra.run.dir={make_dated_folder(Path('outputs'))}"]


def _sweep(args: argparse.Namespace, folders: ConfigFolders, run: partial, search: Search | None) -> None:
    """Runs a sweep in its folder, which is absolute: a launcher may start jobs elsewhere."""
    args.overrides += _defaults(args.overrides)
    if any(word.startswith("hydra.sweep.dir=") for word in args.overrides):
        fixed = tuple(parse(args.overrides, folders).fixed)
        folder = Path(hydra_settings(fixed, folders).sweep.dir).absolute()
        args.overrides = [word for word in args.overrides if not word.startswith("hydra.sweep.dir=")]
        if RunDir(folder).holds_run:
            rule = "expected a folder for the runs of a sweep; choose another hydra.sweep.dir"
            raise RunDirError(f"{short_path(folder)}: holds a run; {rule}")
    else:
        folder = make_dated_folder(Path("outputs", "sweeps")).absolute()
    failures = folder / f".failures-{secrets.token_hex(8)}"
    args.overrides += [f"hydra.sweep.dir={_quote(folder)}", f"+hydra.job.env_set.{FAILURES}={_quote(failures)}"]
    if search:
        search.take_over()
    run_sweep(run, folder, failures, search)


def _quote(path: Path) -> str:
    """A path as the value of an override."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _hand_over(args: argparse.Namespace, parser: argparse.ArgumentParser, config_path: str) -> None:
    """Lets Hydra run the jobs, or print what was asked for; raises what ended a job."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and cli.main() reports
    version.setbase("1.3")
    try:
        _run_hydra(args=args, args_parser=parser, task_function=job, config_path=config_path, config_name="config")
    except SystemExit as exit_:
        if isinstance(exit_.__cause__, Exception):
            raise exit_.__cause__ from None
        raise
    except (MetarunError, HydraException, OmegaConfBaseException, OSError):
        raise
    except Exception as error:  # of a sweeper with its storage, or of a launcher
        raise UsageError(f"{type(error).__name__}: {reason(error)} (Hydra): expected settings that work") from error


def _plain(composed: DictConfig) -> dict[str, Any]:
    """The plain config of a job that Hydra composed."""
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    return {key: value for key, value in plain.items() if key != "hydra"}


def job(composed: DictConfig) -> float | str | None:
    """Runs one job, perhaps in a process of a launcher; returns its objective, PRUNED, DIVERGED, or None.

    An exception must not reach Hydra, which would give up the jobs that are left; and at nan, as at an exception, its
    Optuna sweeper would give up the study. SystemExit passes through Hydra, with the error as its cause.
    """
    hydra = HydraConfig.get()
    sweep = hydra.mode == RunMode.MULTIRUN
    if sweep:
        share_the_machine(hydra.job.num, hydra.launcher)
    from metarun.run.judge import judge_of_job
    from metarun.run.train_and_test import execute  # imports torch, which reads the number of threads then

    set_up_logging()
    words, folder = list(hydra.overrides.task), Path(hydra.runtime.output_dir)
    choices = {group: name for group, name in hydra.runtime.choices.items() if name and "hydra/" not in group}
    plain = _plain(composed)
    own = OmegaConf.to_container(hydra, resolve=False)
    if sweep:
        log.info("job %s: %s", hydra.job.num, " ".join(words))
    try:
        judge = judge_of_job(hydra.sweeper.get("pruner"), HYDRA) if sweep else None
        summary = execute(check(plain), folder, words, choices, own, bar=not sweep, judge=judge)
        if summary and not sweep:
            print_run(summary, folder)
    except Exception as error:
        if not sweep or isinstance(error, StoppedError):
            raise SystemExit(getattr(error, "code", 1)) from error
        if isinstance(error, PrunedError):
            return PRUNED
        note_failure(words, folder, error)
        if isinstance(error, DivergedError):
            return DIVERGED if error.objective is None else error.objective
        return None
    return summary.objective if summary else None  # on a rank above 0
