"""From command-line words to checked configs, through Hydra's compose API, with errors that fit on one line.

Imports no torch. What Hydra would accept silently and what would not mean what it says is refused here: a key given
twice, a number where a word belongs, a component's name where its settings are.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

from metarun.config import other_names
from metarun.config.folders import OWN, ConfigFolders, conf_dir
from metarun.config.overrides import NOTHING, parse, quote, spell_for_hydra
from metarun.config.schema import SECTIONS, Config, check
from metarun.config.search import register_search
from metarun.config.targets import settings_of, targets, trusted_class
from metarun.config.typecheck import check_hint, check_types, describe_keys, find_parent, takes_integers
from metarun.errors import UsageError
from metarun.text import did_you_mean, nearest, reason, spell_class

# Of what Hydra itself builds: launchers, sweepers with their samplers and pruners, callbacks.
HYDRA = (
    "hydra._internal.core_plugins",
    "hydra.experimental.callbacks",
    "hydra_plugins",
    "optuna.samplers",
    "optuna.pruners",
)
CLASS_KEYS = ("._partial_", "._target_")
OWN_LEARNER = "a task source of your own chooses a learner too: begin its YAML file as conf/data/tabular.yaml begins"


def compose(words: list[str], folders: ConfigFolders = OWN) -> Config:
    """The checked config of one job, of words as complete() gives them or as they are typed.

    Raises UsageError for a wrong name, type or root value.
    """
    overrides = parse(words, folders)
    for override in overrides.parsed:
        name, word = override.get_key_element(), override.input_line
        chosen = word in overrides.choices and word.lower() not in NOTHING and not override.is_delete()
        if chosen and override.value() in ("", None):
            raise UsageError(f"{word!r} (command line): expected {name}=NAME; see metarun --help, or leave it out")
    words = complete(words, folders)
    plain = plain_config(tuple(words), folders)
    reference = reference_config(tuple(overrides.choices), folders)
    for section in SECTIONS:
        if section not in plain:
            raise UsageError(f"{section!r} (config): missing; {OWN_LEARNER}")
    check_types("", plain, reference, saved=folders.primary is not None)
    return check(plain, os.getcwd())


@lru_cache(maxsize=256)
def plain_config(words: tuple[str, ...], folders: ConfigFolders = OWN) -> dict[str, Any]:
    """The composed config, resolved, with what task sources suggest and algorithms need."""
    with _as_usage_errors(words, folders), _without_hydra(words, folders) as config:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return plain


@lru_cache(maxsize=256)
def reference_config(words: tuple[str, ...], folders: ConfigFolders = OWN) -> dict[str, Any]:
    """The composed config; null where a value is still to be given (???), or is not in the environment."""
    with _as_usage_errors(words, folders), _without_hydra(words, folders) as config:
        return _resolve_what_can_be(config)


@contextmanager
def _without_hydra(words: tuple[str, ...], folders: ConfigFolders) -> Iterator[DictConfig]:
    """The composed config without Hydra's part, which ${hydra:...} finds meanwhile."""
    config = _compose(words, folders, os.getcwd())
    holder = HydraConfig.instance()
    before, holder.cfg = holder.cfg, config
    try:
        yield OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    finally:
        holder.cfg = before


def _resolve_what_can_be(node: Any) -> Any:
    if not isinstance(node, DictConfig):
        return OmegaConf.to_container(node, resolve=True) if isinstance(node, ListConfig) else node
    plain = {}
    for key in node:
        try:
            plain[key] = _resolve_what_can_be(node[key])
        except OmegaConfBaseException:
            plain[key] = None
    return plain


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


def hydra_settings(words: tuple[str, ...], folders: ConfigFolders = OWN) -> DictConfig:
    """Hydra's own settings, such as those of its launcher and its sweeper. Raises UsageError as compose()."""
    with _as_usage_errors(words, folders):
        return _compose(words, folders, os.getcwd()).hydra


def search_path(folders: ConfigFolders) -> list[str]:
    """The word by which Hydra looks for choices in the folder of the user's too."""
    if folders.extra is None:
        return []
    return [f"hydra.searchpath=[{quote(f'file://{folders.extra}')}]"]


