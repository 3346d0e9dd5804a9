"""The words of the command line as Hydra's overrides, parsed once, and the combinations of a sweep."""

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override
from hydra.errors import HydraException

from metarun.config.folders import OWN, ConfigFolders
from metarun.errors import UsageError

NOTHING = {f"{group}=null": f"{group}=[]" for group in ("logger", "sweep", "experiment")}
ZIP = "zip"  # a key of the command line, see combinations()
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
PLACES = ("data.root", "data.file")  # of data: paths that no name of a folder has in it
NAMES = ("data.split", "data.text", "data.target", "data.task")  # of splits and columns, which may be called 2024
PLACE = re.compile(rf"""(\+*(?:{"|".join(map(re.escape, (*FOLDERS, *PLACES)))}))=([^"'\\]*)""")  # key, value unquoted
FOREIGN = re.compile(r"[^\x00-\x7f]")  # Hydra's grammar takes it in quotes alone, as it does these in a path:
NUMBER = re.compile(r"[+-]?[\d_]*\.?[\d_]+(e[+-]?\d+)?", re.IGNORECASE)
STRANGE = re.compile(r"[^\w\-/%.+*@?|:$ ]|[^\x00-\x7f]")


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


def quote(text: str) -> str:
    """A text as the value of an override. To Hydra a backslash is one, but for those right before a quote."""
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + found[2].replace('"', '\\"'), text)
    return f'"{escaped}"'


def spell_for_hydra(words: Iterable[str]) -> list[str]:
    """The words, as Hydra wants them.

    Those that choose nothing are a list of no names in place of null, several loggers are several words, and letters
    that its grammar does not have are in quotes.
    """
    return [theirs for word in words for theirs in _several(word) or [NOTHING.get(word.lower(), _quote_letters(word))]]


def quote_path(path: str | Path) -> str:
    """A path as the value of an override, with the home folder in the place of ~."""
    return quote(os.path.expanduser(path))


def _with_home(word: str) -> str:
    """The word, with the home folder in the place of ~ where a folder or file begins with it: to Hydra ~ is no value.

    A list of them stays one; what has quotes of its own stays as it is.
    """
    place = PLACE.fullmatch(word)
    paths = [path.strip() for path in place[2].split(",")] if place else []
    if not place or not any(path.startswith("~") for path in paths):
        return word
    paths = [quote_path(path) if path.startswith("~") else path for path in paths]
    return f"{place[1]}={','.join(paths)}"


def _quote_letters(word: str) -> str:
    """The word, with its values in quotes if they have letters outside of ASCII, or in a path any special ones.

    So has a name or a place that looks like a number, as 2024. What has quotes already, or is a list, settings or a
    call of one of Hydra's functions, stays as it is.
    """
    key, _, text = word.partition("=")
    is_path = key.lstrip("+") in (*FOLDERS, *PLACES)
    is_name = key.lstrip("+") in (*NAMES, *PLACES)
    values = [value.strip() for value in text.split(",")]

    def special(value: str) -> bool:
        return bool((STRANGE if is_path else FOREIGN).search(value) or (is_name and NUMBER.fullmatch(value)))

    if not any(map(special, values)):
        return word
    parser = OverridesParser.create()
    call = re.match(r"(\w+)\(", text)
    own = re.search(r"""["'\\=]|^[\[{~]""" if is_path else r"""["'\\()\[\]{}=]""", text)
    cut = any(value.count(left) != value.count(right) for value in values for left, right in ("()", "[]", "{}"))
    if own or cut or "" in values or (call and call[1] in parser.functions.functions):
        return word
    return f"{key}={','.join(quote(value) if special(value) else value for value in values)}"


def _unquote_letters(word: str) -> str:
    """The word that _quote_letters() has put into quotes, as it was before."""
    if (quoted := re.fullmatch(r'([^="]+)="([^"\\]*)"', word)) and _quote_letters(f"{quoted[1]}={quoted[2]}") == word:
        return f"{quoted[1]}={quoted[2]}"
    return word


def _several(word: str) -> list[str]:
    """The words that choose several loggers, as logger=[tensorboard,mlflow] does: each has a place by its name.

    Hydra would write the settings of one over those of the other.
    """
    if not (several := re.fullmatch(r"logger=\[\s*(\w+(?:\s*,\s*\w+)+)\s*\]", word)):
        return []
    names = dict.fromkeys(re.findall(r"\w+", several[1]))
    return ["logger=[]", *(f"+logger@logger.{name}={name}" for name in names)]


def spell_apart(words: Iterable[str]) -> list[str]:
    """The words, each setting in one of its own: algo={a:1,b:2} as algo.a=1 algo.b=2."""
    found = []
    for override in parse(words).parsed:
        key, value = override.get_key_element(), override.value()
        if isinstance(value, dict) and "." not in key:
            found += [f"{key}.{name}={Override._get_value_element_as_str(v)}" for name, v in value.items()]
        else:
            found.append(str(override.input_line))
    return found


def spell_as_typed(words: Iterable[str]) -> list[str]:
    """The words that Hydra has been given, as they were before."""
    words, back = list(words), {theirs: ours for ours, theirs in NOTHING.items()}
    if names := [word.rpartition("=")[2] for word in words if word.startswith("+logger@logger.")]:
        words = [word for word in words if not word.startswith("+logger@logger.")]
        back["logger=[]"] = f"logger=[{','.join(names)}]"
    return [_unquote_letters(back.get(word, word).removeprefix("++")) for word in words]


