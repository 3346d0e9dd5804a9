"""Whether settings have the names and types of those in the YAML files that they replace."""

from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from metarun.config import other_names
from metarun.config.class_text import class_text
from metarun.config.keys import HYDRA, NEWER, leaves
from metarun.errors import UsageError
from metarun.text import closest, did_you_mean, nearest, spell

TYPES = {
    **{bool: "true or false", int: "an integer", float: "a number", str: "a word"},
    **{dict: "settings of its own", list: "a list"},
}
INTERNAL = ("suggested", "needs")  # keys of the root that nobody types


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
            raise UsageError(
                f"{spell(value)} ({name}): expected {expected}, such as {example}{_remedy(name, value, saved)}"
            )


def _remedy(name: str, value: Any, saved: bool) -> str:
    """What was probably meant by a value of another type."""
    if isinstance(value, list) and len(value) > 1 and all(isinstance(item, (bool, int, float, str)) for item in value):
        return f"; for several runs: -m {name}={','.join(map(str, value))}"
    if isinstance(value, str) and saved and "." not in name:
        return "; a saved config has no choices by name: begin from the words of its run, in overrides.yaml beside it"
    return ""


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


def takes_integers(key: str, plain: dict[str, Any]) -> bool:
    """Whether the value of a dotted key is an integer, or null where the class that reads it takes integers alone."""
    section, _, name = key.partition(".")
    try:
        default = find_parent(key, plain)[key.rpartition(".")[2]]
    except UsageError:
        return False
    if default is None and name and isinstance(plain[section], dict):
        text = class_text(plain[section].get("_target_"))
        return bool(text) and text.types.get(name) in ("int", "int | None")
    return type(default) is int


def find_parent(key: str, plain: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that holds a dotted key. Raises UsageError where there is none."""
    node, where, parent = plain, "", plain
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            keys = node if isinstance(node, dict) else ()
            there = describe_keys(where, part, keys) if where else _describe_root(key, plain)
            raise UsageError(f"{key!r} (command line): {there}")
        node, where, parent = node[part], f"{where}.{part}".lstrip("."), node
    return parent


def _describe_root(key: str, plain: dict[str, Any]) -> str:
    """That the root has no such key, and the keys that were probably meant: of sections, of Hydra, of other names."""
    roots = [name for name in plain if name not in INTERNAL]
    keys = [name for name, _ in leaves(plain) if name.partition(".")[0] not in INTERNAL] + list(HYDRA)
    meant = [name for name in keys if name.endswith(f".{key}")][:3]
    if other_names.KEYS.get(key, key) not in (key, *meant):
        meant.append(other_names.KEYS[key])
    if not meant:
        by_end = {name.rpartition(".")[2]: name for name in reversed(keys)}
        meant = [by_end.get(name, name) for name in closest(key, [*roots, *by_end])]
    has = "" if meant else f"; config has {', '.join(roots)}"
    return f"no such key{has}{did_you_mean(meant)}; metarun explain lists the groups and the keys of the root"


def describe_keys(where: str, name: str, keys: Iterable[str]) -> str:
    """That this part of a config has no key of that name, and the names that it has."""
    names = [key for key in keys if not key.startswith("_")]
    return f"no such key; {where or 'config'} has {', '.join(names) or 'no settings'}{nearest(name, names)}"
