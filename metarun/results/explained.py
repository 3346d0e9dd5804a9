"""What a setting means: all that conf/ and the sources say of a key, a choice or a group, as one record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from metarun.config.catalogue import SECTIONS, Catalogue, Choice, Setting
from metarun.config.class_text import ClassText, class_text
from metarun.config.folders import conf_dir
from metarun.config.keys import ENVIRONMENT, HYDRA, KEYS, policy
from metarun.errors import UsageError
from metarun.storage.records import Count, Record
from metarun.text import nearest, short_path

CONFIG = "metarun.config.schema.Config"
TYPES = {
    **{"bool": "true or false", "int": "an integer", "float": "a number", "str": "a word", "None": "null"},
    **{"list[int]": "a list of integers", "Sequence[int]": "a list of integers", "dict": "settings of its own"},
    **{"list[float]": "a list of numbers", "Sequence[float]": "a list of numbers"},
    **{"tuple[float, float]": "two numbers, [a,b]", "dict[str, Any]": "settings of its own"},
}
GIVEN = ("model", "input_shape", "outputs")  # which the run gives to a constructor
MODEL = "the learner; each task source chooses its usual one"
OTHERS = HYDRA | ENVIRONMENT
INTERPOLATION = re.compile(r"\$\{((?:suggested|needs)\.\w+)\}")


class Named(Record):
    """A name that can be typed, and what it means."""

    name: str  # such as maml, or algo.inner_lr
    means: str = ""
    default: str | None = None  # of a key, as YAML has it; None: it has none, or settings of its own
    type: str = ""  # of a field of a record


class Where(Record):
    """A file that has a key."""

    choice: str  # such as algo=maml; config: the root
    default: str | None  # as typed there; None: settings of its own
    means: str = ""  # its comment
    file: str
    line: Count


class Reader(Record):
    """A class that takes a setting, or is built from a choice."""

    name: str  # dotted
    means: str  # what its docstring says


class Explained(Record):
    """What `metarun explain format=json` prints: of a key, a choice (algo=maml), a group (algo), or of all ('')."""

    name: str  # as one types it
    means: str = ""  # in a line; of a choice the comment that its file begins with, in lines; '' where `files` differ
    text: str = ""  # of a choice: the docstring of its module, with formula and paper
    default: str | None = None  # of a key as YAML has it, where the config has it without words; of a group a name
    suggested: dict[str, str] = Field(default={})  # values of the default by choice, where it depends on them
    type: str = ""  # of a key: a number, an integer or null, ...
    words: list[str] = Field(default=[])  # of a key: the words that it may be
    choices: list[Named] = Field(default=[])  # of a group: what can be chosen; of a choice: what it chooses
    files: list[Where] = Field(default=[])  # that have the key, or of a choice its own
    readers: list[Reader] = Field(default=[])
    settings: list[Named] = Field(default=[])  # of a choice or of all: keys
    see_also: list[str] = Field(default=[])  # of a key: that of the test in its place, as data.eval_shots
    resume: bool | None = None  # of a key: whether a run may go on with another value; None: it is no part of a run
    evaluate: bool | None = None  # whether it acts in meta-testing


def explain(name: str, catalogue: Catalogue) -> Explained:
    """What is known of a name: '' for all, a group, a choice or a key. Raises UsageError: there is no such name."""
    if not name:
        return _explain_all(catalogue)
    group, _, choice = name.partition("=")
    if group in catalogue.groups() and choice:
        return _explain_choice(group, choice, catalogue)
    found = find(group, catalogue)
    if "=" in found:
        return explain(found, catalogue)
    return _explain_group(found, catalogue) if found in catalogue.groups() else _explain_key(found, catalogue)


def find(name: str, catalogue: Catalogue) -> str:
    """The group, key or choice that a name means: itself, or the only one whose last part it is. Raises UsageError."""
    keys: dict[str, Any] = {**dict.fromkeys(catalogue.groups()), **catalogue.all_settings(), **OTHERS}
    if name in keys or name in (keys := keys | _unlisted(catalogue)):
        return name
    choices = [f"{group}={name}" for group in catalogue.groups() if name in catalogue.folders.options(group)]
    last = [key for key in keys if key.endswith(f".{name}") and not key.startswith(("suggested.", "needs."))]
    if len(found := choices + last) == 1:
        return found[0]
    if found:
        raise UsageError(f"{name!r} (explain): there are several: {', '.join(sorted(found))}; expected one of them")
    where, _, last_part = name.rpartition(".")
    here = [key for key in keys if where and key.rpartition(".")[0] == where]
    remedy = nearest(name, keys) or nearest(last_part, _names(catalogue))
    listed = f"; {where} has {', '.join(key.rpartition('.')[2] for key in here)}" if here else ""
    raise UsageError(f"{name!r} (explain): no such key or choice{listed}{remedy}; metarun explain lists the groups")


def _names(catalogue: Catalogue) -> list[str]:
    """Every name that stands for a choice, or for a key whose last part it is."""
    choices = [name for group in catalogue.groups() for name in catalogue.folders.options(group)]
    return choices + [key.rpartition(".")[2] for key in catalogue.all_settings()]


def _unlisted(catalogue: Catalogue) -> dict[str, None]:
    """Keys that a class takes, and no file lists."""
    found = {}
    for choice in (choice for section in SECTIONS for choice in catalogue.choices(section)):
        text = class_text(choice.target)
        names = set(text.args) - {*GIVEN, "settings"} if text else ()
        found |= {f"{choice.group}.{name}": None for name in sorted(names)}
    return found


def _explain_all(catalogue: Catalogue) -> Explained:
    """The groups and the keys of the root."""
    groups, root = catalogue.groups(), catalogue.root().listed()
    keys = [Named(name=key, means=found.comment, default=found.value) for key, found in root.items()]
    keys = [key for key in keys if "." not in key.name and key.name not in groups]
    return Explained(name="", choices=[_group(group, catalogue) for group in groups], settings=keys)


def _group(group: str, catalogue: Catalogue) -> Named:
    found = catalogue.root().settings.get(group)
    means = found.comment if found else MODEL if group == "model" else ""
    return Named(name=group, means=means, default=catalogue.default_of(group))


def _explain_group(group: str, catalogue: Catalogue) -> Explained:
    named = _group(group, catalogue)
    summaries = {choice.name: choice.summary for choice in catalogue.choices(group)}
    choices = [Named(name=name, means=summaries.get(name, "")) for name in catalogue.folders.options(group)]
    return Explained(name=group, means=named.means, default=named.default, choices=choices)


def _explain_choice(group: str, name: str, catalogue: Catalogue) -> Explained:
    """An algorithm, a task source, ...: its header, the docstring of its module, and its settings."""
    choice = catalogue.choice(group, name)
    if choice is None:
        names = catalogue.folders.options(group)
        if name in names:
            raise UsageError(f"{name!r} ({group}): its file cannot be read; expected settings in YAML, without tags")
        raise UsageError(f"{name!r} ({group}): expected one of {', '.join(names)}{nearest(name, names)}")
    text = class_text(choice.target)
    settings = [
        Named(name=key, means=found.comment or _says(text, key), default=found.value)
        for key, found in choice.listed().items()
        if found.value is not None and not key.startswith(("suggested.", "needs."))
    ]
    chosen = {f"{other}={chosen}" for other, chosen in choice.chooses.items() if other in SECTIONS}
    return Explained(
        name=f"{group}={name}",
        means=choice.header,
        text=text.module if text else "",
        suggested={key: str(found.value) for key, found in choice.settings.items() if _is_suggestion(key, found)},
        choices=[Named(name=other) for other in sorted(chosen)],
        files=[Where(choice=f"{group}={name}", default=None, file=_path(choice.file), line=1)],
        readers=[Reader(name=text.name, means=text.summary)] if text else [],
        settings=settings,
    )


def _is_suggestion(key: str, found: Setting) -> bool:
    return key.startswith(("suggested.", "needs.")) and found.value is not None


def _says(text: ClassText | None, key: str) -> str:
    """What a class says of a dotted key's last part."""
    return text.args.get(key.rpartition(".")[2], "") if text else ""


