"""From command-line words to plain configs, through Hydra's compose API, with errors that fit on one line.

Imports no torch. What Hydra would accept silently and what would not mean what it says is refused here: a key given
twice, a number where a word belongs, a component's name where its settings are.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from metarun.config.schema import SECTIONS, Config, check
from metarun.config.targets import targets, trusted_class
from metarun.config.typecheck import check_types, known
from metarun.errors import UsageError
from metarun.text import nearest

# Of what Hydra itself builds: launchers, sweepers with their samplers, callbacks.
HYDRA = ("hydra._internal.core_plugins", "hydra.experimental.callbacks", "hydra_plugins", "optuna.samplers")
PACKAGE = Path(__file__).resolve().parent.parent


def conf_dir() -> Path:
    """Where the configs lie: inside the package in a wheel, beside it in a checkout."""
    return next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if (path / "config.yaml").is_file())


def parse(words: list[str]) -> list[Override]:
    """The overrides that these words are.

    Raises:
        UsageError: a word is not an override, or a key is given twice.
    """
    overrides: list[Override] = []
    for word in words:
        try:
            overrides += OverridesParser.create().parse_overrides([word])
        except OverrideParseException as error:
            raise UsageError(
                f"{word!r} (command line): expected key=value; a value with = , or other special characters goes in "
                "quotes of its own: 'key=\"a=b\"'"
            ) from error
    seen = {}
    for override in overrides:
        key = override.get_key_element().lstrip("+~")
        if not key:
            raise UsageError(f"{override.input_line!r} (command line): expected key=value")
        if key in SECTIONS and override.value() is None:
            raise UsageError(f"{override.input_line!r} (command line): expected {key}=name; see metarun --help")
        if key in seen:
            raise UsageError(
                f"{key!r} (command line): given twice, as {seen[key]} and {override.input_line}; give it once"
            )
        seen[key] = override.input_line
    return overrides


class Source(NamedTuple):
    """Where configs are looked up."""

    primary: Path | None = None  # the folder of config.yaml (Hydra's --config-path); None: metarun's own
    extra: Path | None = None  # a folder with more choices (Hydra's --config-dir)

    def folders(self) -> list[Path]:
        """The folders whose subfolders are groups of choices."""
        return [self.primary or conf_dir(), *filter(None, [self.extra])]


def jobs(words: list[str], source: Source) -> Iterator[list[str]]:
    """The combinations of a sweep, each as the words of one job, in the order of Hydra's basic sweeper."""
    choices = []
    for override in parse([*_sweeper_params(words, source), *words]):
        # Intervals belong to other sweepers, which choose values as they go; those are checked job by job.
        if override.is_discrete_sweep() and not override.is_hydra_override():
            key, value = override.get_key_element(), override.value()
            names = options(key, source)
            values = value.filter(names) if isinstance(value, Glob) else list(override.sweep_string_iterator())
            if not values:
                raise UsageError(f"{override.input_line!r} (command line): no value; {key} has {', '.join(names)}")
            choices.append([f"{key}={value}" for value in values])
        elif not override.is_sweep_override():
            choices.append([override.input_line or ""])
    return map(list, itertools.product(*choices))


def options(group: str, source: Source) -> list[str]:
    """The names that can be chosen in a group, sorted. What lies in a folder named common is part of others."""
    groups = [folder / group for folder in source.folders()]
    files = {file.relative_to(folder) for folder in groups for file in folder.rglob("*.yaml")}
    return sorted(str(file.with_suffix("")) for file in files if "common" not in file.parts)


def compose(words: list[str], source: Source = Source()) -> Config:  # noqa: B008 (immutable)
    """The checked config of one job.

    Args:
        words: overrides.
        source: where configs are looked up.

    Raises:
        UsageError: a name, a type or a root value is wrong.
    """
    parse(words)
    plain, reference = plain_config(tuple(words), source), plain_config(_choices(words, source), source)
    for section in SECTIONS:
        if section not in plain:
            raise UsageError(
                f"{section!r} (config): missing; a task source of your own chooses a learner too: begin its YAML file "
                "as conf/data/tabular.yaml begins"
            )
        if not isinstance(plain.get(section), dict):
            raise UsageError(
                f"{plain.get(section)!r} ({section}): a saved config holds values, not choices; change "
                f"{section}.key=value, "
                "or start from metarun's own config"
            )
        if plain[section].get("_target_") == reference[section].get("_target_"):
            check_types(section, plain[section], reference[section], saved=source.primary is not None)
    check_types("", {key: value for key, value in plain.items() if key not in SECTIONS}, reference)
    return check(settled(plain, words))


