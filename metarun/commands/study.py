"""A study of Optuna's: its sampler and pruner, how it begins or goes on, and how it learns what trials came to."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarun.config.saved import dump
from metarun.config.targets import build
from metarun.config.through_hydra import HYDRA
from metarun.errors import UsageError
from metarun.files import write_atomically
from metarun.text import reason

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import Trial

PRUNED, DIVERGED, STOPPED = "pruned", "diverged", "stopped"  # how a trial ends that has no objective


def build_sampler(node: Any, space: Mapping[str, BaseDistribution]) -> tuple[Any, list[Sequence[Any]] | None]:
    """The sampler of a config, and of a grid the values of each key; None of another.

    Raises:
        UsageError: it cannot be built, or a grid cannot have a key's values.
    """
    sampler = _build("sampler", node, "tpe, random, cmaes or grid")
    if not isinstance(sampler, partial):
        return sampler, None
    values = {key: _points(key, distribution) for key, distribution in space.items()}
    return sampler(values), list(values.values())


def build_pruner(node: Any) -> Any:
    """The pruner of a config; None without one. Raises UsageError: it cannot be built."""
    return None if node is None else _build("pruner", node, "median or halving")


def open_study(
    storage: str | None,
    name: str,
    metric: str,
    direction: str,
    settings: Mapping[str, str],
    space: Mapping[str, BaseDistribution],
) -> Study:
    """The study of that name in the storage, or a new one.

    Args:
        storage: a database's address; None: memory.
        name: of the study.
        metric: that its trials are compared by.
        direction: `minimize` or `maximize`.
        settings: that all its trials have, as words by key.
        space: what it chooses from.

    Raises:
        UsageError: the storage does not work, or the study there is of another search.
    """
    import optuna

    optuna.logging.disable_default_handler()  # the closing words say how its trials end,
    optuna.logging.enable_propagation()  # and what it warns of is still said
    now = {"metric": metric, "settings": dict(settings)}
    study, way = None, optuna.study.StudyDirection[direction.upper()]
    try:
        with suppress(KeyError):  # there is no such study
            study = optuna.load_study(study_name=name, storage=storage) if storage else None
        if study and study.user_attrs and study.directions != [way] and not study.get_trials(deepcopy=False):
            optuna.delete_study(study_name=name, storage=storage or "")  # that was only checked, for another metric
            study = None
        if study is None:
            study = optuna.create_study(study_name=name, storage=storage, direction=direction)
        trials = study.get_trials(deepcopy=False)
        if not trials:  # of settings that were only checked
            study.set_user_attr("metarun", now)
        then, directions = study.user_attrs.get("metarun", now), study.directions
    except Exception as error:
        raise UsageError(
            f"{storage!r} (hydra.sweeper.storage): {type(error).__name__}: {reason(error)}: expected settings "
            "that work, such as sqlite:///study.db; for that pip install '.[optuna]'"
        ) from error
    where = f"study {name!r} in {storage} (hydra.sweeper.storage)"
    other = "for another study add hydra.sweeper.study_name=NAME"
    if [found.name.lower() for found in directions] != [direction] or then["metric"] != metric:
        was = f"{then['metric']} to {directions[0].name.lower()}"
        raise UsageError(f"{where}: has {was}; expected {metric} to {direction}; {other}")
    keys = [key for key in then["settings"] | settings if then["settings"].get(key) != settings.get(key)]
    if keys:
        was = ", ".join(then["settings"].get(key, f"no {key}") for key in keys)
        raise UsageError(f"{where}: was begun with {was}; expected the same, for its values are compared; {other}")
    for trial in trials:
        for key, distribution in space.items():
            try:
                old = trial.distributions.get(key, distribution)
                optuna.distributions.check_distribution_compatibility(old, distribution)
            except ValueError as error:
                rule = "expected the same choices, or another range of the same kind"
                raise UsageError(f"{where}: chose {key} from something else; {rule}; {other}") from error
    return study


def tell(study: Study, trial: Trial, end: float | str | None) -> None:
    """Tells the study how a trial ended: its value, PRUNED, DIVERGED, STOPPED, or None where it failed otherwise.

    Optuna's samplers learn nothing of a trial that failed. One that diverged counts as pruned for them, which is
    worse than any value; else a hundred trials of sinusoids, with rates from 1e-4 to 1, had 88 that diverged.
    """
    from optuna.samplers import GridSampler
    from optuna.trial import TrialState

    if end in (DIVERGED, STOPPED):
        trial.set_user_attr("end", "failed" if end == DIVERGED else end)
    value = end if isinstance(end, float) else None
    state = "COMPLETE" if value is not None else "PRUNED" if end in (PRUNED, DIVERGED) else "FAIL"
    try:
        study.tell(trial, value, TrialState[state])
    except RuntimeError:
        if not isinstance(study.sampler, GridSampler):  # at its end a grid stops a loop that is not there
            raise


def write_best(study: Study, path: Path) -> None:
    """Writes the best trial's values, as Hydra's plugin does; nothing where no trial is complete."""
    with suppress(ValueError):
        best = study.best_trial
        content = dump({"name": "optuna", "best_params": best.params, "best_value": best.value})
        write_atomically(path, content.encode())


def _build(name: str, node: Any, choices: str) -> Any:
    """The sampler or the pruner; of a grid what takes its values."""
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
