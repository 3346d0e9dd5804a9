"""The folders of runs: as typed, in a sweep by what its jobs do not share, and found again when it is repeated."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from metarun.config.keys import key_of, leaves, policy
from metarun.config.overrides import FOLDERS, PLACES, parse, quote_path
from metarun.config.schema import Config
from metarun.errors import MetarunError, UsageError
from metarun.results.runs import find_runs
from metarun.storage.rundir import RunDir

LONGEST = 255  # bytes that file systems allow a name
HYDRAS = [  # its conf/hydra/output/default.yaml
    *(f"{parent}/${{now:%Y-%m-%d}}/${{now:%H-%M-%S}}" for parent in ("outputs", "multirun")),
    "${hydra.job.num}",
]


def as_typed(words: list[str]) -> list[str]:
    """The words, with the names of folders in quotes: 1E5 is no number there, and ~ is the home folder.

    Raises UsageError for a folder without a name.
    """
    parsed = parse(words).parsed
    words = [override.input_line for override in parsed]
    for number, override in enumerate(parsed):
        key, value, word = override.key_or_group, override.value(), words[number]
        if key not in FOLDERS or override.is_sweep_override():
            continue
        if any("\ud800" <= letter <= "\udfff" for letter in word):  # a byte that is no UTF-8: no YAML can have it
            raise UsageError(f"{word!r} (command line): expected a name of letters; choose another {key}")
        if value in (None, "") and not isinstance(value, bool):
            raise UsageError(f"{word!r} (command line): expected a folder; give it a name, or leave it out")
        path = value if isinstance(value, str) else word.partition("=")[2].strip()
        if path is not value or path.startswith("~"):
            words[number] = f"{override.get_key_element()}={quote_path(path)}"
    return words


def name_folder(words: str) -> str:
    """The folder of a job, by its words: those, or where they make no legal name, a short form.

    The short form is their beginning and a digest, so that the same words always have the same folder.
    """
    parts = words.split("/")  # experiment=finn2017/omniglot_5w1s lies in a folder of its own
    if all(0 < len(p.encode()) <= LONGEST and p.isprintable() and p not in (".", "..") for p in parts) or not words:
        return words
    return _shorten(words)


def _shorten(words: str) -> str:
    """The beginning of the words and a digest: a legal name without a slash."""
    beginning = "".join(char if char.isprintable() and char != "/" else "_" for char in words)
    return f"{beginning.encode()[:200].decode(errors='ignore')}-{hashlib.sha256(words.encode()).hexdigest()[:16]}"


OmegaConf.register_new_resolver("metarun_folder", name_folder, replace=True)  # jobs of a launcher import this too


def is_given(node: DictConfig, name: str) -> bool:
    """Whether a folder of hydra.run or hydra.sweep is another than Hydra's own default: a word or a file gives it."""
    plain: Any = OmegaConf.to_container(node, resolve=False)
    return plain[name] not in HYDRAS


def choose_folders(folder: Path, jobs: list[list[str]], configs: list[Config]) -> list[str]:
    """The folder of each job below that of the sweep.

    A run that is there already keeps its folder, whatever its name is: an earlier sweep may have had other words in
    common. A new one has the words that not all jobs share; all its words, where another run has that name.
    """
    there: dict[str, list[str]] = {}
    spoiled = []  # a job of that name says what is wrong
    for path in find_runs(folder) if folder.is_dir() else []:
        name = str(path.relative_to(folder))
        try:
            there.setdefault(_identity(RunDir(path).config()), []).append(name)
        except MetarunError:
            spoiled.append(name)
    shared = set.intersection(*map(set, jobs))
    chosen: list[str] = []
    names = [_name([word for word in words if word not in shared]) for words in jobs]
    known = set(names)
    for number, (words, config) in enumerate(zip(jobs, configs, strict=True)):
        full = _name(words) or str(number)
        short = names[number]
        if any(short[: slash.start()] in known for slash in re.finditer("/", short)):  # inside another job's folder
            short = _shorten(short)
        short = short or full
        same = there.get(_identity(config), [])
        found = [name for name in (short, full, *same) if name in same and name not in chosen]
        free = short in spoiled or not RunDir(folder / short).holds_run
        chosen.append(found[0] if found else short if free else full)
    return chosen


def shared_keys(folder: Path, searched: list[str], fixed: list[str]) -> list[str]:
    """The keys that the names of a search's folders need not have: all but those that are searched.

    None of them but the places of data, where the folder holds runs with other words, or runs with longer names.
    """
    keys = [key for key in [*PLACES, *map(key_of, fixed)] if key not in searched]
    for path in find_runs(folder) if folder.is_dir() else []:
        try:
            words = RunDir(path).overrides()
        except MetarunError:
            words = []
        rest = [word for word in words if key_of(word) not in searched]
        chosen = [word for word in words if word not in rest]
        if set(rest) != {word.lstrip("+") for word in fixed} or path.name != _name(chosen):
            return [key for key in keys if key in PLACES]
    return keys


def exclude_words(keys: list[str]) -> str:
    """The word by which Hydra leaves these keys out of the name of a job's folder."""
    return f"hydra.job.config.override_dirname.exclude_keys=[{','.join(keys)}]"


def _name(words: list[str]) -> str:
    return name_folder(",".join(sorted(word.lstrip("+") for word in words)))


def _identity(config: Config) -> str:
    """All of a config that can show in a run's files, for comparison."""
    plain = {key: value for key, value in leaves(config.plain()) if policy(key).digits or policy(key).identity}
    return json.dumps(plain, sort_keys=True)
