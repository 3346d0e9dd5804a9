"""A saved config with some of its values changed, for what goes on from a run: resume, eval, reproduce."""

import copy
from collections.abc import Iterable
from typing import Any

from omegaconf import OmegaConf

from metarun.config.compose import plain_config
from metarun.config.keys import policy
from metarun.config.overrides import parse
from metarun.config.schema import SECTIONS, Config, check
from metarun.config.typecheck import check_types, known
from metarun.errors import UsageError


def with_changes(plain: dict[str, Any], words: Iterable[str]) -> Config:
    """The config of a saved one with some of its values changed.

    The file stays plain data: nothing in it and nothing in the words is interpolated. A device, an engine or a logger
    can be chosen by name; the other choices made the run what it is.

    Raises:
        UsageError: a word is not a change of a value that is there, or the result is not a valid config.
    """
    new = copy.deepcopy(plain)
    changes: list[tuple[str, str, Any]] = []
    for word, override in zip((overrides := parse(words)).words, overrides.parsed, strict=True):
        key = override.get_key_element()
        if override.is_sweep_override() or key[0] in "+~" or override.is_hydra_override():
            raise UsageError(f"{word!r} (command line): expected key=value for a key of the saved config")
        if "." not in key and policy(key).by_name and override.value() is not None:
            new[key] = copy.deepcopy(plain_config((word,))[key])
        else:
            changes.append((word, key, override.value()))
    for word, key, value in changes:  # once all that was chosen by name is there
        *path, last = key.split(".")
        node: Any = new
        for part in path:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            keys = node if isinstance(node, dict) else plain
            raise UsageError(f"{key!r} (command line): no such key; {known('.'.join(path), last, keys)}")
        if key in SECTIONS:
            raise UsageError(
                f"{word!r} (command line): a saved config holds values, not choices; change {key}.key=value, "
                "or start a new run"
            )
        value = OmegaConf.to_container(OmegaConf.create({"value": value}), resolve=False)["value"]  # pyright: ignore
        check_types("", {key: value}, {key: node[last]}, saved=True)
        node[last] = value
    return check(new)
