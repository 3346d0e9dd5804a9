"""A search: trials that Optuna chooses, by the validation of the runs that each of them is.

Hydra's plugin gives the words and the settings (hydra.sweeper, conf/sweep/optuna.yaml). What takes the place of its
sweeper here knows the metric and so the direction, runs several seeds for a trial, and lets a pruner end runs early.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
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
from metarun.config.compose import HYDRA
from metarun.config.folders import ConfigFolders
from metarun.config.keys import key_of, policy
from metarun.config.overrides import Overrides, quote, spell_for_hydra
from metarun.config.saved import dump
from metarun.config.search import PLUGIN
from metarun.config.targets import build, trusted_function
from metarun.errors import MetarunError, SettingError, UsageError, at_least
from metarun.files import write_atomically
from metarun.run.judge import TRIAL
from metarun.text import count_of, reason, spell_plain, typed_path

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

DIRECTIONS = {"mse": "minimize", "accuracy": "maximize"}
PRUNED, DIVERGED = "pruned", "diverged"  # what a job gives in place of its objective
STOPPED = "stopped"


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
        if seed := sweeps.pop("seed", None):
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
        self.pruner = plain["pruner"]
        _build("pruner", plain["pruner"], "median or halving")
        self.sampler = _build("sampler", plain["sampler"], "tpe, random, cmaes or grid")
        self.grid = isinstance(self.sampler, partial)
        if isinstance(self.sampler, partial):
            values = {key: _points(key, distribution) for key, distribution in self.space.items()}
            self.sampler = self.sampler(values)
            self.n_trials = min(self.n_trials, math.prod(map(len, values.values())))
        self.jobs, self.failed = 0, 0  # of this command, so far
        self.study: Study | None = None
        if self.storage:
            self._open()

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
            if self.pruner:  # runs tell each other their validations
                folder.mkdir(parents=True, exist_ok=True)
                self.storage = f"sqlite:///{folder}/study.db"
            self._open()
        assert self.study is not None
        try:
            for first in range(0, self.n_trials, self.n_jobs):
                self._run([self.study.ask(self.space) for _ in range(min(self.n_jobs, self.n_trials - first))])
                if self.failed > self.rate * self.n_trials:
                    raise MetarunError(
                        f"{count_of(self.failed, 'trial')} failed (hydra.sweeper.max_failure_rate): expected at most "
                        f"{self.rate:g} of {self.n_trials}; see above, and metarun.log in their directories"
                    )
        finally:
            self._write_best(folder / "optimization_results.yaml")

    def how_to_repeat(self, folder: Path) -> str:
        """What to type to go on with a search that was stopped."""
        if not self.storage:
            return "to be able to go on with a search, begin it with hydra.sweeper.storage=sqlite:///study.db"
        words = f" with hydra.sweep.dir={typed_path(folder)}" if self.storage.endswith(f"{folder}/study.db") else ""
        return f"for more trials of this study repeat the command{words}"

    def _open(self) -> None:
        """Begins the study, or goes on with the one in the storage. Raises UsageError: that is of another search."""
        import optuna

        optuna.logging.disable_default_handler()  # the closing words say how its trials end,
        optuna.logging.enable_propagation()  # and what it warns of is still said
        settings = {key_of(word): word for word in [*self.fixed, *(word for words in self.seeds[:1] for word in words)]}
        settings = {key: word for key, word in settings.items() if policy(key).identity}
        settings["seed"] = " ".join(word for words in self.seeds for word in words) or settings.get("seed", "seed=0")
        now = {"metric": self.metric, "settings": settings}
        try:
            with suppress(KeyError):  # there is no such study
                self.study = optuna.load_study(study_name=self.name, storage=self.storage) if self.storage else None
            if self.study is None:
                self.study = optuna.create_study(study_name=self.name, storage=self.storage, direction=self.direction)
                self.study.set_user_attr("metarun", now)
            self.study.sampler = self.sampler
            then, directions = self.study.user_attrs.get("metarun", now), self.study.directions
            trials = self.study.get_trials(deepcopy=False)
        except Exception as error:
            raise UsageError(
                f"{self.storage!r} (hydra.sweeper.storage): {type(error).__name__}: {reason(error)}: expected settings "
                "that work, such as sqlite:///study.db; for that pip install '.[optuna]'"
            ) from error
        where = f"study {self.name!r} in {self.storage} (hydra.sweeper.storage)"
        other = "for another study add hydra.sweeper.study_name=NAME"
        if [direction.name.lower() for direction in directions] != [self.direction] or then["metric"] != self.metric:
            was = f"{then['metric']} to {directions[0].name.lower()}"
            raise UsageError(f"{where}: has {was}; expected {self.metric} to {self.direction}; {other}")
        keys = [key for key in then["settings"] | settings if then["settings"].get(key) != settings.get(key)]
        if keys:
            was = ", ".join(then["settings"].get(key, f"no {key}") for key in keys)
            raise UsageError(f"{where}: was begun with {was}; expected the same, for its values are compared; {other}")
        for trial in trials:
            for key, distribution in self.space.items():
                try:
                    old = trial.distributions.get(key, distribution)
                    optuna.distributions.check_distribution_compatibility(old, distribution)
                except ValueError as error:
                    rule = "expected the same choices, or another range of the same kind"
                    raise UsageError(f"{where}: chose {key} from something else; {rule}; {other}") from error

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
        jobs: dict[tuple[str, ...], list[str]] = {}  # trials of the same words are one job
        chosen = []
        for trial in trials:
            if self.extend and number == 0:
                self.extend(self.config, trial)
            words = (*(f"{key}={spell_plain(value)}" for key, value in trial.params.items()), *self.seeds[number])
            if (
                self.extend
                and (metric := self.metric_of(self._compose([*words, *spell_for_hydra(self.fixed)]))) != self.metric
            ):
                raise UsageError(f"{metric} ({' '.join(words)}): expected {self.metric}, as all other trials have")
            chosen.append(words)
            own = {"trial": trial._trial_id, "before": number * self.outer_steps, "means": values[trial.number]}
            facts = json.dumps({"storage": self.storage, "study": self.name, **own})
            jobs[words] = [f"+hydra.job.env_set.{TRIAL}={quote(facts)}"] if self.pruner else []
        overrides = [[*words, *spell_for_hydra(self.fixed), *more] for words, more in jobs.items()]
        returns = dict(zip(jobs, self.launcher.launch(overrides, initial_job_idx=self.jobs), strict=True))
        self.jobs += len(jobs)
        for trial, words in zip(trials, chosen, strict=True):
            folder = str(returns[words].hydra_cfg.hydra.runtime.output_dir)
            trial.set_user_attr("folders", [*trial.user_attrs.get("folders", []), folder])
        return [returns[words].return_value for words in chosen]

    def _tell(self, trial: Trial, end: float | str | None) -> None:
        """Tells the study how a trial ended: its value, PRUNED, DIVERGED, STOPPED, or None where it failed otherwise.

        Optuna's samplers learn nothing of a trial that failed. One that diverged counts as pruned for them, which is
        worse than any value; else a hundred trials of sinusoids, with rates from 1e-4 to 1, had 88 that diverged.
        """
        from optuna.trial import TrialState

        assert self.study is not None
        self.failed += end is None or end == DIVERGED
        if end in (DIVERGED, STOPPED):
            trial.set_user_attr("end", "failed" if end == DIVERGED else end)
        value = end if isinstance(end, float) else None
        state = "COMPLETE" if value is not None else "PRUNED" if end in (PRUNED, DIVERGED) else "FAIL"
        try:
            self.study.tell(trial, value, TrialState[state])
        except RuntimeError:
            if not self.grid:  # at its end a grid stops a loop that is not there
                raise

    def _write_best(self, path: Path) -> None:
        """Writes the best trial's values, as Hydra's plugin does."""
        assert self.study is not None
        with suppress(ValueError):  # no trial is complete
            best = self.study.best_trial
            write_atomically(
                path, dump({"name": "optuna", "best_params": best.params, "best_value": best.value}).encode()
            )


_current: Search | None = None  # Hydra makes its sweeper of a name that can be imported, and sends it to its jobs


def _take_current(**_: Any) -> Search | None:
    return _current


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


def _build(name: str, node: Any, choices: str) -> Any:
    """The sampler or the pruner."""
    if node is None and name == "pruner":
        return None
    if not isinstance(node, dict):
        raise UsageError(f"{node!r} (hydra.sweeper.{name}): expected hydra/sweeper/{name}=NAME: {choices}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Optuna may change it
            return build(f"hydra.sweeper.{name}", node, HYDRA)
    except ImportError as error:
        raise UsageError(f"hydra.sweeper.{name}: {reason(error)}: expected it installed; choose {choices}") from error


def _points(key: str, distribution: Any) -> Sequence[Any]:
    """The values of a key on a grid."""
    if hasattr(distribution, "choices"):
        return distribution.choices
    if hasattr(distribution, "step") and not hasattr(distribution, "log"):
        return range(distribution.low, distribution.high + 1, distribution.step)
    raise UsageError(f"{key} (hydra/sweeper/sampler=grid): expected values, as in {key}=choice(A,B) or range(1,4)")