@lru_cache(maxsize=256)
def _compose(words: tuple[str, ...], folders: ConfigFolders, cwd: str) -> DictConfig:
    """What the words compose, with Hydra's own settings, of which one is the working directory.

    Files are composed once for all words that choose the same ones, for that takes long, and a sweep may have a
    thousand jobs; values are set in a copy, which Hydra would do next, in the same way.
    """
    overrides = OverridesParser.create().parse_overrides([*spell_for_hydra(words), *search_path(folders)])
    values = [override for override in overrides if not _is_for_files(override, folders)]
    files = tuple(override.input_line for override in overrides if override not in values)
    config = deepcopy(_compose_files(files, folders))
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    own = [override for override in overrides if not override.is_hydra_override()]
    config.hydra.runtime.cwd = cwd
    config.hydra.overrides.task = [override.input_line for override in own]
    config.hydra.overrides.hydra = [override.input_line for override in overrides if override.is_hydra_override()]
    naming = config.hydra.job.config.override_dirname
    config.hydra.job.override_dirname = get_overrides_dirname(own, naming.exclude_keys, naming.item_sep, naming.kv_sep)
    for key, target in targets(OmegaConf.to_container(config.hydra, resolve=False), "hydra"):
        trusted_class(key, target, HYDRA)
    return config


def _is_for_files(override: Override, folders: ConfigFolders) -> bool:
    """Whether a word has a say in which files are composed; or is refused, by Hydra, because it has several values."""
    group = override.key_or_group
    if override.is_sweep_override() or group == "hydra.searchpath":
        return True
    return ("/" in group or folders.is_group(group)) and not isinstance(override.value(), dict)


@lru_cache(maxsize=64)
def _compose_files(words: tuple[str, ...], folders: ConfigFolders) -> DictConfig:
    register_search()
    active = GlobalHydra.instance()
    before, active.hydra = active.hydra, None  # a search composes while Hydra is at work
    try:
        with initialize_config_dir(str(folders.paths()[0]), version_base="1.3"):
            return hydra_compose("config", list(words), return_hydra_config=True)
    finally:
        active.hydra = before


def forget_composed() -> None:
    """Makes the next calls read all files again."""
    for composed in (plain_config, reference_config, _compose, _compose_files):
        composed.cache_clear()


@contextmanager
def _as_usage_errors(words: Iterable[str], folders: ConfigFolders) -> Iterator[None]:
    try:
        yield
    except MissingConfigException as error:
        raise UsageError(_describe_missing(error, folders)) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{reason(error)} (--config-dir): expected YAML files of plain settings") from error
    except (HydraException, OmegaConfBaseException, AssertionError, ValueError) as error:  # the last two are theirs too
        raise UsageError(_describe(error, tuple(words), folders)) from error


def _describe_missing(error: MissingConfigException, folders: ConfigFolders) -> str:
    """The line about a choice that has no file."""
    missing = error.missing_cfg_file or ""
    group, _, choice = missing.partition("/")  # a choice may lie in a folder: experiment=finn2017/omniglot_5w1s
    if not (names := folders.options(group)):
        group, _, choice = missing.rpartition("/")
        names = list(error.options or [])
    other = other_names.CHOICES.get(group, {}).get(choice.lower())
    remedy = did_you_mean([other]) if other in names else nearest(choice, names)
    plugins = "; more come with Hydra's plugins: pip install '.[optuna]'" if group.startswith("hydra/") else ""
    return f"{choice!r} ({group or 'config'}): expected one of {', '.join(names)}{remedy}{plugins}"


def _describe(error: Exception, words: tuple[str, ...], folders: ConfigFolders) -> str:
    """The line about an error whose message has several lines, and no list of the names that would have been right."""
    text = str(error).splitlines()[0].rstrip(".")
    if isinstance(error, InterpolationResolutionError) and error.full_key:
        return f"{error.full_key} (config): {text}; mend that, or give it a value: {error.full_key}=VALUE"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} (config): has no value yet (???); give it one: {error.full_key}=VALUE"
    choices = tuple(parse(words, folders).choices)
    if "No match in the defaults list" in text:
        return f"{text} (command line): nothing chooses what this could replace; {OWN_LEARNER}"
    if text.startswith("Ambiguous value for argument"):
        word = text.split("'")[1]
        return f"{word!r} (command line): several values; for a sweep add -m, for a list write key=[a,b]"
    if found := re.match(r"Sweep parameters '(.*)' requires --multirun", text):
        return f"{found[1]!r} (command line): several values; for a sweep add -m"
    match = re.search(r"Could not (?:override|delete from config) '?([\w.]+)", text)
    if match and match[1].startswith("hydra."):
        base = hydra_settings((*choices, *(word for word in words if word.startswith("hydra/"))), folders)
        find_parent(match[1], {"hydra": OmegaConf.to_container(base, resolve=False)})
    if match and choices != words:  # or there is no config to look names up in
        find_parent(match[1], reference_config(choices, folders))
    return f"{text} (config)" + (f": {str(error.__cause__).splitlines()[0]}" if error.__cause__ else "")