def _sweeper_params(words: list[str], source: Source) -> list[str]:
    """What a file of the group sweep adds to the command line."""
    chosen = [o.input_line or "" for o in parse(words) if o.get_key_element() == "sweep" and not o.is_sweep_override()]
    return [f"{key}={value}" for key, value in (sweeper(tuple(chosen), source).get("params") or {}).items()]


@lru_cache(maxsize=16)
def sweeper(words: tuple[str, ...], source: Source) -> dict[str, Any]:
    """The settings of Hydra's sweeper, as they stand in the files and these words; {} of one with none."""
    with _as_usage_errors(words, source), initialize_config_dir(_primary(source), version_base="1.3"):
        composed = hydra_compose("config", [*words, *_search(source)], return_hydra_config=True)
        found: Any = OmegaConf.to_container(composed.hydra.sweeper, resolve=False)
    return found or {}


def settled(plain: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """A resolved config as it is run.

    It no longer refers to what its task source suggests.
    """
    return {key: value for key, value in plain.items() if key != "protocol"}


@lru_cache(maxsize=256)
def plain_config(words: tuple[str, ...], source: Source) -> dict[str, Any]:
    """The composed config, resolved."""
    with _as_usage_errors(words, source), initialize_config_dir(_primary(source), version_base="1.3"):
        config: Any = hydra_compose("config", [*words, *_search(source)], return_hydra_config=True)
        hydra = OmegaConf.to_container(config.hydra, resolve=False)
        with open_dict(config):
            del config["hydra"]
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    for key, target in targets(hydra, "hydra"):
        trusted_class(key, target, HYDRA)
    return plain


def _primary(source: Source) -> str:
    return str(source.folders()[0])


def _search(source: Source) -> list[str]:
    return [f"hydra.searchpath=[file://{source.extra}]"] if source.extra else []


@contextmanager
def _as_usage_errors(words: Iterable[str], source: Source) -> Iterator[None]:
    try:
        yield
    except MissingConfigException as error:
        raise UsageError(_missing(error, source)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_one_line(error, tuple(words), source)) from error


def _choices(words: Iterable[str], source: Source) -> tuple[str, ...]:
    """Those of the words that choose a file, as algo=fomaml does."""
    overrides = [override for override in parse(list(words)) if not override.is_hydra_override()]
    groups = [o for o in overrides if any((folder / o.key_or_group).is_dir() for folder in source.folders())]
    return tuple(override.input_line or "" for override in groups)


def _missing(error: MissingConfigException, source: Source) -> str:
    """A choice that has no file."""
    missing = error.missing_cfg_file or ""
    group, _, choice = missing.partition("/")  # our own may have folders: experiment=finn2017/omniglot_5w1s
    if not (names := options(group, source)):
        group, _, choice = missing.rpartition("/")
        names = list(error.options or [])
    if not group:
        return f"{choice!r} (config): not found; expected a folder with config.yaml"
    return f"{choice!r} ({group}): expected one of {', '.join(names)}{nearest(choice, names)}"


def _one_line(error: Exception, words: tuple[str, ...], source: Source) -> str:
    """Hydra's and OmegaConf's messages have several lines, and no list of the names that would have been right."""
    text = str(error).splitlines()[0].rstrip(".")
    choices = _choices(words, source)
    if "No match in the defaults list" in text and (match := re.search(r"Could not override '([\w/]+)", text)):
        return (
            f"{match[1]!r} (command line): nothing chooses a {match[1]} that this could replace; a task source "
            "of your own has to: begin its YAML file as conf/data/tabular.yaml begins"
        )
    if choices == words:  # without them there is no config to look names up in
        return f"{text} (config)"
    if match := re.search(r"Could not (?:override|delete from config) '?([\w.]+)", text):
        node: Any = plain_config(choices, source)
        *path, last = match[1].split(".")
        for key in path:
            node = node.get(key, {}) if isinstance(node, dict) else {}
        if isinstance(node, dict) and last not in node:
            return f"{match[1]!r} (command line): no such key; {known('.'.join(path), last, node)}"
    if text.startswith("Ambiguous value for argument"):
        return (
            f"{text.split(chr(39))[1]!r} (command line): several values; for a sweep add -m, for a list write key=[a,b]"
        )
    return f"{text} (config)" + (f": {str(error.__cause__).splitlines()[0]}" if error.__cause__ else "")