def parse(words: Iterable[str], folders: ConfigFolders = OWN) -> Overrides:
    """The overrides that these words are, with the home folder for ~ in places.

    Raises UsageError where a word is none, a choice has no name, or a key is given twice.
    """
    overrides, seen = Overrides([], [], [], []), {}
    for word in map(_with_home, words):
        try:
            override = OverridesParser.create().parse_override(_quote_letters(word))
        except HydraException as error:
            raise UsageError(
                f"{word!r} (command line): expected key=value; a value with = , or other special characters goes in "
                "quotes of its own: 'key=\"a=b\"'"
            ) from error
        override.input_line = word
        key = override.get_key_element().lstrip("+~")
        if not key:
            raise UsageError(f"{word!r} (command line): expected key=value")
        if key in seen:
            raise UsageError(f"{key!r} (command line): given twice, as {seen[key]} and {word}; give it once")
        seen[key] = word
        overrides.parsed.append(override)
        found = folders.is_group(override.key_or_group)
        if found and not override.is_hydra_override() and not _gives_settings(override):
            overrides.choices.append(word)
            if not _names_choices(override):
                raise UsageError(f"{word!r} (command line): expected {key}=NAME; see metarun --help, or leave it out")
        if override.is_sweep_override():
            overrides.sweeps.append(override)
        else:
            overrides.fixed.append(word)
    return overrides


def _names_choices(override: Override) -> bool:
    """Whether a word that chooses has a name, several, or the word for none; model=nan has a number."""
    none = override.input_line.lower() in (*NOTHING, *NOTHING.values()) or override.is_delete()
    value = override.value()
    return none or override.is_sweep_override() or (isinstance(value, (str, list)) and bool(value))


def _gives_settings(override: Override) -> bool:
    """Whether the value is settings, or several such, as in algo={inner_lr:0.1,meta_lr:1e-3}."""
    value = override.value()
    return isinstance(value, dict) or (isinstance(value, ChoiceSweep) and isinstance(value.list[0], dict))


def combinations(
    overrides: Overrides, folders: ConfigFolders, zipped: Iterable[list[str]] = (), only_choices: bool = False
) -> Iterator[list[str]]:
    """The words of each job of a sweep, in the order of Hydra's basic sweeper.

    A search chooses from a range as it goes on; here its lower end stands for it.

    Args:
        overrides: all words.
        folders: where the names lie that a glob picks from.
        zipped: lists of keys that take their values together: the first of each, then the second of each, and so on.
        only_choices: leave the sweeps as they are but those that choose files.

    Raises:
        UsageError: a word has no values; or keys are zipped that are not swept, or have different numbers of values.
    """
    units: list[list[list[str]]] = []  # of each key or list of zipped keys: the words for each of its values
    by_key = {override.get_key_element().lstrip("+"): override for override in overrides.parsed}
    together = {key: keys for keys in zipped for key in keys}
    for key, override in by_key.items():
        keys = together.get(key, [key])
        if key != keys[0]:
            continue
        members = [by_key[name] for name in keys if name in by_key]
        words = [member.input_line for member in members]
        if not override.is_sweep_override() or (only_choices and not set(words) & set(overrides.choices)):
            units.append([words])
        else:
            columns = [_words(member, folders) for member in members]
            units.append([list(values) for values in zip(*columns, strict=True)])
    return (list(itertools.chain(*words)) for words in itertools.product(*units))


def check_zipped(overrides: Overrides, folders: ConfigFolders, zipped: list[list[str]]) -> None:
    """Raises UsageError unless the keys that are zipped are swept, over as many values, and each is named once."""
    numbers = {
        override.get_key_element().lstrip("+"): len(_words(override, folders))
        for override in overrides.sweeps
        if override.is_discrete_sweep()
    }
    named = [key for keys in zipped for key in keys]
    for key in named:
        if key not in numbers:
            raise UsageError(f"{key!r} ({ZIP}): expected a key with several values, as in {key}=A,B")
        if named.count(key) > 1:
            raise UsageError(f"{key!r} ({ZIP}): named twice; name it once")
    for override in overrides.sweeps:
        if override.get_key_element() in named and getattr(override.value(), "shuffle", False):
            raise UsageError(f"{override.input_line!r} ({ZIP}): expected values in an order; leave the shuffle out")
    for keys in zipped:
        if len({numbers[key] for key in keys}) > 1:
            text = ", ".join(f"{key} has {numbers[key]}" for key in keys)
            raise UsageError(f"{text} values ({ZIP}): expected as many of each, for they are taken together")


def _words(override: Override, folders: ConfigFolders) -> list[str]:
    """The words that stand for the values of a sweep."""
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}"]
    names = folders.options(key)
    values = value.filter(names) if isinstance(value, Glob) else list(override.sweep_string_iterator())
    if not values:
        expected = f"one of {', '.join(names)}" if names else f"values, as in {key}=0,1,2"
        raise UsageError(f"{override.input_line!r} (command line): gives no value to sweep over; expected {expected}")
    return [_unquote_letters(f"{key}={value}") for value in values]
