"""A YAML file of conf/ as its text has it: keys, values as typed, and the comments beside and above them.

Hydra's own reading loses the comments. Imports neither Hydra nor OmegaConf, for the completion of a shell has to be
quick.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Line(NamedTuple):
    """A key of a file.

    Attributes:
        key: dotted, as it stands in the file.
        value: as typed; None where it is a mapping, whose keys have lines of their own.
        comment: beside it, or in the lines above it; '' without.
        number: of the line, from 1.
    """

    key: str
    value: str | None
    comment: str
    number: int


class Text(NamedTuple):
    """A file.

    Attributes:
        path: of the file.
        header: the comment that it begins with, in lines; '' without.
        is_global: whether its keys are those of the root (`# @package _global_`), not of its group.
        defaults: its defaults list.
        lines: its keys, but for the defaults list.
    """

    path: Path
    header: str
    is_global: bool
    defaults: list[Any]
    lines: list[Line]


def read_text(path: Path) -> Text:
    """The text of a file. Raises OSError or ValueError: it cannot be read, or is no mapping in YAML."""
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _read(path: Path, _changed: int) -> Text:
    text = path.read_text(encoding="utf-8")
    rows = text.splitlines()
    try:
        node = yaml.compose(text, Loader=LOADER)
        plain = yaml.load(text, Loader=LOADER) or {}
        lines = list(_lines(node, rows, "")) if isinstance(plain, dict) and node else []
    except (yaml.YAMLError, RecursionError) as error:  # a mapping may hold itself
        raise ValueError(str(error)) from error
    if not isinstance(plain, dict) or not isinstance(plain.get("defaults") or [], list):
        raise ValueError(f"{path}: no mapping, or no list of defaults")
    header = []
    for row in rows:
        if not row.startswith("#"):
            break
        header.append(row[1:].removeprefix(" ").rstrip())
    packages = [row for row in header if row.startswith("@package")]
    lines = [line for line in lines if line.key.partition(".")[0] != "defaults"]
    header = "\n".join(row for row in header if row not in packages)
    return Text(path, header, "@package _global_" in packages, plain.get("defaults") or [], lines)


def _lines(node: yaml.MappingNode, rows: list[str], where: str) -> Iterator[Line]:
    for key, value in node.value:
        name, number = f"{where}{key.value}", key.start_mark.line
        is_mapping = isinstance(value, yaml.MappingNode) and not value.flow_style
        beside = _comment_of(rows[number][key.end_mark.column :] if is_mapping else _after(value, rows, number))
        comment = beside or _above(rows, number)
        if is_mapping:
            yield Line(name, None, comment, number + 1)
            yield from _lines(value, rows, f"{name}.")
        else:
            yield Line(name, _typed(value, rows), comment, number + 1)


def _after(value: yaml.Node, rows: list[str], number: int) -> str:
    """What follows a value on its line; of one that takes several lines without brackets, the line of its key."""
    if value.end_mark.line != number and not getattr(value, "flow_style", False):
        return rows[number].partition(":")[2]
    return rows[value.end_mark.line][value.end_mark.column :] if value.end_mark.line < len(rows) else ""


def _comment_of(rest: str) -> str:
    found = re.fullmatch(r":?\s*#+\s*(.*)", rest)
    return found[1].strip() if found else ""


def _is_comment(row: str) -> bool:
    return row.lstrip().startswith("#")


def _above(rows: list[str], number: int) -> str:
    """The comment in the lines right above a key; '' where they are the file's."""
    first = number
    while first > 0 and _is_comment(rows[first - 1]):
        first -= 1
    return "" if first == 0 else " ".join(row.lstrip(" #").strip() for row in rows[first:number])


def _typed(value: yaml.Node, rows: list[str]) -> str:
    """A value as it is typed; of one that takes several lines, in one, without comments."""
    start, end = value.start_mark, value.end_mark
    if start.line == end.line:
        return rows[start.line][start.column : end.column]
    last = [rows[end.line][: end.column]] if end.line < len(rows) else []
    parts = [rows[start.line][start.column :], *rows[start.line + 1 : end.line], *last]
    return " ".join(" ".join(re.sub(r"(^|\s)#.*", "", part) for part in parts).split())
