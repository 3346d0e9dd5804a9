"""Saved configs and words: plain data, for a stranger may have written them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from metarun.config.earlier import without_gone
from metarun.config.schema import Config, check
from metarun.config.targets import check_name
from metarun.errors import RunDirError, UsageError
from metarun.files import read
from metarun.text import reason

LARGEST = 10_000_000  # bytes; a list of columns may be long
DEEPEST = 100  # levels
REMEDY = "restore it from a copy, or begin anew in another directory"
# libyaml where PyYAML was built with it: a table of 1,000 runs takes 3.4 s instead of 7.1 s.
FAST_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def saved_config(path: Path) -> Config:
    """The config of a saved file. Raises RunDirError where it is missing, no plain data, or no valid config."""
    try:
        plain = _read_plain(path)
        if not isinstance(plain, dict) or not all(isinstance(key, str) for key in plain):
            raise RunDirError(f"{path}: expected a mapping of keys to values, as metarun saved it; {REMEDY}")
        # It is only read here, and targets.build() has a check of its own.
        return check(without_gone(plain), check_class=check_name)
    except FileNotFoundError as error:
        raise RunDirError(f"{path}: not found; expected the config that metarun saved in .hydra of a run") from error
    except UsageError as error:
        raise RunDirError(f"{path}: {error}") from error


def read_words(path: Path) -> list[str]:
    """The words that began a run, from its overrides.yaml; [] where there is none. Raises RunDirError as above."""
    try:
        words = _read_plain(path, interpolations=True)  # words are not resolved again
    except FileNotFoundError:
        return []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise RunDirError(f"{path}: expected a list of words, as metarun saved it")
    return words


def read_choices(path: Path) -> dict[str, str] | None:
    """Hydra's choices by group, from choices.yaml; None where there is none. Raises RunDirError as above."""
    try:
        choices = _read_plain(path)
    except FileNotFoundError:
        return None
    if not isinstance(choices, dict) or not all(isinstance(name, str) for name in [*choices, *choices.values()]):
        raise RunDirError(f"{path}: expected a choice for each group, as metarun saved it")
    return choices


@cache
def _loader() -> Any:
    """Hydra's loader, a SafeLoader to which 1e-3 is a number, on libyaml's parser."""
    hydra = get_yaml_loader()
    if FAST_LOADER is yaml.SafeLoader:
        return hydra
    from yaml.cyaml import CParser

    class FastLoader(CParser, hydra):
        def __init__(self, stream: str):
            CParser.__init__(self, stream)
            SafeConstructor.__init__(self)
            Resolver.__init__(self)

    return FastLoader


def _read_plain(path: Path, interpolations: bool = False) -> Any:
    """The value of a YAML file without tags, aliases and, unless they are allowed, interpolations."""
    try:
        text = read(path, LARGEST).decode()
        depth = 0
        for event in yaml.parse(text, Loader=FAST_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:  # a stack is finite
                raise ValueError(f"it is deeper than {DEEPEST} levels")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
                raise ValueError("it holds an alias or a tag")
            if isinstance(event, yaml.ScalarEvent) and "${" in event.value and not interpolations:
                raise ValueError(f"it holds the interpolation {event.value!r}")
        value = yaml.load(text, Loader=_loader())
        json.dumps(value, sort_keys=True)  # as a fingerprint wants it: keys of several kinds have no order
        return value
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise RunDirError(f"{path}: {reason(error)}; expected plain values, as metarun saved them; {REMEDY}") from error


def dump(plain: Any) -> str:
    """YAML of plain values, as Hydra writes it."""
    return OmegaConf.to_yaml(OmegaConf.create(plain))
