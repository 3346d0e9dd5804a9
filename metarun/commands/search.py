"""A search: trials that Optuna chooses, by the validation of the runs that each of them is.

Hydra's plugin gives the words and the settings (hydra.sweeper, conf/sweep/optuna.yaml). What takes the place of its
sweeper here knows the metric and so the direction, runs several seeds for a trial, and lets a pruner end runs early.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from metarun.commands.search_space import distribution_of, words_of
from metarun.commands.study import DIVERGED, STOPPED, build_pruner, build_sampler, open_study, tell, write_best
from metarun.config.compose import complete
from metarun.config.folders import ConfigFolders
from metarun.config.keys import key_of, policy
from metarun.config.overrides import Overrides, quote, spell_for_hydra
from metarun.config.search import PLUGIN
from metarun.config.targets import trusted_function
from metarun.errors import MetarunError, SettingError, UsageError, at_least
from metarun.run.judge import TRIAL
from metarun.text import count_of, spell_plain, typed_path

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

DIRECTIONS = {"mse": "minimize", "accuracy": "maximize"}


class Search(Sweeper):
    """A study of Optuna's, in the place of the sweeper of Hydra's plugin.

    Args:
        settings: Hydra's own settings.
        overrides: all words, with those that files of the group sweep bring.
        folders: where configs are looked up.
        reference: a plain config of the search, for the types of its keys.
        metrics: of the task sources that trials can have.
        outer_steps: of the longest run.
        metric_of: gives the metric of a composed job, where a function of the user's chooses words.

    Raises:
        UsageError: a setting is refused, or no direction follows from the metrics.
    """

    def __init__(
        self,
        settings: DictConfig,
        overrides: Overrides,
        folders: ConfigFolders,
        reference: dict[str, Any],
        metrics: set[str],
        outer_steps: int,
        metric_of: Callable[[DictConfig], str],
    ):
        plain: Any = OmegaConf.to_container(settings.sweeper, resolve=True)
        _check_settings(plain, str(settings.launcher._target_))
        self.n_trials, self.n_jobs, self.rate = plain["n_trials"], plain["n_jobs"], plain["max_failure_rate"]
        self.storage, self.name = plain["storage"], plain["study_name"] or "metarun"
        self.metric, self.direction = _direction(plain["direction"], metrics)
        self.outer_steps, self.metric_of, self.folders = outer_steps, metric_of, folders
        extend = plain["custom_search_space"]
        self.extend = extend and trusted_function("hydra.sweeper.custom_search_space", extend)
        sweeps = {override.get_key_element(): override for override in overrides.sweeps}
        self.seeds: list[list[str]] = [[]]  # for each run of a trial the words that it has besides
        if seed := sweeps.pop(next((key for key in sweeps if key_of(key) == "seed"), ""), None):
            if isinstance(seed.value(), IntervalSweep):
                raise UsageError(
                    f"{seed.input_line!r} (command line): a search chooses no seed; expected a few that every trial "
                    "is run with, as in seed=0,1,2"
                )
            self.seeds = [[word] for word in words_of(seed, folders)]
        if not sweeps and not extend:
            raise UsageError(
                "'sweep=optuna' (command line): nothing to choose; give a key a range: key=interval(LESS,MORE)"
            )
        self.space = {key: distribution_of(sweep, folders, reference) for key, sweep in sweeps.items()}
        self.fixed = [o.input_line for o in overrides.parsed if not (o.is_hydra_override() or o.is_sweep_override())]
        self.prunes = build_pruner(plain["pruner"]) is not None
        self.sampler, grid = build_sampler(plain["sampler"], self.space)
        if grid is not None:
            self.n_trials = min(self.n_trials, math.prod(map(len, grid)))
        self.jobs, self.failed = 0, 0  # of this command, so far
        self.study: Study | None = None
        if self.storage:
            self.study = self._open()

    def take_over(self) -> None:
        """Makes Hydra take this for the plugin's sweeper."""
        global _current
        _current = self
        Plugins.instance().class_name_to_class[PLUGIN] = _take_current  # pyright: ignore[reportArgumentType]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """As Hydra calls it."""
        self.config, self._compose = config, partial(hydra_context.config_loader.load_sweep_config, config)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs the trials, as many at a time as there are jobs; the words are those that were checked.

        Raises:
            UsageError: the study in the storage is of another search.
            MetarunError: too many trials failed.
        """
        folder = Path(self.config.hydra.sweep.dir)
        if self.study is None:
            if self.prunes:  # runs tell each other their validations
                folder.mkdir(parents=True, exist_ok=True)
                self.storage = f"sqlite:///{folder}/study.db"
            self.study = self._open()
        try:
            for first in range(0, self.n_trials, self.n_jobs):
                self._run([self.study.ask(self.space) for _ in range(min(self.n_jobs, self.n_trials - first))])
                if self.failed > self.rate * self.n_trials:
                    raise MetarunError(
                        f"{count_of(self.failed, 'trial')} failed (hydra.sweeper.max_failure_rate): expected at most "
                        f"{self.rate:g} of {self.n_trials}; see above, and metarun.log in their directories"
                    )
        finally:
            write_best(self.study, folder / "optimization_results.yaml")

    def how_to_repeat(self, folder: Path) -> str:
        """What to type to go on with a search that was stopped."""
        if not self.storage:
            return "to be able to go on with a search, begin it with hydra.sweeper.storage=sqlite:///study.db"
        words = f" with hydra.sweep.dir={typed_path(folder)}" if self.storage.endswith(f"{folder}/study.db") else ""
        return f"for more trials of this study repeat the command{words}"

    def _open(self) -> Study:
        """The study, begun or gone on with. Raises UsageError: the one in the storage is of another search."""
        fixed = {key_of(word): word for word in self.fixed}
        settings = {key: word for key, word in fixed.items() if policy(key).identity}
        settings["seed"] = " ".join(word for words in self.seeds for word in words) or fixed.get("seed", "seed=0")
        study = open_study(self.storage, self.name, self.metric, self.direction, settings, self.space)
        study.sampler = self.sampler
        return study

    def _run(self, trials: list[Trial]) -> None:
        """Runs each seed of these trials, and tells the study how they ended."""
        values: dict[int, list[float]] = {trial.number: [] for trial in trials}
        waiting = list(trials)  # for their next seed
        try:
            for number in range(len(self.seeds)):
                ends = self._launch(waiting, number, values)
                for trial, end in zip(list(waiting), ends, strict=True):
                    if isinstance(end, float):
                        values[trial.number].append(end)
                        continue
                    waiting.remove(trial)
                    self._tell(trial, end)
            for trial in list(waiting):
                waiting.remove(trial)
                self._tell(trial, fmean(values[trial.number]))
        except BaseException:  # a signal, or what ends the search
            for trial in waiting:
                self._tell(trial, STOPPED)
            raise

    def _launch(self, trials: list[Trial], number: int, values: dict[int, list[float]]) -> list[float | str | None]:
        """Runs a seed of these trials: for each its objective, PRUNED, DIVERGED, or None where it failed."""
        jobs: dict[tuple[str, ...], list[str]] = {}  # what Hydra is given; trials of the same words are one job
        chosen = []
        for trial in trials:
            if self.extend and number == 0:
                self.extend(self.config, trial)
            words = (*(f"{key}={spell_plain(value)}" for key, value in trial.params.items()), *self.seeds[number])
            spelled = spell_for_hydra(complete([*words, *self.fixed], self.folders))  # as the jobs that were checked
            if self.extend and (metric := self.metric_of(self._compose(spelled))) != self.metric:
                raise UsageError(f"{metric} ({' '.join(words)}): expected {self.metric}, as all other trials have")
            chosen.append(words)
            own = {"trial": trial._trial_id, "before": number * self.outer_steps, "means": values[trial.number]}
            facts = json.dumps({"storage": _from_anywhere(self.storage), "study": self.name, **own})
            jobs[words] = [*spelled, *([f"+hydra.job.env_set.{TRIAL}={quote(facts)}"] if self.prunes else [])]
        returns = dict(zip(jobs, self.launcher.launch([*jobs.values()], initial_job_idx=self.jobs), strict=True))
        self.jobs += len(jobs)
        for trial, words in zip(trials, chosen, strict=True):
            folder = str(returns[words].hydra_cfg.hydra.runtime.output_dir)
            trial.set_user_attr("folders", [*trial.user_attrs.get("folders", []), folder])
        return [returns[words].return_value for words in chosen]

    def _tell(self, trial: Trial, end: float | str | None) -> None:
        """Tells the study how a trial ended, and counts those that failed."""
        assert self.study is not None
        self.failed += end is None or end == DIVERGED
        tell(self.study, trial, end)


_current: Search | None = None  # Hydra makes its sweeper of a name that can be imported, and sends it to its jobs


def _take_current(**_: Any) -> Search | None:
    return _current


def _from_anywhere(storage: str | None) -> str | None:
    """The address of a study, with the whole path of its file: hydra.job.chdir takes jobs to other folders."""
    found = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^/:].*)", storage or "")
    return f"{found[1]}{Path(found[2]).absolute()}" if found else storage


def _direction(given: Any, metrics: set[str]) -> tuple[str, str]:
    """The metric of a search and its direction."""
    if len(metrics) != 1:
        raise UsageError(
            f"{' and '.join(sorted(metrics))} (metric): expected one metric in a search, by which its trials are "
            "compared; choose from task sources that share it"
        )
    [metric] = metrics
    direction = DIRECTIONS[metric]
    if given is not None and str(getattr(given, "name", given)) != direction:
        raise UsageError(
            f"{given!s} (hydra.sweeper.direction): expected {direction}, the one direction for {metric}; leave it out"
        )
    return metric, direction


def _check_settings(plain: dict[str, Any], launcher: str) -> None:
    """Raises UsageError for numbers out of range, and for jobs at a time that the launcher cannot run."""
    try:
        at_least(1, n_trials=plain["n_trials"], n_jobs=plain["n_jobs"])
    except SettingError as error:
        raise UsageError(f"{error.value} (hydra.sweeper.{error.name}): expected {error.expected}") from error
    if not 0 <= (rate := plain["max_failure_rate"]) <= 1:
        raise UsageError(f"{rate} (hydra.sweeper.max_failure_rate): expected a share of n_trials, from 0 to 1")
    if plain["n_jobs"] > 1 and launcher.endswith("BasicLauncher"):
        raise UsageError(
            f"{plain['n_jobs']} (hydra.sweeper.n_jobs): expected 1, for jobs are run one after the other; to run them "
            "at the same time add hydra/launcher=joblib"
        )
    if plain["search_space"]:
        raise UsageError("hydra.sweeper.search_space: Hydra has given it up; expected hydra.sweeper.params")
