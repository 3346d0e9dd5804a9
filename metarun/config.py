"""The typed root of a config, what may be built from it, and when two configs are the same run.

Works on plain dictionaries, and imports no torch, so that a wrong name or type is reported in under a second.
"""

import hashlib
import importlib
import importlib.util
import inspect
import itertools
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, get_args

import yaml
from omegaconf import OmegaConf

from metarun.errors import RunDirError, SettingError, UsageError, at_least, nearest, one_of, reason, spelled
from metarun.files import read

SECTIONS = ("algo", "data", "model", "device", "engine")
# What may differ when a run is continued: it changes how long, how often or where, but not which experiment this is.
FREE = ("meta_steps", "val_every", "checkpoint_every", "log_every", "device", "engine", "data.root", "data.download")
LARGEST_CONFIG = 64_000  # bytes
MOST_CHOICES = 2_000  # files
MOST_VALUES = 10_000  # in one file


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
    """The packages whose classes a config may name. Only the environment can add to them; a config cannot.

    Raises:
        UsageError: METARUN_TRUST is not a list of packages.
    """
    named = [name for word in os.environ.get("METARUN_TRUST", "").split(",") if (name := word.strip())]
    for name in named:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(
                f"{name!r} (METARUN_TRUST): expected names of packages, with commas, such as my_algo,my_data"
            )
    return ["metarun", "torch.optim", *named]


