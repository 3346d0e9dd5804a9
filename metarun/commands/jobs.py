"""The jobs of a command line: composed, built and checked, with their data made ready, before the first one starts."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from metarun.commands.common import find_choices
from metarun.commands.search import Search
from metarun.commands.search_space import cover
from metarun.commands.sweep import check_together, refuse_ranges, refuse_twins
from metarun.config.compose import complete, compose
from metarun.config.folders import ConfigFolders
from metarun.config.jobs import expand, settings_for_all
from metarun.config.keys import key_of
from metarun.config.overrides import ZIP, Overrides, parse
from metarun.config.own_code import explaining
from metarun.config.saved import dump, saved_config
from metarun.config.schema import Config, check
from metarun.config.search import PLUGIN
from metarun.config.through_hydra import hydra_settings, reference_config
from metarun.errors import DataError, UsageError


def find_folders(args: argparse.Namespace, temporary: str | None) -> ConfigFolders:
    """The folders named on the command line.

    A saved config may be a stranger's, and Hydra would use whatever else lies in its folder; so Hydra is given a copy
    of the config alone, once that is seen to hold values only.
    """
    if temporary:
        plain = saved_config(Path(args.config_path, "config.yaml")).plain()
        Path(temporary, "config.yaml").write_text(dump(plain), encoding="utf-8")
    extra = find_choices(args.config_dir, check_names=not temporary)
    return ConfigFolders(Path(temporary) if temporary else None, extra)


class Job(NamedTuple):
    """A run: its words, its config, and Hydra's own settings."""

    words: list[str]
    config: Config
    hydra: DictConfig


def check_jobs(
    args: argparse.Namespace, folders: ConfigFolders, begin: Callable[[Job, Any], None] = lambda *_: None
) -> tuple[list[Job], Search | None]:
    """Composes, builds and checks every job, and makes the data of each ready, before the first one starts.

    `begin` is called with a job and its experiment before its data is made ready, which may take long.

    Returns:
        The jobs, and the search, where the words are one: its jobs stand for trials that are still to be chosen.
    """
    overrides = parse(args.overrides, folders)
    _refuse_words(overrides, args.multirun)
    settings = settings_for_all(overrides.parsed, folders)
    searches = args.multirun and settings.sweeper._target_ == PLUGIN
    if not searches:
        refuse_ranges(overrides, [settings.sweeper])
    if not args.multirun:
        words = [args.overrides]
    elif searches:  # with what a file of the group sweep adds to the command line
        params = settings.sweeper.get("params") or {}
        overrides = parse([*(f"{key}={value}" for key, value in params.items()), *args.overrides], folders)
        if any(key_of(o.input_line) == ZIP and o.value() for o in overrides.parsed):
            raise UsageError(f"{ZIP} (command line): expected none in a search, which chooses each value; leave it out")
        words = cover(overrides, folders)
    else:
        words = expand(args.overrides, folders)
    jobs = []
    for job_words in (complete(typed, folders) for typed in words):
        jobs.append(Job(job_words, compose(job_words, folders), hydra_settings(tuple(job_words), folders)))
    check_together([job.hydra for job in jobs], args.multirun, searches)
    if not searches:
        refuse_ranges(overrides, [job.hydra.sweeper for job in jobs])
        refuse_twins([(job.words, job.config, job.hydra) for job in jobs])
    elif any(job.config.objective == "test" for job in jobs):
        raise UsageError("'test' (objective): expected val; a search must not see the test tasks")
    metrics = _make_ready(jobs, args.multirun, begin)
    return jobs, _search_of(jobs, settings, overrides, folders, metrics) if searches else None


def _make_ready(jobs: list[Job], multirun: bool, begin: Callable[[Job, Any], None]) -> set[str]:
    """Builds and checks every job, and makes its data ready; returns the metrics of their sources."""
    from metarun.run.build import prepare_experiment, refuse_without_effect

    sources, metrics = {}, set()
    for job in jobs:
        key = dump({"data": job.config.source, "device": job.config.device})
        try:
            with explaining():
                refuse_without_effect(job.words, job.config)
                source = prepare_experiment(job.config, source=sources.get(key), begin=partial(begin, job)).source
        except (UsageError, DataError) as error:
            raise type(error)(f"{error} (in {' '.join(job.words)})" if multirun else str(error)) from error
        sources[key] = source
        metrics.add(source.metric)
    return metrics


def _search_of(
    jobs: list[Job], settings: DictConfig, overrides: Overrides, folders: ConfigFolders, metrics: set[str]
) -> Search:
    """The search of which these jobs are examples."""
    from metarun.run.build import build_experiment

    def metric_of(composed: DictConfig) -> str:
        return build_experiment(check(plain_config(composed))).source.metric

    unlisted = {key_of(word) for job in jobs for word in job.words if word.startswith("++")}
    lines = [o.input_line for o in overrides.parsed]
    overrides = parse([f"++{line.lstrip('+')}" if key_of(line) in unlisted else line for line in lines], folders)
    reference = reference_config(tuple(parse(jobs[0].words, folders).choices), folders)
    longest = max(job.config.outer_steps for job in jobs)
    return Search(settings, overrides, folders, reference, metrics, longest, metric_of)


def _refuse_words(overrides: Overrides, multirun: bool) -> None:
    """Raises UsageError for a word that is for a sweep in a run, or the other way around."""
    mine, other = ("sweep", "run") if multirun else ("run", "sweep")
    for override in overrides.parsed:
        key, word = override.key_or_group, override.input_line
        if key == f"hydra.{other}.dir":
            raise UsageError(f"{word!r} (command line): is for a {other}; for a {mine} set hydra.{mine}.dir")
        if key in ("sweep", ZIP) and override.value() and not multirun:
            raise UsageError(f"{word!r} (command line): a sweep has several runs; add -m")
        if key == "hydra.mode":
            raise UsageError(f"{word!r} (command line): expected -m for a sweep, and nothing for a run")
        if override.is_hydra_override() and override.is_sweep_override() and multirun:
            rule = "expected one value, for all jobs share it; a value with commas goes in quotes of its own"
            raise UsageError(f"{word!r} (command line): {rule}")


def plain_config(composed: DictConfig) -> dict[str, Any]:
    """The plain config of a job that Hydra composed."""
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    return {key: value for key, value in plain.items() if key != "hydra"}
