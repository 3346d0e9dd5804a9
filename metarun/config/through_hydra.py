"""What Hydra composes of words, through its compose API, with errors that fit on one line. Imports no torch."""

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
from metarun.config.folders import OWN, ConfigFolders
from metarun.config.overrides import parse, quote, spell_for_hydra
from metarun.config.search import register_search
from metarun.config.targets import targets, trusted_class
from metarun.config.typecheck import find_parent
from metarun.errors import UsageError
from metarun.text import did_you_mean, nearest, reason

# Of what Hydra itself builds: launchers, sweepers with their samplers and pruners, callbacks.
HYDRA = (
    "hydra._internal.core_plugins",
    "hydra.experimental.callbacks",
    "hydra_plugins",
    "optuna.samplers",
    "optuna.pruners",
)
OWN_LEARNER = "a task source of your own chooses a learner too: begin its YAML file as conf/data/tabular.yaml begins"


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
        saved = "a saved config has its choices already: leave out -cp, or change its settings by algo.key=value"
        remedy = OWN_LEARNER if folders.primary is None else saved
        return f"{text} (command line): nothing chooses what this could replace; {remedy}"
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
