"""The typed root of a config, and when two configs are the same run.

Works on plain dictionaries, and imports no torch, so that a wrong name or type is reported in under a second.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from metarun.config.targets import check_target, targets, with_present_names
from metarun.errors import SettingError, UsageError, at_least, one_of, positive
from metarun.text import nearest

SECTIONS = ("algo", "data", "model", "device", "engine")
# What may differ when a run is continued: it changes how long, how often or where, but not which experiment this is.
SILENT = ("data.root", "data.download", "published", "logger")  # and no digit of the result either
# What acts in meta-training only, so that an evaluation would have to ignore it.
IN_TRAINING = (
    *("meta_steps", "budget", "meta_batch", "val_every", "val_tasks", "checkpoint_every", "log_every", "objective"),
    "engine.autocast",
)
FREE = ("meta_steps", "budget", "val_every", "checkpoint_every", "log_every", "device", "engine", *SILENT)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A composed config: the root keys, and a plain dictionary for each section.

    What has a default came later than the first saved configs, which are read with it.
    """

    seed: int
    meta_steps: int
    meta_batch: int
    val_every: int
    val_tasks: int
    test_tasks: int
    budget: float = 1.0
    checkpoint_every: int
    log_every: int
    objective: str
    published: dict[str, Any] | None = None
    logger: dict[str, Any] | None = None
    algo: dict[str, Any]
    data: dict[str, Any]
    model: dict[str, Any]
    device: dict[str, Any]
    engine: dict[str, Any]

    def __post_init__(self):
        counts = ("meta_steps", "meta_batch", "val_every", "checkpoint_every", "log_every")
        at_least(1, **{name: getattr(self, name) for name in counts})
        at_least(2, val_tasks=self.val_tasks, test_tasks=self.test_tasks)  # an interval needs two
        at_least(0, seed=self.seed)
        positive("budget", self.budget)
        object.__setattr__(self, "budget", float(self.budget))  # 1 and 1.0 are the same
        if self.budget > 1:
            raise SettingError(self.budget, "budget", "at most 1, which is all of meta_steps; for more set meta_steps")
        one_of("objective", self.objective, ["val", "test"])
        _check_published(self.published)
        if self.logger is not None and not isinstance(self.logger, dict):
            raise SettingError(self.logger, "logger", "null, or logger=tensorboard or logger=wandb")
        for name in SECTIONS:
            if not isinstance(getattr(self, name), dict):
                raise SettingError(getattr(self, name), name, f"settings of its own, such as {name}.key=value")

    @property
    def outer_steps(self) -> int:
        """How many outer steps are run: the budget's share of meta_steps."""
        return max(1, round(self.meta_steps * self.budget))

    def plain(self) -> dict[str, Any]:
        """The config as a dictionary of plain values."""
        return asdict(self)


def _check_published(published: Any) -> None:
    """What a paper reports: `paper` in words, `mean`, and perhaps `ci95` and `by_step` (mean after each of some steps).

    Accuracies are shares of 1, as in summary.json.
    """
    if published is None:
        return
    rule = "null, or {paper: words, mean: number, ci95: number above 0 or null, by_step: {inner step: number} or null}"
    if not isinstance(published, dict) or {"paper", "mean"} - published.keys():
        raise SettingError(published, "published", rule)
    by_step = published.get("by_step") or {}
    sound = published.keys() <= {"paper", "mean", "ci95", "by_step"} and isinstance(published["paper"], str)
    sound = sound and published["paper"].strip() != ""
    sound = sound and isinstance(by_step, dict) and all(type(step) is int and step >= 0 for step in by_step)
    numbers = [published["mean"], *([] if published.get("ci95") is None else [published["ci95"]])]
    numbers += by_step.values() if sound else []
    sound = sound and all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
    if not sound or (published.get("ci95") is not None and published["ci95"] <= 0):
        raise SettingError(published, "published", rule)


def checked(plain: dict[str, Any]) -> Config:
    """The typed config of a plain one.

    Raises:
        UsageError: a root key is unknown, missing, of another type or out of range; or a `_target_` is not trusted.
    """
    names = [field.name for field in fields(Config)]
    for key in plain:
        if key not in names:
            raise UsageError(f"{key!r} (config): no such key; keys are {', '.join(names)}{nearest(str(key), names)}")
    for name in (field.name for field in fields(Config) if field.default is MISSING):
        if name not in plain:
            raise UsageError(f"{name!r} (config): missing; a complete config has {', '.join(names)}")
    plain = with_present_names(plain)
    for key, target in targets(plain, ""):
        check_target(key, target)
    try:
        return Config(**plain)
    except SettingError as error:
        raise UsageError(str(error)) from error


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """The keys in which two plain configs differ, dotted."""
    keys = [*old, *(key for key in new if key not in old)]
    found = []
    for key in keys:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b or type(a) is not type(b) or (key in old) != (key in new):
            found.append(f"{prefix}{key}")
    return found


def fingerprint(plain: dict[str, Any]) -> str:
    """SHA-256 of everything in a plain config that makes a run the one it is."""
    fixed = {key: value for key, value in leaves(plain) if not is_free(key)}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def leaves(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a plain config, with their dotted keys."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def is_free(key: str) -> bool:
    """Whether a run may be continued with another value of this key."""
    return among(FREE, key)


def costs_digits(key: str) -> bool:
    """Whether a run that is continued with another value of this key may end with other digits."""
    return not among(SILENT, key)


def among(names: tuple[str, ...], key: str) -> bool:
    """Whether a dotted key is one of these, or below one of them."""
    return any(f"{key}.".startswith(f"{name}.") for name in names)
