"""The words of the command line as Hydra's overrides, parsed once, and the combinations of a sweep."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from metarun.config.folders import OWN, ConfigFolders
from metarun.errors import UsageError


class Overrides(NamedTuple):
    """Words of the command line, and what they are.

    Attributes:
        parsed: the override of each word, which is its `input_line`.
        choices: the words that choose a file of a group, as algo=fomaml does.
        sweeps: the overrides that give several values.
        fixed: the words that give one value.
    """

    parsed: list[Override]
    choices: list[str]
    sweeps: list[Override]
    fixed: list[str]


def parse(words: Iterable[str], folders: ConfigFolders = OWN) -> Overrides:
    """The overrides that these words are. Raises UsageError where a word is none, or a key is given twice."""
    overrides, seen = Overrides([], [], [], []), {}
    for word in words:
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException as error:
            raise UsageError(
                f"{word!r} (command line): expected key=value; a value with = , or other special characters goes in "
                "quotes of its own: 'key=\"a=b\"'"
            ) from error
        key = override.get_key_element().lstrip("+~")
        if not key:
            raise UsageError(f"{word!r} (command line): expected key=value")
        if key in seen:
            raise UsageError(f"{key!r} (command line): given twice, as {seen[key]} and {word}; give it once")
        seen[key] = word
        overrides.parsed.append(override)
        group = override.key_or_group
        if not override.is_hydra_override() and any((path / group).is_dir() for path in folders.paths()):
            overrides.choices.append(word)
        if override.is_sweep_override():
            overrides.sweeps.append(override)
        else:
            overrides.fixed.append(word)
    return overrides


def combinations(overrides: Overrides, folders: ConfigFolders) -> Iterator[list[str]]:
    """The words of each job of a sweep, in the order of Hydra's basic sweeper.

    A range has no place here: its values are chosen as the search goes on. Raises UsageError for a word without values.
    """
    values = []
    for override in overrides.parsed:
        if not override.is_sweep_override():
            values.append([override.input_line])
        elif override.is_discrete_sweep() and not override.is_hydra_override():
            values.append([f"{override.get_key_element()}={value}" for value in _values(override, folders)])
    return map(list, itertools.product(*values))


def _values(override: Override, folders: ConfigFolders) -> list[str]:
    """The values that an override sweeps over."""
    key, value = override.get_key_element(), override.value()
    names = folders.options(key)
    values = value.filter(names) if isinstance(value, Glob) else list(override.sweep_string_iterator())
    if not values:
        expected = f"one of {', '.join(names)}" if names else f"values, as in {key}=0,1,2"
        raise UsageError(f"{override.input_line!r} (command line): gives no value to sweep over; expected {expected}")
    return values
