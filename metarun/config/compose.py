"""From command-line words to the checked config of one job.

Imports no torch. What Hydra would accept silently and what would not mean what it says is refused here: a key given
twice, a number where a word belongs, a component's name where its settings are.
"""

import os
from typing import Any

from hydra.core.override_parser.types import Override

from metarun.config.folders import OWN, ConfigFolders, conf_dir
from metarun.config.overrides import parse
from metarun.config.schema import SECTIONS, Config, check
from metarun.config.targets import settings_of
from metarun.config.through_hydra import OWN_LEARNER, plain_config, reference_config
from metarun.config.typecheck import check_hint, check_types, describe_keys, find_parent, takes_integers
from metarun.errors import UsageError
from metarun.text import spell_class

CLASS_KEYS = ("._partial_", "._target_")


def compose(words: list[str], folders: ConfigFolders = OWN) -> Config:
    """The checked config of one job, of words as complete() gives them or as they are typed.

    Raises UsageError for a wrong name, type or root value.
    """
    overrides = parse(words, folders)
    words = complete(words, folders)
    plain = plain_config(tuple(words), folders)
    reference = reference_config(tuple(overrides.choices), folders)
    for section in SECTIONS:
        if section not in plain:
            remedy = OWN_LEARNER if section == "model" else f"choose one: {section}=NAME"
            raise UsageError(f"{section!r} (config): missing; {remedy}")
    check_types("", plain, reference, saved=folders.primary is not None)
    return check(plain, os.getcwd())


def complete(words: list[str], folders: ConfigFolders = OWN) -> list[str]:
    """The words of one job, where those that give a setting which no YAML file lists say so, as Hydra wants it: ++key.

    A class may take more than its YAML file lists, such as what its base class takes. Raises UsageError: it does not,
    or not a value of this type.
    """
    overrides = parse(words, folders)
    chosen = set(overrides.choices)
    settings = [o for o in overrides.parsed if not (o.input_line in chosen or o.is_hydra_override() or o.is_delete())]
    reference = reference_config(tuple(overrides.choices), folders)
    whole = {o.input_line: f"{o.get_key_element()}={int(o.value())}" for o in settings if _is_whole(o, reference)}
    words = [whole.get(word, word) for word in words]
    settings = [o for o in settings if o.input_line not in whole]
    unlisted = [o for o in settings if "." in o.key_or_group and not is_there(o.key_or_group, reference)]
    if not unlisted:
        return words
    lines = {o.input_line for o in unlisted}
    words = [f"++{word.lstrip('+')}" if word in lines else word for word in words] + _classes_of(unlisted, reference)
    checked = {f"++{o.key_or_group}": o.value() for o in unlisted if not o.key_or_group.endswith(CLASS_KEYS)}
    known = reference_config(tuple(word for word in words if word.partition("=")[0] not in checked), folders)
    for key, value in checked.items():
        check_unlisted(key.lstrip("+"), value, known)
    return words


def _is_whole(override: Override, reference: dict[str, Any]) -> bool:
    """Whether a value is a whole number written as another, 1e3, of a key that takes integers."""
    value = None if override.is_sweep_override() else override.value()
    return isinstance(value, float) and value.is_integer() and takes_integers(override.key_or_group, reference)


def _classes_of(unlisted: list[Override], reference: dict[str, Any]) -> list[str]:
    """The words that name the classes of unlisted settings' owners, such as algo.meta_optimizer, if none lists them.

    By default that is the class which is the parameter's default.
    """
    given = {override.key_or_group for override in unlisted}
    words = []
    for where in dict.fromkeys(key.rpartition(".")[0] for key in given):
        owner, _, name = where.rpartition(".")
        if not owner or is_there(where, reference) or not is_there(owner, reference):
            continue
        check_unlisted(where, "${}", reference)
        node = find_parent(owner, reference)[owner.rpartition(".")[2]]
        default = (settings_of(owner, node) or {})[name].default
        if isinstance(default, type):
            values = ("true", spell_class(default))
            keys = [f"{where}{key}" for key in CLASS_KEYS]
            words += [f"++{key}={value}" for key, value in zip(keys, values, strict=True) if key not in given]
    return words


def is_there(key: str, plain: dict[str, Any]) -> bool:
    """Whether a config has a dotted key, or may have it: below a value that is null nothing is known."""
    node: Any = plain
    for part in key.split("."):
        if node is None:
            return True
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def check_unlisted(key: str, value: Any, plain: dict[str, Any]) -> None:
    """Raises UsageError unless the class that a dotted key belongs to takes such a setting.

    A part of metarun's own has no more than its YAML file lists, but for a task source: an older saved config may lack
    what came later.
    """
    where, _, name = key.rpartition(".")
    try:
        node = find_parent(where, plain)[where.rpartition(".")[2]]
    except UsageError:  # nor is there what it would belong to
        find_parent(key, plain)
        raise
    if not isinstance(node, dict) or "_target_" not in node or _is_complete(where, node["_target_"]):
        find_parent(key, plain)  # says so
        return
    takes = settings_of(where, node)
    if takes is not None and name not in takes:
        owner = f"{where} ({str(node['_target_']).rpartition('.')[2]})"
        raise UsageError(f"{key!r} (command line): {describe_keys(owner, name, dict.fromkeys([*node, *takes]))}")
    if takes and not (isinstance(value, str) and "${" in value):
        check_hint(key, value, takes[name].annotation)


def _is_complete(section: str, target: str) -> bool:
    """Whether this is the class of one of metarun's own choices, whose YAML files list all that can be set."""
    if section == "data":
        return False
    files = (conf_dir() / section).glob("*.yaml")
    return any(f"_target_: {target}\n" in file.read_text(encoding="utf-8") for file in files)
