"""Whether settings have the names and types of those in the YAML files that they replace."""

from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from metarun.config.keys import NEWER
from metarun.errors import UsageError
from metarun.text import nearest, spell

TYPES = {
    **{bool: "true or false", int: "an integer", float: "a number", str: "a word"},
    **{dict: "settings of its own", list: "a list"},
}


def check_types(where: str, values: dict[str, Any], reference: dict[str, Any], saved: bool = False) -> None:
    """Raises UsageError unless every value has the type that it has in the YAML file; null there stands for any.

    In a saved config 1 may be an integer or somebody's way to write 1.0; constructors know.
    """
    for key, value in values.items():
        name = f"{where}.{key}".lstrip(".")
        if key not in reference:
            if name in NEWER:
                continue  # a saved config may lack them
            if "_target_" in reference:
                continue  # a setting that the YAML file does not list; the signature of the class decides
            raise UsageError(f"{name!r} (config): {describe_keys(where, key, reference)}")
        default = reference[key]
        if isinstance(default, dict) and isinstance(value, dict):
            if value.get("_target_") == default.get("_target_"):
                check_types(name, value, default, saved)
        elif value is None and "." in name:
            continue  # whether a component's setting may be null, its constructor knows
        elif saved and type(value) is float and type(default) is int:
            continue
        elif expected := _find_mismatch(value, default):
            example = f"{name}.key=value" if isinstance(default, dict) else f"{name}={default}"
            raise UsageError(f"{spell(value)} ({name}): expected {expected}, such as {example}")


def _find_mismatch(value: Any, default: Any) -> str | None:
    """What was expected instead of this value, or None."""
    if default is None or (isinstance(default, str) and not isinstance(value, (dict, list)) and value is not None):
        return None  # words with more than one meaning, such as chunk=auto|4, are for the constructor
    if isinstance(default, list):
        if not isinstance(value, list):
            return "a list"
        return next(filter(None, (_find_mismatch(item, default[0]) for item in value if default)), None)
    if type(value) is type(default) or (isinstance(default, float) and type(value) is int):
        return None
    return TYPES[type(default)]


def check_hint(name: str, value: Any, hint: Any) -> None:
    """Raises UsageError unless a value may be of the type that an annotation says, as far as that is plain."""
    types = [
        get_origin(part) or part for part in (get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint])
    ]
    types = [list if part in (tuple, Sequence) else part for part in types]
    plain = {bool, int, float, str, list, dict, type(None)}
    if not set(types) <= plain or type(value) in types or (float in types and type(value) is int):
        return
    expected = " or ".join("null" if part is type(None) else TYPES[part] for part in types)
    raise UsageError(f"{spell(value)} ({name}): expected {expected}")


def find_parent(key: str, plain: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that holds a dotted key. Raises UsageError where there is none."""
    node, where, parent = plain, "", plain
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            keys = node if isinstance(node, dict) else ()
            raise UsageError(f"{key!r} (command line): {describe_keys(where, part, keys)}")
        node, where, parent = node[part], f"{where}.{part}".lstrip("."), node
    return parent


def describe_keys(where: str, name: str, keys: Iterable[str]) -> str:
    """That this part of a config has no key of that name, and the names that it has."""
    names = [key for key in keys if not key.startswith("_")]
    return f"no such key; {where or 'config'} has {', '.join(names) or 'no settings'}{nearest(name, names)}"
