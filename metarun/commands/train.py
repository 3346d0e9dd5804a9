"""metarun [key=value ...]: what is handed over to Hydra, once jobs.py has checked all, and a job as Hydra calls it."""

import atexit
import logging
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import _run_hydra, create_config_search_path, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metarun.commands.common import print_run, set_up_logging
from metarun.commands.folders import as_typed, choose_folders, exclude_words, is_given, shared_keys
from metarun.commands.jobs import Job, check_jobs, find_folders, plain_config
from metarun.commands.lost_jobs import outliving_lost_jobs
from metarun.commands.search import Search
from metarun.commands.study import DIVERGED, PRUNED
from metarun.commands.sweep import (
    choices_of,
    describe_end,
    run_sweep,
)
from metarun.commands.sweep_progress import NOTES, SweepProgress, note
from metarun.commands.words import as_settings
from metarun.config.compose import complete, compose
from metarun.config.folders import ConfigFolders
from metarun.config.keys import key_of
from metarun.config.overrides import quote_path, spell_as_typed, spell_for_hydra
from metarun.config.own_code import explaining
from metarun.config.schema import check
from metarun.config.through_hydra import HYDRA, search_path
from metarun.engine.ranks import is_rank_zero, refuse_several_processes, share_the_machine
from metarun.errors import DivergedError, MetarunError, PrunedError, RunDirError, StoppedError, UsageError
from metarun.storage.rundir import RunDir, make_dated_folder, name_dated_folder
from metarun.text import count_of, reason, short_path

