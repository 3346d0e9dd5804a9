"""Whether settings have the names and types of those in the YAML files that they replace."""

from collections.abc import Iterable
from typing import Any

from metarun.errors import UsageError
from metarun.text import nearest, spell


def check_types(where: str, values: dict[str, Any], reference: dict[str, Any], saved: bool = False) -> None:
    """Every value has the type of the one that the YAML file has. Null there stands for any.

    In a saved config 1 may be an integer or somebody's way to write 1.0; constructors know.
    """
    for key, value in values.items():
        name = f"{where}.{key}".lstrip(".")
        if key not in reference:
            if "_target_" in reference and "." in where:
                continue  # an argument more of a nested class, such as algo.meta_optimizer; its signature decides
            raise UsageError(f"{name!r} (config): no such key; {known(where, key, reference)}")
        default = reference[key]
        if isinstance(default, dict) and isinstance(value, dict):
            if value.get("_target_") == default.get("_target_"):
                check_types(name, value, default, saved)
        elif value is None and "." in name:
            continue  # whether a component's setting may be null, its constructor knows
        elif saved and type(value) is float and type(default) is int:
            continue
        elif (expected := _mismatch(value, default)) is not None:
            raise UsageError(f"{spell(value)} ({name}): expected {expected}, such as {name}={default}")


def _mismatch(value: Any, default: Any) -> str | None:
    """What was expected instead of this value, or None."""
    if default is None or (isinstance(default, str) and not isinstance(value, (dict, list)) and value is not None):
        return None  # words with more than one meaning, such as chunk=auto|4, are for the constructor
    if isinstance(default, list):
        if not isinstance(value, list):
            return "a list"
        return next((m for v in value if default and (m := _mismatch(v, default[0])) is not None), None)
    names = {bool: "true or false", int: "an integer", float: "a number", str: "a word", dict: "settings of its own"}
    if type(value) is type(default) or (isinstance(default, float) and type(value) is int):
        return None
    return names[type(default)]


def known(where: str, name: str, keys: Iterable[str]) -> str:
    """The names that would have been right in this part of a config."""
    names = [key for key in keys if not key.startswith("_")]
    return f"{where or 'config'} has {', '.join(names) or 'no settings'}{nearest(name, names)}"
