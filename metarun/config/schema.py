"""The typed root of a config, and when two configs are the same run.

Works on plain dictionaries, and imports no torch, so that a wrong name or type is reported in under a second.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property
from typing import Any

from metarun.config.keys import leaves, policy
from metarun.config.targets import check_target, targets
from metarun.errors import SettingError, UsageError, at_least, one_of, positive
from metarun.text import nearest

SECTIONS = ("algo", "data", "model", "device", "engine")
PATHS = ("root", "file")  # of a task source
MOST = 10**15  # steps and tasks, which records count
# Root keys that are no part of a run: they are resolved by now. `published` stands in older saved configs.
LEFT_OUT = ("suggested", "needs", "zip", "published")
# Names that saved configs have from before the classes moved. A saved config is a file format: they stay readable.
MOVED = {
    "metarun.runtime.Device": "metarun.engine.device.Device",
    "metarun.engine.Engine": "metarun.engine.engine.Engine",
    "metarun.loggers.TensorBoard": "metarun.run.loggers.TensorBoard",
    "metarun.loggers.WandB": "metarun.run.loggers.WandB",
}


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
        for name in (*counts, "val_tasks", "test_tasks"):
            if getattr(self, name) >= MOST:
                raise SettingError(getattr(self, name), name, f"an integer below {MOST:.0e}")
        at_least(0, seed=self.seed)
        positive("budget", self.budget)
        if self.budget > 1:
            raise SettingError(self.budget, "budget", "at most 1, which is all of meta_steps; for more set meta_steps")
        one_of("objective", self.objective, ["val", "test"])
        for name in ("logger", *SECTIONS):
            if not isinstance(value := getattr(self, name), dict) and (name, value) != ("logger", None):
                raise SettingError(value, name, f"settings of its own, such as {name}.key=value")

        if (tasks := self.data.get("train_tasks")) is not None:
            at_least(1, **{"data.train_tasks": tasks})

    @property
    def source(self) -> dict[str, Any]:
        """The settings that the task source has itself: `train_tasks` is the run's."""
        return {key: value for key, value in self.data.items() if key != "train_tasks"}

    @property
    def outer_steps(self) -> int:
        """How many outer steps are run: the budget's share of meta_steps."""
        return max(1, round(self.meta_steps * self.budget))

    def plain(self) -> dict[str, Any]:
        """The config as a new dictionary of plain values."""
        return asdict(self)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all settings that a run may not go on without: the same for the sessions of one run."""
        fixed = {key: value for key, value in leaves(self.plain()) if not policy(key).resume}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def check(
    plain: dict[str, Any], here: str | None = None, check_class: Callable[[str, Any], None] = check_target
) -> Config:
    """The typed config of a plain one: composed, or saved, perhaps by an earlier version.

    A relative data.root or data.file, and one with ~, is kept absolute, where the folder `here` is given that it is
    relative to. `check_class` is called with the key and the value of every `_target_`. Raises UsageError for a root
    key that is unknown, missing or out of range, and for a `_target_` without trust.
    """
    plain = {key: value for key, value in plain.items() if key not in LEFT_OUT}
    names = {field.name: field.default is MISSING for field in fields(Config)}
    for key in plain:
        if key not in names:
            raise UsageError(f"{key!r} (config): no such key; keys are {', '.join(names)}{nearest(str(key), names)}")
    for name, required in names.items():
        if required and name not in plain:
            raise UsageError(f"{name!r} (config): missing; a complete config has {', '.join(names)}")
    for name in ("device", "engine", "logger"):
        if isinstance(section := plain.get(name), dict) and (moved := MOVED.get(str(section.get("_target_")))):
            plain[name] = section | {"_target_": moved}
    data = plain["data"]
    if here is not None and isinstance(data, dict):
        paths = {name: data[name] for name in PATHS if data.get(name) and isinstance(data[name], str)}
        found = {name: os.path.abspath(os.path.join(here, os.path.expanduser(path))) for name, path in paths.items()}
        plain["data"] = data | found
    for key, target in targets(plain, ""):
        check_class(key, target)
    if type(plain.get("budget")) is int:
        plain["budget"] = float(plain["budget"])  # 1 and 1.0 are the same
    try:
        return Config(**plain)
    except SettingError as error:
        raise UsageError(str(error)) from error