log = logging.getLogger("metarun")
HYDRA_DEFAULTS = {
    "hydra.sweep.subdir": '"${metarun_folder:${hydra.job.override_dirname}}"',
    "hydra.job.config.override_dirname.exclude_keys": "[data.root,data.file]",
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
    argv = as_settings(argv, parser._option_string_actions)
    args = parser.parse_intermixed_args(argv)  # overrides may stand before and after options
    if args.experimental_rerun:
        _refuse("--experimental-rerun", "would unpickle a file, which can run code; use metarun reproduce DIR")
    if args.config_name:
        _refuse(f"--config-name {args.config_name}", "metarun has one config; choose experiment=name")
    if args.shell_completion:
        _refuse("--shell-completion", "is Hydra's, and knows no verbs; see metarun completion bash, zsh or fish")
    with tempfile.TemporaryDirectory() if args.config_path else nullcontext() as temporary:
        folders = find_folders(args, temporary)
        args.config_path, args.overrides = None, as_typed(list(args.overrides))
        if args.cfg or args.resolve or args.hydra_help or args.info:
            if args.cfg:
                args.overrides = complete(args.overrides, folders)
                compose(args.overrides, folders)  # what is shown is what would run
            args.overrides = spell_for_hydra(args.overrides) + _defaults(args.overrides)
            _hand_over(partial(_run_hydra, args, parser, job, str(folders.paths()[0]), "config"))
        elif args.multirun:
            refuse_several_processes("a sweep")
            _sweep(args.overrides, folders, *check_jobs(args, folders))
        else:
            dated = name_dated_folder(Path("outputs"))
            with ExitStack() as stack:
                [run], _ = check_jobs(args, folders, partial(_announce, stack, dated))
            given = _run_folder(run, dated)
            words = [*run.words, *_defaults(run.words), *given]
            _hand_over(partial(_run, words, folders))


def _refuse(option: str, rule: str = "see metarun --help") -> NoReturn:
    raise UsageError(f"{option} (command line): {rule}")


def _defaults(overrides: list[str]) -> list[str]:
    """The words of metarun's settings for Hydra itself, where the user has given none."""
    given = {key_of(word) for word in overrides}
    return [
        f"{key}={value}" for key, value in HYDRA_DEFAULTS.items() if not {key_of(key), key.rpartition(".")[0]} & given
    ]


def _announce(stack: ExitStack, dated: Path, run: Job, experiment: Any) -> None:
    """Says what will run, at the end of a stack; `dated` is its folder where none is given.

    Raises:
        RunDirError: its folder is another run's, or cannot be made.
    """
    from metarun.run.progress import Announcement
    from metarun.run.starting_point import held_run, is_finished

    if is_rank_zero():
        rundir = RunDir(Path(run.hydra.run.dir) if is_given(run.hydra.run, "dir") else dated)
        if not rundir.holds_run:
            rundir.check_place()
        _, changes = held_run(rundir, run.config)
        if not is_finished(rundir, run.config, changes):
            stack.enter_context(Announcement()).begin(run.config, rundir.path, experiment)


def _run_folder(run: Job, dated: Path) -> list[str]:
    """The word that gives a run its folder: as announced where a word or a file has one, else `dated` if it is free."""
    if not is_rank_zero():  # Hydra wants a folder, and this process needs none
        folder = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    elif is_given(run.hydra.run, "dir"):
        folder = run.hydra.run.dir  # in which ${now:%S} is the second of the announcement
    else:
        folder = make_dated_folder(Path("outputs"), dated)
    run.words[:] = [word for word in run.words if key_of(word) != "hydra.run.dir"]
    return [f"hydra.run.dir={quote_path(folder)}"]


def _sweep(typed: list[str], folders: ConfigFolders, jobs: list[Job], search: Search | None) -> None:
    """Runs a sweep in its folder, which is absolute: a launcher may start jobs elsewhere."""
    sweep = jobs[0].hydra.sweep
    if is_given(sweep, "dir"):
        folder = Path(sweep.dir).expanduser().absolute()
        if RunDir(folder).holds_run:
            rule = "expected a folder for the runs of a sweep; choose another hydra.sweep.dir"
            raise RunDirError(f"{short_path(folder)}: holds a run; {rule}")
    else:
        folder = make_dated_folder(Path("outputs", "sweeps"), remedy="choose a hydra.sweep.dir").absolute()
    RunDir(folder).check_place("choose another hydra.sweep.dir")
    notes = folder / f".notes-{secrets.token_hex(8)}"
    words = [word for word in jobs[0].words if key_of(word) != "hydra.sweep.dir"]
    tasks = [[word for word in job.words if not key_of(word).startswith("hydra.")] for job in jobs]
    shared = search.fixed if search else set.intersection(*map(set, tasks)) if len(tasks) > 1 else ()
    named = is_given(sweep, "subdir") or "hydra.sweep.subdir" in map(key_of, words)
    if search:
        search.take_over()
        if not named:
            searched = [*map(key_of, search.space), *(key_of(word) for word in search.seeds[0])]
            words.append(exclude_words(shared_keys(folder, searched, search.fixed)))
    else:
        names = [] if named else choose_folders(folder, tasks, [job.config for job in jobs])
        for task in tasks:
            task[:] = spell_for_hydra(task)
        for task, name in zip(tasks, names, strict=False):
            task.append(f"hydra.sweep.subdir={quote_path(name)}")
    words += [*_defaults(words), f"hydra.sweep.dir={quote_path(folder)}", "hydra.mode=MULTIRUN"]
    words += [f"+hydra.job.env_set.{NOTES}={quote_path(notes)}"]
    launch = partial(_launch, words, folders, tasks, typed)
    number = search.n_trials * len(search.seeds) if search else len(jobs)
    log.info("%s in %s", count_of(number, "job"), short_path(folder))
    progress = SweepProgress(notes, number, shared, describe_end)
    run_sweep(partial(_hand_over, launch), folder, progress, search)


@contextmanager
def _hydra(words: list[str], folders: ConfigFolders) -> Iterator[tuple[Hydra, list[str]]]:
    """Hydra, and the words as it wants them."""
    try:
        hydra = Hydra.create_main_hydra2("metarun", create_config_search_path(str(folders.paths()[0])))
        yield hydra, [*spell_for_hydra(words), *search_path(folders)]
    finally:
        GlobalHydra.instance().clear()


def _run(words: list[str], folders: ConfigFolders) -> None:
    """Lets Hydra run a single job; composing it once, where Hydra's own way to here first looks for its mode."""
    with _hydra(words, folders) as (hydra, words):
        hydra.run("config", job, [*words, "hydra.mode=RUN"])


def _launch(words: list[str], folders: ConfigFolders, jobs: list[list[str]], typed: list[str]) -> None:
    """Lets Hydra's launcher run these jobs; or a sweeper that searches, others of the words that were typed.

    It does what Hydra.multirun() does. That would combine the words itself, but first compose those that have one
    value, which need not fit the default config.
    """
    with _hydra(words, folders) as (hydra, words):
        config = hydra.compose_config("config", words, RunMode.MULTIRUN, with_log_configuration=True)
        callbacks = Callbacks(config)
        callbacks.on_multirun_start(config=config, config_name="config")
        context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
        sweeper: Any = Plugins.instance().instantiate_sweeper(config=config, hydra_context=context, task_function=job)
        if type(sweeper).__name__ == "BasicSweeper":  # by name: Hydra may import its plugins a second time
            sweeper.params = {}
            sweeper.split_arguments = lambda _, size: list(sweeper.split_overrides_to_chunks(jobs, size))
            sweeper.validate_batch_is_legal = lambda _: None  # it is, and this would compose them all once more
            typed = []
        with outliving_lost_jobs(config.hydra.launcher._target_):
            sweeper.sweep([word for word in spell_for_hydra(typed) if not key_of(word).startswith("hydra.")])
        callbacks.on_multirun_end(config=config, config_name="config")


def _hand_over(run: Callable[[], None]) -> None:
    """Lets Hydra run the jobs, or print what was asked for; raises what ended a job."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and cli.main() reports
    version.setbase("1.3")
    try:
        run()
    except SystemExit as exit_:
        if isinstance(exit_.__cause__, Exception):
            raise exit_.__cause__ from exit_.__cause__.__cause__  # as it was: a closed pipe is known by its cause
        raise
    except (MetarunError, HydraException, OmegaConfBaseException, OSError):
        raise
    except Exception as error:  # of a sweeper with its storage, or of a launcher
        if type(error).__name__ == "TerminatedWorkerError":  # joblib's
            rule = "lower hydra.launcher.n_jobs, and repeat the command with its hydra.sweep.dir, which runs the rest"
            raise MetarunError(f"a job's process was killed, perhaps for want of memory (sweep): {rule}") from error
        raise UsageError(f"{type(error).__name__}: {reason(error)} (Hydra): expected settings that work") from error


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
    from metarun.run.signals import handing_on
    from metarun.run.train_and_test import execute  # imports torch, which reads the number of threads then

    set_up_logging()
    words, folder = spell_as_typed(hydra.overrides.task), Path(hydra.runtime.output_dir)
    choices = choices_of(hydra)
    plain = plain_config(composed)
    own = OmegaConf.to_container(hydra, resolve=False)
    began = time.time()
    if sweep:
        note(hydra.job.num, words, folder)
    ended: dict[str, str] = {}
    end: float | str | None
    try:
        judge = judge_of_job(hydra.sweeper.get("pruner"), HYDRA) if sweep else None
        with explaining(), handing_on(signal.SIGUSR2):
            summary = execute(check(plain, hydra.runtime.cwd), folder, words, choices, own, bar=not sweep, judge=judge)
        if summary and not sweep:
            print_run(summary, folder)
    except Exception as error:
        if not sweep or isinstance(error, StoppedError):
            raise SystemExit(getattr(error, "code", 1)) from error
        end = PRUNED if isinstance(error, PrunedError) else None
        ended = {} if end else {"error": str(error) or type(error).__name__}
        if isinstance(error, DivergedError):
            end = DIVERGED if error.objective is None else error.objective
    else:
        end = summary.objective if summary else None  # on a rank above 0
    if sweep:
        note(hydra.job.num, words, folder, began=began, seconds=time.time() - began, **ended)
    return end
