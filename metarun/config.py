"""The typed root of a config, what may be built from it, and when two configs are the same run.

Works on plain dictionaries, and imports no torch, so that a wrong name or type is reported in under a second.
"""

import inspect
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from metarun.errors import RunDirError, SettingError, UsageError, at_least, nearest, one_of

SECTIONS = ("algo", "data", "model", "device", "engine")
# What may differ when a run is continued: it changes how long, how often or where, but not which experiment this is.
FREE = ("meta_steps", "val_every", "checkpoint_every", "log_every", "device")
LARGEST_CONFIG = 1_000_000  # bytes


@dataclass(frozen=True)
class Config:
    """A composed config: the root keys, and a plain dictionary for each section."""

    seed: int
    meta_steps: int
    meta_batch: int
    val_every: int
    val_tasks: int
    test_tasks: int
    checkpoint_every: int
    log_every: int
    objective: str
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
        one_of("objective", self.objective, ["val", "test"])
        for name in SECTIONS:
            if not isinstance(getattr(self, name), dict):
                raise SettingError(getattr(self, name), name, f"settings of its own, such as {name}.key=value")

    def plain(self) -> dict[str, Any]:
        """The config as a dictionary of plain values."""
        return asdict(self)


def checked(plain: dict[str, Any]) -> Config:
    """The typed config of a plain one.

    Raises:
        UsageError: a root key is unknown, missing, of another type or out of range; or a `_target_` is not trusted.
    """
    names = [field.name for field in fields(Config)]
    for key in plain:
        if key not in names:
            raise UsageError(f"{key!r} (config): no such key; keys are {', '.join(names)}{nearest(str(key), names)}")
    for name in names:
        if name not in plain:
            raise UsageError(f"{name!r} (config): missing; a complete config has {', '.join(names)}")
    for key, target in targets(plain, ""):
        check_target(key, target)
    try:
        return Config(**plain)
    except SettingError as error:
        raise UsageError(str(error)) from error


def trusted() -> list[str]:
    """The packages whose classes a config may name. Only the environment can add to them; a config cannot."""
    return ["metarun", "torch.optim", *filter(None, os.environ.get("METARUN_TRUST", "").split(","))]


def targets(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every `_target_` in a part of a config, with its dotted key."""
    if isinstance(node, list):
        for number, value in enumerate(node):
            yield from targets(value, f"{where}[{number}]")
    elif isinstance(node, dict):
        for key, value in node.items():
            name = f"{where}.{key}".lstrip(".")
            yield from [(name, value)] if key == "_target_" else targets(value, name)


def check_target(key: str, target: Any) -> None:
    """Raises UsageError if a `_target_` names something outside the trusted packages."""
    if not isinstance(target, str) or not _within(target, trusted()):
        raise UsageError(
            f"{target!r} ({key}): expected a class in {', '.join(trusted())}; to trust another package, name it in the "
            "environment: METARUN_TRUST=package"
        )


def _within(name: str, packages: list[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def build(section: str, node: dict[str, Any], **given: Any) -> Any:
    """Builds the object that a section of the config describes. The only place where a config becomes code.

    Args:
        section: for messages, such as "algo".
        node: `_target_` and its arguments.
        given: arguments that the run supplies.

    Raises:
        UsageError: the target is not a trusted class, or does not take these arguments, or refuses their values.
    """
    from hydra.utils import instantiate

    classes = {key: _trusted_class(key, target) for key, target in targets(node, section)}
    if (cls := classes.get(f"{section}._target_")) is None:
        raise UsageError(f"{section}._target_: missing; expected the class to build")
    settings = {name: value for name, value in node.items() if not name.startswith("_")}
    takes = inspect.signature(cls).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()):
        for name in settings:
            if name not in takes:
                keys = [key for key in takes if key not in given]
                raise UsageError(
                    f"{section}.{name}: no such setting of {cls.__name__}; it has "
                    f"{', '.join(keys)}{nearest(name, keys)}"
                )
    try:
        return instantiate({**node, "_partial_": True}, _convert_="all")(**given)
    except SettingError as error:
        raise UsageError(f"{error.value!r} ({section}.{error.name}): expected {error.expected}") from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"{section}: {cls.__name__} cannot be built: {error}") from error


def _trusted_class(key: str, target: Any) -> type:
    """The class of a `_target_`. A trusted package may import anything; only classes that it defines itself count."""
    from hydra.utils import get_object

    check_target(key, target)
    try:
        found = get_object(target)
    except Exception as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UsageError(f"{target!r} ({key}): expected a class that can be imported: {reason}") from error
    if not inspect.isclass(found) or not _within(found.__module__, trusted()):
        raise UsageError(f"{target!r} ({key}): expected a class that {', '.join(trusted())} define themselves")
    return found


def read_saved(path: Path) -> dict[str, Any]:
    """A saved config as plain data: no tags, aliases or interpolations, nothing but values.

    Raises:
        RunDirError: the file is missing, unreadable, or holds anything else.
    """
    from omegaconf._utils import get_yaml_loader

    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise RunDirError(f"{path}: over {LARGEST_CONFIG} bytes; expected a saved config")
        text = path.read_text(encoding="utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) or depth > 20:
                raise RunDirError(
                    f"{path}: holds an alias, a tag or deep nesting; expected plain values, as metarun saved them"
                )
            if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
                raise RunDirError(
                    f"{path}: holds the interpolation {event.value!r}; expected plain values, as metarun saved them"
                )
        plain = yaml.load(text, Loader=get_yaml_loader())
    except FileNotFoundError as error:
        raise RunDirError(
            f"{path}: not found; expected the config.yaml that metarun saved in a run directory's .hydra"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunDirError(f"{path}: cannot be read as a saved config: {str(error).splitlines()[0]}") from error
    if not isinstance(plain, dict) or not all(isinstance(key, str) for key in plain):
        raise RunDirError(f"{path}: expected a mapping of keys to values")
    return plain


def dump(plain: Any) -> str:
    """YAML of plain values, as Hydra writes it."""
    return OmegaConf.to_yaml(OmegaConf.create(plain))


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


def is_free(key: str) -> bool:
    """Whether a run may be continued with another value of this key."""
    return key.split(".")[0] in FREE
