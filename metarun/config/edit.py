"""A saved config with some of its values changed, for what goes on from a run: resume, eval, reproduce."""

import copy
import os
from collections.abc import Iterable
from typing import Any

from omegaconf import OmegaConf

from metarun.config.compose import check_unlisted, is_there
from metarun.config.folders import OWN, ConfigFolders
from metarun.config.keys import NEWER, policy
from metarun.config.overrides import parse
from metarun.config.schema import Config, check
from metarun.config.through_hydra import plain_config, reference_config
from metarun.config.typecheck import check_types, find_parent, takes_integers
from metarun.errors import UsageError


def with_changes(plain: dict[str, Any], words: Iterable[str]) -> Config:
    """The config of a saved one with some of its values changed.

    Nothing in the file and nothing in the words is interpolated. A device, an engine or a logger can be chosen by name;
    the other choices made the run what it is. Raises UsageError for a word that changes no value that is there.
    """
    new = copy.deepcopy(plain)
    changes: list[tuple[str, Any]] = []
    for override in parse(words).parsed:
        word, key, value = str(override.input_line), override.get_key_element(), override.value()
        if override.is_sweep_override() or key[0] in "+~" or override.is_hydra_override():
            raise UsageError(f"{word!r} (command line): expected key=value for a key of the saved config")
        if "." not in key and isinstance(value, dict):  # some settings, and the others stay
            changes += [(f"{key}.{name}", setting) for name, setting in value.items()]
        elif "." not in key and policy(key).by_name and (value is not None or key == "logger"):
            new[key] = copy.deepcopy(plain_config((word,))[key])
        else:
            changes.append((key, value))
    for key, value in changes:  # once all that was chosen by name is there
        if key in NEWER:
            section, _, name = key.partition(".")
            new[section].setdefault(name, NEWER[key])
        if not is_there(key, new):
            check_unlisted(key, value, new)
            find_parent(key.rpartition(".")[0], new)[key.split(".")[-2]][key.split(".")[-1]] = None
        node, last = find_parent(key, new), key.rpartition(".")[2]
        value = OmegaConf.to_container(OmegaConf.create({"value": value}), resolve=False)["value"]  # pyright: ignore
        if isinstance(value, float) and value.is_integer() and takes_integers(key, new):
            value = int(value)
        check_types("", {key: value}, {key: node[last]}, saved=True)
        node[last] = value
    return check(new, os.getcwd())


def chosen_source(words: Iterable[str], folders: ConfigFolders = OWN) -> str | None:
    """The task source that a word chooses by its name: `images` of data=images; None where none does."""
    for override in parse(words, folders).parsed:
        value = None if override.is_sweep_override() else override.value()
        if override.get_key_element() == "data" and isinstance(value, str):
            return value
    return None


def with_source(
    plain: dict[str, Any], words: Iterable[str], choices: dict[str, str], folders: ConfigFolders = OWN
) -> Config:
    """The config of a saved one with another task source, which a word chooses by its name; the others are changes.

    The source has the settings of its YAML file, null where a value is still to be given. What an algorithm needs of a
    source, it is given by the run's own choice of `algo`.
    """
    words = list(words)
    [chosen] = [word for word in words if word.startswith("data=")]
    algo = choices.get("algo")
    known = [f"algo={algo}"] if algo in OWN.options("algo") else []
    data = reference_config((*known, chosen), folders)["data"]
    return with_changes(plain | {"data": data}, [word for word in words if word != chosen])
