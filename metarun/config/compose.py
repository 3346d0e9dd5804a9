"""From command-line words to checked configs, through Hydra's compose API, with errors that fit on one line.

Imports no torch. What Hydra would accept silently and what would not mean what it says is refused here: a key given
twice, a number where a word belongs, a component's name where its settings are.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from metarun.config.folders import OWN, ConfigFolders
from metarun.config.overrides import parse
from metarun.config.schema import SECTIONS, Config, check
from metarun.config.search import register_search
from metarun.config.targets import targets, trusted_class
from metarun.config.typecheck import check_types, find_parent
from metarun.errors import UsageError
from metarun.text import nearest, reason

# Of what Hydra itself builds: launchers, sweepers with their samplers and pruners, callbacks.
HYDRA = (
    "hydra._internal.core_plugins",
    "hydra.experimental.callbacks",
    "hydra_plugins",
    "optuna.samplers",
    "optuna.pruners",
)
OWN_LEARNER = "a task source of your own chooses a learner too: begin its YAML file as conf/data/tabular.yaml begins"


def compose(words: list[str], folders: ConfigFolders = OWN) -> Config:
    """The checked config of one job. Raises UsageError for a wrong name, type or root value."""
    overrides = parse(words, folders)
    for override in overrides.parsed:
        word = override.input_line
        if word in overrides.choices and override.value() is None and not override.is_delete():
            name = override.get_key_element()
            raise UsageError(f"{word!r} (command line): expected {name}=NAME; see metarun --help, or leave it out")
    plain = plain_config(tuple(words), folders)
    reference = plain_config(tuple(overrides.choices), folders)
    for section in SECTIONS:
        if section not in plain:
            raise UsageError(f"{section!r} (config): missing; {OWN_LEARNER}")
    check_types("", plain, reference, saved=folders.primary is not None)
    return check(plain)


@lru_cache(maxsize=256)
def plain_config(words: tuple[str, ...], folders: ConfigFolders = OWN) -> dict[str, Any]:
    """The composed config, resolved, with what task sources suggest and algorithms need."""
    with _as_usage_errors(words, folders):
        config = _compose(words, folders).copy()
        with open_dict(config):
            del config["hydra"]
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return plain


def hydra_settings(words: tuple[str, ...], folders: ConfigFolders = OWN) -> DictConfig:
    """Hydra's own settings, such as those of its launcher and its sweeper. Raises UsageError as compose()."""
    with _as_usage_errors(words, folders):
        return _compose(words, folders).hydra


@lru_cache(maxsize=256)
def _compose(words: tuple[str, ...], folders: ConfigFolders) -> DictConfig:
    register_search()
    search = [f"hydra.searchpath=[file://{folders.extra}]"] if folders.extra else []
    with initialize_config_dir(str(folders.paths()[0]), version_base="1.3"):
        config = hydra_compose("config", [*words, *search], return_hydra_config=True)
    for key, target in targets(OmegaConf.to_container(config.hydra, resolve=False), "hydra"):
        trusted_class(key, target, HYDRA)
    return config


def forget_composed() -> None:
    """Makes the next calls read all files again."""
    plain_config.cache_clear()
    _compose.cache_clear()


@contextmanager
def _as_usage_errors(words: Iterable[str], folders: ConfigFolders) -> Iterator[None]:
    try:
        yield
    except MissingConfigException as error:
        raise UsageError(_describe_missing(error, folders)) from error
    except (HydraException, OmegaConfBaseException, AssertionError) as error:  # the last is OmegaConf's too
        raise UsageError(_describe(error, tuple(words), folders)) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{reason(error)} (--config-dir): expected YAML files of plain settings") from error


def _describe_missing(error: MissingConfigException, folders: ConfigFolders) -> str:
    """The line about a choice that has no file."""
    missing = error.missing_cfg_file or ""
    group, _, choice = missing.partition("/")  # a choice may lie in a folder: experiment=finn2017/omniglot_5w1s
    if not (names := folders.options(group)):
        group, _, choice = missing.rpartition("/")
        names = list(error.options or [])
    plugins = "; more come with Hydra's plugins: pip install '.[optuna]'" if group.startswith("hydra/") else ""
    return f"{choice!r} ({group or 'config'}): expected one of {', '.join(names)}{nearest(choice, names)}{plugins}"


def _describe(error: Exception, words: tuple[str, ...], folders: ConfigFolders) -> str:
    """The line about an error whose message has several lines, and no list of the names that would have been right."""
    text = str(error).splitlines()[0].rstrip(".")
    choices = tuple(parse(words, folders).choices)
    if "No match in the defaults list" in text:
        return f"{text} (command line): nothing chooses what this could replace; {OWN_LEARNER}"
    if text.startswith("Ambiguous value for argument"):
        word = text.split("'")[1]
        return f"{word!r} (command line): several values; for a sweep add -m, for a list write key=[a,b]"
    match = re.search(r"Could not (?:override|delete from config) '?([\w.]+)", text)
    if match and match[1].startswith("hydra."):
        base = hydra_settings((*choices, *(word for word in words if word.startswith("hydra/"))), folders)
        find_parent(match[1], {"hydra": OmegaConf.to_container(base, resolve=False)})
    if match and choices != words:  # or there is no config to look names up in
        find_parent(match[1], plain_config(choices, folders))
    return f"{text} (config)" + (f": {str(error.__cause__).splitlines()[0]}" if error.__cause__ else "")
