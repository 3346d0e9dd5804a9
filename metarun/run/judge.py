"""Whether a run of a search is worth its remaining outer steps, by Optuna's pruner. Imports Optuna.

A run tells the validations of its trial to the study's storage, where those of the other trials are too, whichever
process they run in.
"""

import json
import os
from statistics import fmean
from typing import Any

from metarun.config.targets import build

TRIAL = "METARUN_TRIAL"  # in the environment of a job: JSON, the arguments of Judge but for the pruner


class Judge:
    """Reports the validations of a run and says whether its trial is given up.

    Args:
        pruner: the node of hydra.sweeper.
        packages: where its class may come from.
        storage: of the study, as Optuna takes it.
        study: its name.
        trial: its id in the storage.
        before: outer steps of the trial's earlier runs, which are those of other seeds.
        means: the objectives of those.
    """

    def __init__(
        self,
        pruner: dict[str, Any],
        packages: tuple[str, ...],
        *,
        storage: str,
        study: str,
        trial: int,
        before: int,
        means: list[float],
    ):
        import optuna

        optuna.logging.disable_default_handler()
        loaded = optuna.load_study(
            study_name=study,
            storage=storage,
            sampler=optuna.samplers.RandomSampler(),  # draws nothing; the default would read all trials
            pruner=build("hydra.sweeper.pruner", pruner, packages),
        )
        self.trial, self.before, self.means = optuna.trial.Trial(loaded, trial), before, means

    def __call__(self, step: int, value: float) -> bool:
        """Whether the run ends after this outer step, given the metric of its validation."""
        self.trial.report(fmean([*self.means, value]), self.before + step)
        return self.trial.should_prune()


def judge_of_job(pruner: dict[str, Any] | None, packages: tuple[str, ...]) -> Judge | None:
    """The judge of this job; None where its search has no pruner."""
    return Judge(pruner, packages, **json.loads(os.environ[TRIAL])) if pruner and TRIAL in os.environ else None
