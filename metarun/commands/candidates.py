"""What may follow on a command line that is being typed: verbs, settings, their values, runs and files.

It asks the same places as the commands themselves: the parsers of the verbs, the files of conf/ and the constructors'
own lists of words, all as text. Neither torch nor Hydra is imported, for a TAB has to be answered in 0.3 s.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from metarun.commands.help import summarize
from metarun.commands.ls import STATES
from metarun.commands.parser import PLACES, Parser
from metarun.config.catalogue import SECTIONS, Catalogue
from metarun.config.class_text import class_text
from metarun.config.folders import ConfigFolders
from metarun.config.keys import HYDRA
from metarun.config.typecheck import INTERNAL
from metarun.files import read

CONFIG = "metarun.config.schema.Config"
PATHS = ("data.root", "data.file", "hydra.run.dir", "hydra.sweep.dir", "support", "query", "out", "save")
OPTIONS = {
    **{"-m": "a sweep", "-cd": "a folder with choices of your own", "-cp": "a saved config: RUN/.hydra"},
    **{"--cfg": "print the config", "--help": "what there is to type", "--version": "of metarun"},
}
VALUES = {
    "--cfg": ("job", "hydra", "all"),
    "hydra/launcher": ("basic", "joblib", "ray", "submitit_local", "submitit_slurm"),
    "hydra/sweeper": ("basic", "optuna"),
    "hydra/sweeper/sampler": ("tpe", "random", "cmaes", "grid"),
    "hydra/sweeper/pruner": ("median", "halving"),
    "status": STATES,  # of verbs
    "sort": ("began", "val", "test", "step", "status", "algo", "data", "folder"),
    "yes": ("true",),
}
RUNS = ("DIR", "RUN")  # metavars of run directories begin so
NOT_OF_RUN = ("experiment", "sweep", "zip", "algo", "model", "seed")  # keys that a saved run takes no more
MOST_RUNS = 50  # that are listed one by one; of more, their folders
LOOKED_AT = 4000  # folders, at most
SMALL = 64_000  # bytes


class Candidate(NamedTuple):
    """A word that may stand in the place of the one that is being typed.

    Attributes:
        text: all of it.
        means: in a few words; '' where that is plain.
        whole: whether the word may end there; else more of it is to be typed.
    """

    text: str
    means: str = ""
    whole: bool = True


def find_candidates(words: list[str], current: str, verbs: Mapping[str, Any]) -> list[Candidate]:
    """The words that may stand in the place of `current`, which is being typed after `words`.

    A name that a terminal cannot show is none: it would steer that, or be two lines.
    """
    before = words[-1] if words else ""
    catalogue = Catalogue(ConfigFolders(extra=_folder_of_choices(words)))
    if before in ("-cd", "--config-dir"):
        found = _paths(current, folders_only=True)
    elif before in ("-cp", "--config-path"):
        found = (Candidate(f"{run.text}/.hydra", run.means, run.whole) if run.whole else run for run in _runs(current))
    elif before in VALUES:
        found = map(Candidate, VALUES[before])
    elif words and words[0] in ("help", *verbs):
        found = _after_verb(words[0], words[1:], current, verbs, catalogue)
    else:
        found = _settings(current, words, catalogue)
        if not words:
            found = [*(Candidate(name, summarize(verb)) for name, verb in verbs.items()), *found]
    return [candidate for candidate in found if candidate.text.startswith(current) and candidate.text.isprintable()]


def _folder_of_choices(words: list[str]) -> Path | None:
    """The folder that -cd names; None where there is none."""
    for option, name in pairwise(words):
        if option in ("-cd", "--config-dir") and (path := Path(name).expanduser()).is_dir():
            return path.resolve()
    return None


def _after_verb(
    name: str, words: list[str], current: str, verbs: Mapping[str, Any], catalogue: Catalogue
) -> Iterable[Candidate]:
    if name == "help":
        return [Candidate(verb, summarize(module)) for verb, module in verbs.items()]
    parser = Parser(name, verbs[name])
    own = tuple(getattr(verbs[name], "KEYS", ()))  # of a verb whose words are no settings of a config
    key, equals, value = current.partition("=")
    if equals and key in parser.settings:
        action = parser.settings[key]
        if names := action.choices or VALUES.get(key) or catalogue.folders.options(key):
            return _listed(key, value, map(str, names))
        return _values_in_files(key, value) if key in PATHS or str(action.metavar).startswith(PLACES) else ()
    if equals and key in own:
        return _values_in_files(key, value)
    places = [word for word in words if "=" not in word and word[:1] != "-"]
    found = list(_place(parser, places, current, verbs, catalogue)) if not equals or name == "explain" else []
    of_run = any(str(action.metavar).startswith(RUNS) for action in parser.positionals)
    if parser.takes_settings and not own and (places or equals or not of_run):
        found += _settings(current, [*_choices_of_run(places), *words], catalogue, of_run)
    if not equals:
        found += [Candidate(f"{key}=", whole=False) for key in dict.fromkeys((*own, *parser.settings))]
        found += [Candidate(option) for option in parser._option_string_actions if current[:1] == "-"]
    return found


def _place(
    parser: Parser, places: list[str], current: str, verbs: Mapping[str, Any], catalogue: Catalogue
) -> Iterable[Candidate]:
    """What may stand in the next place after a verb, by the metavar that the verb has for it."""
    actions = [action for action in parser.positionals if not str(action.metavar).startswith("key=")]
    action = actions[min(len(places), len(actions) - 1)] if actions else None
    if action is None or (len(places) >= len(actions) and action.nargs not in ("*", "+")):
        return []
    if action.choices:
        return map(Candidate, map(str, action.choices))
    if str(action.metavar) == "KEY":
        choices = [f"{g}={name}" for g in catalogue.groups() for name in catalogue.folders.options(g)]
        keys = [*catalogue.groups(), *catalogue.all_settings(), *HYDRA, *verbs, "json"]
        keys += [f"json.{name}" for name, verb in verbs.items() if hasattr(verb, "PRINTS")]
        return [Candidate(text) for text in [*keys, *(choices if "=" in current else ())]]
    if str(action.metavar).startswith(RUNS):
        return _runs(current, folders=action.nargs in ("*", "+"))
    return _paths(current) if str(action.metavar).startswith("FILE") else []


def _choices_of_run(places: list[str]) -> list[str]:
    """The words that chose a saved run's parts, algo=maml and such; [] where none is named, or it cannot be read."""
    with suppress(OSError, ValueError, yaml.YAMLError, IndexError, AttributeError):
        plain = yaml.safe_load(read(Path(places[0], ".hydra", "choices.yaml").expanduser(), SMALL))
        return [f"{group}={name}" for group, name in plain.items() if isinstance(name, str)]
    return []


