"""What can be set, as the files of conf/ say it: every key with its comment, its default and the choices that have it.

It follows the defaults lists of Hydra by text, without Hydra: `metarun explain`, the completion of shells and the
remedies in messages need names and comments, not a checked config, and within a tenth of a second.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from metarun.config.folders import OWN, ConfigFolders
from metarun.config.yaml_text import Text, read_text

SECTIONS = ("algo", "data", "model", "device", "engine", "logger")  # groups whose settings are keys of the config
ROOT = "config"


@dataclass(frozen=True)
class Setting:
    """A key of the composed config, as one file has it.

    Attributes:
        key: dotted, from the root.
        value: its default as typed, such as `0.4`, `null` or `${suggested.inner_lr}`; None: settings of its own.
        comment: of the file; '' without.
        file: it stands in, and in which line.
    """

    key: str
    value: str | None
    comment: str
    file: Path
    line: int


@dataclass
class Choice:
    """A file that can be chosen, with what its defaults list brings.

    Attributes:
        group, name: as in algo=maml.
        header: the comment that its file begins with.
        file: it stands in.
        settings: by key; of a file that others complete, the last one counts.
        chooses: what it chooses in other groups, such as {"model": "conv4"}.
    """

    group: str
    name: str
    header: str
    file: Path
    settings: dict[str, Setting] = field(default_factory=dict)
    chooses: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first sentence of its header, without commands."""
        lines = [line for line in self.header.splitlines() if not line.lstrip().startswith("metarun ")]
        return re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(" ".join(lines).split()))[0]

    @property
    def target(self) -> str | None:
        """The dotted name of the class that is built from it."""
        found = self.settings.get(f"{self.group}._target_")
        return found.value if found else None

    def listed(self) -> dict[str, Setting]:
        """Its settings that a user sets: not `_target_` and the like, nor what only other files read."""
        return {key: found for key, found in self.settings.items() if not key.rpartition(".")[2].startswith("_")}


class Catalogue:
    """All that can be set, in metarun's own folder and in that of the user's; every file is read once.

    Args:
        folders: with the groups.
    """

    def __init__(self, folders: ConfigFolders = OWN):
        self.folders = folders
        self._read: dict[tuple[str, str], Choice | None] = {}

    def groups(self) -> list[str]:
        """The names of the groups, such as algo."""
        found = {path.name for folder in self.folders.paths() for path in folder.iterdir() if path.is_dir()}
        return sorted(name for name in found if name != "hydra" and self.folders.options(name))

    def root(self) -> Choice:
        """config.yaml itself."""
        if ("", ROOT) not in self._read:
            self._read["", ROOT] = _read_root(self.folders)
        return cast(Choice, self._read["", ROOT])

    def choice(self, group: str, name: str) -> Choice | None:
        """A choice; None where there is no such file, or it cannot be read."""
        if (group, name) not in self._read:
            self._read[group, name] = _read_choice(self.folders, group, name)
        return self._read[group, name]

    def choices(self, group: str) -> list[Choice]:
        """All choices of a group that can be read, in the order of their names."""
        return [found for name in self.folders.options(group) if (found := self.choice(group, name))]

    def everything(self) -> Iterator[Choice]:
        """The root, and all choices but experiments, which set what others have."""
        yield self.root()
        for group in self.groups():
            if group != "experiment":
                yield from self.choices(group)

    def default_of(self, group: str) -> str | None:
        """The choice that is taken where nobody chooses; None: none is."""
        chosen = self.root().chooses
        source = self.choice("data", chosen.get("data", ""))
        return chosen.get(group) or (source.chooses.get(group) if source else None)

    def chosen(self, words: dict[str, str]) -> list[Choice]:
        """The files that a config is made of where these words, by key, choose; the root first."""
        names = dict(self.root().chooses)
        if source := self.choice("data", words.get("data", names.get("data", ""))):
            names |= source.chooses
        names |= {group: name for group, name in words.items() if group in SECTIONS}
        found = [self.choice(group, name) for group, name in names.items()]
        return [self.root(), *(choice for choice in found if choice)]

    def owners(self, key: str) -> list[tuple[Choice, Setting]]:
        """The files that have a key, in order, each with its setting."""
        return [(choice, choice.settings[key]) for choice in self.everything() if key in choice.settings]

    def all_settings(self) -> dict[str, Setting]:
        """Every key that can be set in some config, the first setting of each that has a comment."""
        found: dict[str, Setting] = {}
        for choice in self.everything():
            for key, setting in choice.listed().items():
                if key not in found or (setting.comment and not found[key].comment):
                    found[key] = setting
        return found


def _read_root(folders: ConfigFolders) -> Choice:
    text = read_text(folders.paths()[0] / "config.yaml")
    root = Choice("", ROOT, text.header, text.path)
    for entry in text.defaults:
        if isinstance(entry, dict):
            root.chooses |= {group: name for group, name in entry.items() if isinstance(name, str)}
    _add(root, text, "")
    for row in text.path.read_text(encoding="utf-8").splitlines():  # what a comment beside a default says of its group
        if found := re.fullmatch(r"  - (\w+): (\S+)(?: # (.*))?", row):
            root.settings[found[1]] = Setting(found[1], found[2], found[3] or "", text.path, 0)
    return root


def _read_choice(folders: ConfigFolders, group: str, name: str) -> Choice | None:
    if (path := _find(folders, f"{group}/{name}")) is None:
        return None
    try:
        text = read_text(path)
    except (OSError, ValueError):
        return None
    choice = Choice(group, name, text.header, path)
    _follow(choice, text, "" if text.is_global else group, group, folders, 0)
    return choice


def _find(folders: ConfigFolders, name: str) -> Path | None:
    paths = [folder / f"{name}.yaml" for folder in folders.paths()]
    return next((path for path in paths if path.is_file()), None)


def _follow(choice: Choice, text: Text, package: str, group: str, folders: ConfigFolders, depth: int) -> None:
    """Adds a file's settings and those of its defaults list, in that list's order."""
    entries = text.defaults if "_self_" in text.defaults else [*text.defaults, "_self_"]
    for entry in entries:
        if entry == "_self_":
            _add(choice, text, package)
        elif isinstance(entry, dict):
            pairs = [(str(key).lstrip("/"), value) for key, value in entry.items()]
            choice.chooses |= {key: value for key, value in pairs if isinstance(value, str) and " " not in key}
        elif isinstance(entry, str) and depth < 8:
            _follow_name(choice, entry, package, group, folders, depth)


def _follow_name(choice: Choice, entry: str, package: str, group: str, folders: ConfigFolders, depth: int) -> None:
    name, _, where = entry.partition("@")
    name = name.lstrip("/") if name.startswith("/") else f"{group}/{name}"
    path = _find(folders, name)
    if path is None:
        return
    try:
        text = read_text(path)
    except (OSError, ValueError):
        return
    if text.is_global:
        inner = ""
    elif where in ("", "_here_"):
        inner = package or ("" if where else name.partition("/")[0])
    else:
        inner = where.removeprefix("_global_.")
    _follow(choice, text, inner, name.rpartition("/")[0], folders, depth + 1)


def _add(choice: Choice, text: Text, package: str) -> None:
    for line in text.lines:
        key = f"{package}.{line.key}".lstrip(".")
        before = choice.settings.get(key)
        setting = Setting(key, line.value, line.comment, text.path, line.number)
        if before and not line.comment:  # the file that it completes says what it means
            setting = replace(setting, comment=before.comment)
        choice.settings[key] = setting
