"""What hydra.sweeper holds in a search: the plugin's settings with metarun's defaults, and the pruners to choose from.

Hydra's plugin for Optuna runs no pruner, and minimises unless a direction is given; commands/search.py does better.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

PLUGIN = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"


@dataclass
class Median:
    """Gives a trial up whose best validation is worse than the median of the others at the same outer step."""

    _target_: str = "optuna.pruners.MedianPruner"
    n_startup_trials: int = 5  # trials that are done before the first is given up
    n_warmup_steps: int = 0  # outer steps before the first look
    interval_steps: int = 1


@dataclass
class Halving:
    """Lets only the best share of the trials go on at outer steps that grow by the same factor."""

    _target_: str = "optuna.pruners.SuccessiveHalvingPruner"
    min_resource: Any = "auto"  # outer steps before the first look; auto: a hundredth of the first trial's
    reduction_factor: int = 4  # a fourth of them goes on, to four times the outer steps
    min_early_stopping_rate: int = 0


def register_search() -> None:
    """Makes Hydra take these settings for hydra/sweeper=optuna, where its plugin is installed."""
    Plugins.instance()  # imports all plugins, again if need be, and each then stores its own settings
    with suppress(ImportError):
        from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf

        @dataclass
        class Search(OptunaSweeperConf):
            defaults: list[Any] = field(default_factory=lambda: ["_self_", {"sampler": "tpe"}, {"pruner": None}])
            direction: Any = None
            n_jobs: int = 1
            max_failure_rate: float = 1.0
            pruner: Any = None
            params: Any = None  # the plugin's type would refuse what it means
            search_space: Any = None

        store = ConfigStore.instance().store
        store(group="hydra/sweeper", name="optuna", node=Search, provider="metarun")
        store(group="hydra/sweeper/pruner", name="median", node=Median, provider="metarun")
        store(group="hydra/sweeper/pruner", name="halving", node=Halving, provider="metarun")