def _explain_key(key: str, catalogue: Catalogue) -> Explained:
    """A key: every file that has it, every class that takes it."""
    owners, (section, _, name) = catalogue.owners(key), key.partition(".")
    readers, types, words, acts = {}, [], [], section != "algo"
    for choice in catalogue.choices(section) if section in SECTIONS and name else []:
        text = class_text(choice.target)
        if text and name in {**text.args, **text.types}:
            types.append(text.types.get(name, ""))
            words += [word for word in text.words.get(name, []) if word not in words]
            acts |= name.partition(".")[0] not in text.training_only
            readers.setdefault(text.owners.get(name, text.name), text.args.get(name, ""))
    if not name and (text := class_text(CONFIG)):
        types, words = [text.types.get(key, "")], text.words.get(key, [])
    files = [
        Where(choice=_label(choice), default=found.value, means=found.comment, file=_path(found.file), line=found.line)
        for choice, found in owners
    ]
    usual = _usual(files, catalogue)
    said = {where.means for where in ([usual] if usual and usual.means else files) if where.means}
    shortest = min(said, key=len, default=OTHERS.get(key) or next(iter(readers.values()), ""))
    default = usual.default if usual else None
    found = policy(key) if key in KEYS or section in KEYS else None
    is_setting = found is not None and section not in ("suggested", "needs", "zip", "sweep", "experiment", "hydra")
    return Explained(
        name=key,
        means=shortest if all(text.startswith(shortest) for text in said) else "",
        default=default,
        suggested=_suggestions(default or "", catalogue),
        type=_type(types, [where.default for where in files]),
        words=words,
        see_also=[key for key in [f"{section}.eval_{name}"] if key in catalogue.all_settings() | _unlisted(catalogue)],
        files=files,
        readers=[Reader(name=owner, means=said) for owner, said in readers.items()],
        resume=found.resume if found and is_setting else None,
        evaluate=found.evaluate and acts if found and is_setting else None,
    )


