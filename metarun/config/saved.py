"""Configs as files: saved ones, and folders of choices; both are plain data, for a stranger may have written them."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from metarun.config.schema import Config, check
from metarun.errors import RunDirError, UsageError
from metarun.files import read
from metarun.text import reason

LARGEST_CONFIG = 64_000  # bytes
MOST_CHOICES = 2_000  # files
MOST_VALUES = 10_000  # in one file


def read_saved(path: Path) -> dict[str, Any]:
    """A saved config as plain data: no tags, aliases or interpolations, nothing but values.

    Raises:
        RunDirError: the file is missing, unreadable, or holds anything else.
    """
    from omegaconf._utils import get_yaml_loader

    try:
        text = read(path, LARGEST_CONFIG).decode()
        for event in _events(text):
            if not _is_plain(event):
                raise RunDirError(f"{path}: holds an alias or a tag; expected plain values, as metarun saved them")
            if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
                raise RunDirError(
                    f"{path}: holds the interpolation {event.value!r}; expected plain values, as metarun saved them"
                )
        plain = yaml.load(text, Loader=get_yaml_loader())
        json.dumps(plain, sort_keys=True)  # as its fingerprint wants it: keys of several kinds have no order
    except FileNotFoundError as error:
        raise RunDirError(
            f"{path}: not found; expected the config.yaml that metarun saved in a run directory's .hydra"
        ) from error
    except (OSError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise RunDirError(f"{path}: cannot be read as a saved config: {reason(error)}") from error
    if not isinstance(plain, dict) or not all(isinstance(key, str) for key in plain):
        raise RunDirError(f"{path}: expected a mapping of keys to values")
    return plain


def read_words(path: Path) -> list[str]:
    """The words of the command line that began a run, from its overrides.yaml; [] where there is none.

    Raises:
        RunDirError: it holds something else.
    """
    try:
        text = read(path, LARGEST_CONFIG).decode()
        words: Any = yaml.safe_load(text) if all(map(_is_plain, _events(text))) else None
    except FileNotFoundError:
        return []
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise RunDirError(f"{path}: cannot be read: {reason(error)}") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise RunDirError(f"{path}: expected a list of words, as metarun saved it")
    return words


def _is_plain(event: yaml.Event) -> bool:
    return not isinstance(event, yaml.AliasEvent) and not getattr(event, "tag", None)


def saved_config(path: Path) -> Config:
    """The config of a saved file.

    Raises:
        RunDirError: it cannot be read, or is not a valid config.
    """
    try:
        return check(read_saved(path))
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
