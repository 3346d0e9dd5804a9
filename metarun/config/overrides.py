"""The words of the command line as Hydra's overrides, parsed once, and the combinations of a sweep."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import OverrideParseException

from metarun.config.folders import OWN, ConfigFolders
from metarun.errors import UsageError


class Overrides(NamedTuple):
    """Words of the command line, and what they are.

    Attributes:
        words: as they were typed.
        parsed: the override of each word.
        choices: the words that choose a file of a group, as algo=fomaml does.
        sweeps: the overrides that give several values.
    """

    words: list[str]
    parsed: list[Override]
    choices: list[str]
    sweeps: list[Override]

    @property
    def fixed(self) -> list[str]:
        """The words that give one value."""
        return [word for word, override in zip(self.words, self.parsed, strict=True) if override not in self.sweeps]


def parse(words: Iterable[str], folders: ConfigFolders = OWN) -> Overrides:
    """The overrides that these words are.

    Raises:
        UsageError: a word is not an override, or a key is given twice.
    """
    words = list(words)
    parsed = [_parse(word) for word in words]
    seen: dict[str, str] = {}
    for word, override in zip(words, parsed, strict=True):
        key = override.get_key_element().lstrip("+~")
        if not key:
            raise UsageError(f"{word!r} (command line): expected key=value")
        if key in seen:
            raise UsageError(f"{key!r} (command line): given twice, as {seen[key]} and {word}; give it once")
        seen[key] = word
    groups = [o for o in parsed if not o.is_hydra_override() and _is_group(o.key_or_group, folders)]
    return Overrides(words, parsed, [o.input_line or "" for o in groups], [o for o in parsed if o.is_sweep_override()])


def combinations(overrides: Overrides, folders: ConfigFolders) -> Iterator[list[str]]:
    """The words of each job of a sweep, in the order of Hydra's basic sweeper.

    A range has no place here: its values are chosen as the search goes on.

    Raises:
        UsageError: a word gives no value.
    """
    values = []
    for word, override in zip(overrides.words, overrides.parsed, strict=True):
        if override not in overrides.sweeps:
            values.append([word])
        elif override.is_discrete_sweep() and not override.is_hydra_override():
            values.append([f"{override.get_key_element()}={value}" for value in _values(word, override, folders)])
    return map(list, itertools.product(*values))


def _values(word: str, override: Override, folders: ConfigFolders) -> list[str]:
    """The values that an override sweeps over."""
    key, value = override.get_key_element(), override.value()
    names = folders.options(key)
    values = value.filter(names) if isinstance(value, Glob) else list(override.sweep_string_iterator())
    if not values:
        those = f"one of {', '.join(names)}" if names else f"values, as in {key}=0,1,2"
        raise UsageError(f"{word!r} (command line): gives no value to sweep over; expected {those}")
    return values


def _parse(word: str) -> Override:
    try:
        return OverridesParser.create().parse_overrides([word])[0]
    except (OverrideParseException, IndexError) as error:
        raise UsageError(
            f"{word!r} (command line): expected key=value; a value with = , or other special characters goes in "
            "quotes of its own: 'key=\"a=b\"'"
        ) from error


def _is_group(name: str, folders: ConfigFolders) -> bool:
    return any((path / name).is_dir() for path in folders.paths())