def _usual(files: list[Where], catalogue: Catalogue) -> Where | None:
    """The file that decides where nobody chooses: the one that the config without words is made of."""
    usual = ["config", *(f"{group}={catalogue.default_of(group)}" for group in catalogue.groups())]
    found = {where.choice: where for where in files}
    return next((found[name] for name in reversed(usual) if name in found), None)


def _suggestions(default: str, catalogue: Catalogue) -> dict[str, str]:
    """The values that a default of `${suggested.X}` or `${needs.X}` comes to, by the choice that brings them."""
    found = INTERPOLATION.search(default)
    return {_label(choice): str(where.value) for choice, where in catalogue.owners(found[1])} if found else {}


def _label(choice: Choice) -> str:
    return f"{choice.group}={choice.name}" if choice.group else "config"


def _path(path: Path) -> str:
    """The file as a reader finds it: metarun's own below conf/."""
    own = conf_dir()
    return f"conf/{path.relative_to(own)}" if path.is_relative_to(own) else str(short_path(path))


def _type(annotations: list[str], defaults: list[str | None]) -> str:
    """What a setting may be, in words: by the annotation, or else by its defaults."""
    for annotation in filter(None, annotations):
        parts = [part.strip() for part in annotation.split("|")]
        if all(part in TYPES for part in parts):
            return " or ".join(TYPES[part] for part in parts)
    for default in defaults:
        if default is None:
            return "settings of its own"
        value = yaml.safe_load(default) if "${" not in default else None
        name = type(value).__name__
        if name == "str" and re.fullmatch(r"[\d.]+e-?\d+", default):
            name = "float"  # which YAML takes for a word, and Hydra does not
        if name in TYPES and value is not None:
            return TYPES[name]
    return ""