def _settings(current: str, words: list[str], catalogue: Catalogue, of_run: bool = False) -> Iterable[Candidate]:
    """Settings of a config, given the words that choose its parts; of a saved run those that it may still take."""
    sign = current[: len(current) - len(current.lstrip("+~"))]
    key, equals, value = current[len(sign) :].partition("=")
    given = {word.lstrip("+~").partition("=")[0]: word.partition("=")[2] for word in words}
    hidden = {*given, *(NOT_OF_RUN if of_run else ())}
    if equals:
        found = _values(key, value, given, catalogue)
        return [Candidate(sign + text, means, whole) for text, means, whole in found]
    if not of_run and current.startswith("-"):
        return [Candidate(option, means) for option, means in OPTIONS.items()]
    return [Candidate(sign + text, means, False) for text, means in _keys(key, given, hidden, catalogue)]


def _keys(key: str, given: dict[str, str], hidden: set[str], catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """The keys that may be set, each with its `=`; of a section its name and a dot, until that is typed."""
    root, groups = catalogue.root(), catalogue.groups()
    found = {group: root.settings[group].comment if group in root.settings else "" for group in groups}
    for choice in catalogue.chosen(given):
        found |= {name: setting.comment for name, setting in choice.listed().items() if setting.value is not None}
    sections = [section for section in SECTIONS if any(name.startswith(f"{section}.") for name in found)]
    found |= HYDRA if key.startswith("hydra") else {}
    for name, means in found.items():
        section, dot, _ = name.partition(".")
        if name not in hidden and section not in INTERNAL and (not dot or key.startswith((f"{section}.", "hydra"))):
            yield f"{name}=", means
    if "." not in key:
        yield from ((f"{section}.", "") for section in sections)


def _values(key: str, value: str, given: dict[str, str], catalogue: Catalogue) -> Iterable[Candidate]:
    """The values of a key, also of one that has some already, as in algo=maml,fo."""
    if key in PATHS:
        return _values_in_files(key, value)
    if key in VALUES:
        return _listed(key, value, VALUES[key])
    if key in catalogue.groups():
        means = {choice.name: choice.summary for choice in catalogue.choices(key)}
        return _listed(key, value, catalogue.folders.options(key), means)
    section, _, name = key.partition(".")
    for choice in catalogue.chosen(given):
        if name and choice.group == section and (text := class_text(choice.target)) and name in text.words:
            return _listed(key, value, text.words[name])
        if key in choice.settings and choice.settings[key].value in ("true", "false"):
            return _listed(key, value, ("true", "false"))
    text = None if name else class_text(CONFIG)
    return _listed(key, value, text.words.get(key, ())) if text else ()


def _listed(key: str, value: str, names: Iterable[str], means: Mapping[str, str] | None = None) -> Iterator[Candidate]:
    """The names that may come next in a list with commas, without those that are in it."""
    head = value[: value.rfind(",") + 1]
    used = head.strip("[").split(",")
    for name in names:
        if name not in used:
            yield Candidate(f"{key}={head}{name}", (means or {}).get(name, ""))


def _values_in_files(key: str, value: str) -> Iterator[Candidate]:
    return (Candidate(f"{key}={text}", means, whole) for text, means, whole in _paths(value))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder as typed, sorted; [] where it cannot be read."""
    with suppress(OSError, RuntimeError):
        return sorted(islice(os.scandir(os.path.expanduser(folder) or "."), LOOKED_AT), key=lambda entry: entry.name)
    return []


def _is_dir(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_dir()
    return False


def _paths(typed: str, folders_only: bool = False) -> Iterator[Candidate]:
    """Files and folders that begin so."""
    folder = typed[: typed.rfind("/") + 1]
    for entry in _entries(folder):
        if entry.name[0] == "." and not typed[len(folder) :].startswith("."):
            continue
        if is_folder := _is_dir(entry):
            yield Candidate(f"{folder}{entry.name}/", whole=False)
        if not folders_only and not is_folder:
            yield Candidate(f"{folder}{entry.name}")


def _runs(typed: str, folders: bool = False) -> Iterator[Candidate]:
    """Run directories that begin so, the newest last name first; of very many their folders.

    Args:
        typed: what is typed of the path.
        folders: whether a folder of runs will do as well.
    """
    folder, budget = typed[: typed.rfind("/") + 1], [LOOKED_AT]
    for entry in _entries(folder):
        if not _is_dir(entry) or not f"{folder}{entry.name}".startswith(typed) or entry.name[0] == ".":
            continue
        below = list(islice(_runs_below(entry.path, 4, budget), MOST_RUNS + 1))
        inside = [f"{folder}{entry.name}{path[len(entry.path) :]}" for path in below]
        if inside and (folders or len(inside) > MOST_RUNS) and below != [entry.path]:
            yield Candidate(f"{folder}{entry.name}/", whole=False)
        if len(inside) <= MOST_RUNS:
            yield from (Candidate(path) for path in reversed(inside))


def _runs_below(path: str, depth: int, budget: list[int]) -> Iterator[str]:
    """The path itself where it is a run, else the runs in it, in the order of their names."""
    budget[0] -= 1
    if os.path.isdir(f"{path}/.hydra"):
        yield path
    elif depth and budget[0] > 0:
        for entry in _entries(path):
            if entry.name[0] != "." and _is_dir(entry):
                yield from _runs_below(entry.path, depth - 1, budget)