def targets(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every `_target_` in a part of a config, with its dotted key."""
    if isinstance(node, list):
        for number, value in enumerate(node):
            yield from targets(value, f"{where}[{number}]")
    elif isinstance(node, dict):
        for key, value in node.items():
            name = f"{where}.{key}".lstrip(".")
            yield from [(name, value)] if key == "_target_" else targets(value, name)


def check_target(key: str, target: Any, more: tuple[str, ...] = ()) -> None:
    """Raises UsageError if a `_target_` names something outside the trusted packages, and `more` of them."""
    packages = [*more, *trusted()]
    if not isinstance(target, str) or not _within(target, packages):
        raise UsageError(
            f"{target!r} ({key}): expected a class in {', '.join(packages)}; to trust another package, name it in the "
            "environment: METARUN_TRUST=package"
        )


def _within(name: str, packages: list[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def build(section: str, node: dict[str, Any], **given: Any) -> Any:
    """Builds the object that a section of the config describes. The only place where a config becomes code.

    Hydra's own instantiate would resolve interpolations on the way, which can call whatever a resolver can; here a
    config is plain data, and the only calls are those of trusted classes.

    Args:
        section: for messages, such as "algo".
        node: `_target_`, perhaps `_partial_: true`, and arguments, which may be such nodes themselves.
        given: arguments that the run supplies.

    Raises:
        UsageError: a target is not a trusted class, or does not take these arguments, or refuses their values.
    """
    if "_target_" not in node:
        raise UsageError(f"{section}._target_: missing; expected the class to build")
    cls = trusted_class(f"{section}._target_", node["_target_"])
    settings = {name: value for name, value in node.items() if name not in ("_target_", "_partial_")}
    takes = inspect.signature(cls).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()):
        for name in settings:
            if name not in takes:
                keys = [key for key in takes if key not in given]
                raise UsageError(
                    f"{section}.{name}: no such setting of {cls.__name__}; "
                    f"it has {', '.join(keys)}{nearest(name, keys)}"
                )
        for name, value in settings.items():
            if value is None and not _takes_null(takes[name]):
                raise UsageError(f"null ({section}.{name}): expected a value; {cls.__name__} takes no null there")
    built = {name: _built(f"{section}.{name}", value) for name, value in settings.items()}
    if node.get("_partial_"):
        return partial(cls, **given, **built)
    try:
        return cls(**given, **built)
    except SettingError as error:
        raise UsageError(f"{spelled(error.value)} ({section}.{error.name}): expected {error.expected}") from error
    except (TypeError, ValueError, RuntimeError, MemoryError) as error:
        short = isinstance(error, MemoryError) or "allocate memory" in str(error)
        why = "needs more memory than there is; make it smaller" if short else reason(error)
        raise UsageError(f"{section}: {cls.__name__} cannot be built: {why}") from error


def _takes_null(parameter: inspect.Parameter) -> bool:
    """Whether an argument may be null, as far as its annotation tells."""
    hint = parameter.annotation
    if hint is parameter.empty or hint is Any or isinstance(hint, str):
        return True
    return parameter.default is None or type(None) in get_args(hint)


def _built(key: str, value: Any) -> Any:
    """A value of the config, with the nodes in it that have a `_target_` built."""
    if isinstance(value, list):
        return [_built(f"{key}[{number}]", item) for number, item in enumerate(value)]
    if isinstance(value, dict):
        if "_target_" in value:
            return build(key, value)
        return {name: _built(f"{key}.{name}", item) for name, item in value.items()}
    return value


def trusted_class(key: str, target: Any, more: tuple[str, ...] = ()) -> type:
    """The class of a `_target_`. A trusted package may import anything; only classes that it defines itself count.

    Raises:
        UsageError: it is not a class, or not one of a trusted package or of `more` of them.
    """
    check_target(key, target, more)
    module, _, name = target.rpartition(".")
    try:
        if (package := target.partition(".")[0]) in trusted():
            _import_trusted(package)
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise UsageError(
            f"{target!r} ({key}): expected a class that can be imported: {str(error).splitlines()[0]}"
        ) from error
    packages = [*more, *trusted()]
    if not inspect.isclass(found) or not _within(found.__module__, packages):
        raise UsageError(f"{target!r} ({key}): expected a class that {', '.join(packages)} define themselves")
    return found


def _import_trusted(name: str) -> None:
    """Imports a package that the user trusts from the working directory, if it is not installed.

    It alone: with the directory on sys.path, everything else that lies there could be imported too.
    """
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return
    for path in (Path(f"{name}.py").resolve(), Path(name, "__init__.py").resolve()):
        if path.is_file():
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None, "a .py file has a loader"
            assert spec.loader is not None, "a .py file has a loader"
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
            return


def read_saved(path: Path) -> dict[str, Any]:
    """A saved config as plain data: no tags, aliases or interpolations, nothing but values.

    Raises:
        RunDirError: the file is missing, unreadable, or holds anything else.
    """
    from omegaconf._utils import get_yaml_loader

    try:
        text = read(path, LARGEST_CONFIG).decode()
        for event in _events(text):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
                raise RunDirError(f"{path}: holds an alias or a tag; expected plain values, as metarun saved them")
            if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
                raise RunDirError(
                    f"{path}: holds the interpolation {event.value!r}; expected plain values, as metarun saved them"
                )
        plain = yaml.load(text, Loader=get_yaml_loader())
    except FileNotFoundError as error:
        raise RunDirError(
            f"{path}: not found; expected the config.yaml that metarun saved in a run directory's .hydra"
        ) from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise RunDirError(f"{path}: cannot be read as a saved config: {reason(error)}") from error
    if not isinstance(plain, dict) or not all(isinstance(key, str) for key in plain):
        raise RunDirError(f"{path}: expected a mapping of keys to values")
    return plain


def saved_config(path: Path) -> Config:
    """The config of a saved file.

    Raises:
        RunDirError: it cannot be read, or is not a valid config.
    """
    try:
        return checked(read_saved(path))
    except UsageError as error:
        raise RunDirError(f"{path}: {error}") from error


def check_choices(folder: Path) -> None:
    """Refuses a folder of choices that would hold up whoever parses it: of some bytes, aliases make millions of values.

    Raises:
        UsageError: a file is not readable YAML, too large, or too deeply nested.
    """
    found = list(itertools.islice(folder.rglob("*.yaml"), MOST_CHOICES + 1))
    if len(found) > MOST_CHOICES:
        raise UsageError(f"{folder} (--config-dir): over {MOST_CHOICES} YAML files; expected a folder of choices")
    for path in found:
        try:
            for event in _events(read(path.resolve(), LARGEST_CONFIG).decode()):
                if getattr(event, "tag", None):
                    raise ValueError("holds a tag (!); expected plain settings")
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise UsageError(f"{path} (--config-dir): cannot be read: {reason(error)}") from error


def _events(text: str) -> Iterator[yaml.Event]:
    """What YAML consists of.

    Raises:
        ValueError: it is nested too deeply, or has too many values once its aliases are followed.
    """
    sizes: dict[Any, int] = {}  # of what has an anchor
    within: list[tuple[Any, int]] = [(None, 0)]  # what is open: its anchor, and its values so far
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        size = 1
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor, 1)
        if isinstance(event, yaml.CollectionStartEvent):
            within.append((event.anchor, 0))
            size = 0
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = within.pop()
            sizes[anchor] = size = size + 1
        within[-1] = (within[-1][0], within[-1][1] + size)
        if len(within) > 20 or within[-1][1] > MOST_VALUES:
            raise ValueError(f"deep nesting, or over {MOST_VALUES} values with its aliases; expected plain settings")
        yield event


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


def fingerprint(plain: dict[str, Any]) -> str:
    """SHA-256 of everything in a plain config that makes a run the one it is."""
    fixed = {key: value for key, value in _leaves(plain, "") if not is_free(key)}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def _leaves(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def is_free(key: str) -> bool:
    """Whether a run may be continued with another value of this key."""
    return any(key == free or key.startswith(f"{free}.") for free in FREE)
