"""In which settings a config differs from the defaults of its choices."""

import json
from typing import Any

from metarun.config.folders import OWN
from metarun.config.keys import leaves
from metarun.config.schema import Config
from metarun.errors import UsageError

GROUPS = ("algo", "data", "model", "device", "engine", "logger", "experiment")


def differing_settings(config: Config, choices: dict[str, str]) -> dict[str, tuple[Any, Any]] | None:
    """By key the value and its default, where they differ. What the choices bring, also of an experiment, is default.

    None where there is nothing to compare with: a choice is the user's own, or there is no such one any more.
    """
    from metarun.config.through_hydra import reference_config  # which imports Hydra

    chosen = {group: name for group, name in choices.items() if group in GROUPS}
    if not {"algo", "data"} <= chosen.keys() or any(name not in OWN.options(group) for group, name in chosen.items()):
        return None
    try:
        default = dict(leaves(reference_config(tuple(f"{group}={name}" for group, name in chosen.items()))))
    except UsageError:
        return None
    values = dict(leaves(config.plain()))
    return {
        key: (value, default.get(key)) for key, value in values.items() if _spell(value) != _spell(default.get(key))
    }


def _spell(value: Any) -> str:
    """A value for comparison: 1 is as good as 1.0."""
    return json.dumps(float(value) if isinstance(value, int) and not isinstance(value, bool) else value)
