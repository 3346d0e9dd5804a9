"""What papers report of the experiments, from conf/published.yaml. It decides nothing in a run."""

from functools import lru_cache
from typing import Any

import yaml

from metarun.config.folders import conf_dir


@lru_cache
def _read_all() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((conf_dir() / "published.yaml").read_text(encoding="utf-8"))


def published(experiment: str) -> dict[str, Any] | None:
    """What a paper reports of an experiment, such as finn2017/omniglot_5w1s; None where nothing is known.

    Its keys are `paper`, `mean`, and perhaps `ci95` and `by_step` (the mean after some numbers of inner steps).
    Accuracies are shares of 1.
    """
    return _read_all().get(experiment)
