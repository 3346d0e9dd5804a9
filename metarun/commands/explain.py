"""metarun explain: what a setting means, by the comments in conf/ and the docstrings of the classes that read it.

KEY is a key (algo.inner_lr, or inner_lr where one key ends so), a choice (algo=maml, maml), a group (algo) or a verb.
Without one the groups and the keys of the root are listed.

Examples:
    metarun explain algo.inner_lr        its default, type, choices, and the algorithms that have it
    metarun explain algo=maml            formula, paper and settings of an algorithm
    metarun explain data=images          settings of a task source
    metarun explain mine -cd my/conf     a choice of your own
"""

from __future__ import annotations

import argparse
import re
import textwrap
from typing import TYPE_CHECKING

from metarun.commands.common import find_choices
from metarun.text import printable

if TYPE_CHECKING:
    from metarun.results.explained import Explained, Named

PRINTS = "metarun.results.explained.Explained"
WIDTH = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A name, and a format."""
    parser.add_argument("key", nargs="?", default="", metavar="KEY", help="a key, a choice, a group or a verb")
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="a folder with choices of your own: algo/mine.yaml")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: one JSON object")


def main(args: argparse.Namespace) -> None:
    """Prints what is known."""
    from metarun.config.catalogue import Catalogue
    from metarun.config.folders import ConfigFolders
    from metarun.results.explained import explain

    found = explain(args.key, Catalogue(ConfigFolders(extra=find_choices(args.config_dir))))
    print(found.to_json().decode().rstrip() if args.format == "json" else printable(describe(found)))


def describe(found: Explained) -> str:
    """The words for people."""
    lines = [_wrap(f"{found.name}  ", found.means or "no comment")] if found.name else []
    if found.text:
        lines += ["", textwrap.indent(found.text, "    "), ""]
    if not found.name:
        lines += ["Groups, chosen by name as in algo=maml (metarun explain algo lists the names):"]
    default = {"default": found.default} if found.default is not None and found.name else {}
    if default and found.suggested:
        default = {"default": _group(found.suggested)}
    facts = default | {"type": found.type, "one of": ", ".join(found.words)}
    lines += [_wrap(f"    {name:<9} ", text) for name, text in facts.items() if text]
    lines += _list(found.choices, "=" if not found.name else "") if "=" not in found.name else []
    if "=" in found.name:
        lines += [_wrap("    with      ", " ".join(choice.name for choice in found.choices))] if found.choices else []
        suggests = ", ".join(f"{key}={value}" for key, value in found.suggested.items())
        lines += [_wrap("    suggests  ", suggests)] if suggests else []
    if found.settings:
        lines += [""] if found.name else ["", "Keys, set as in seed=3:"]
        lines += _list(found.settings)
    if found.files and "=" not in found.name:
        lines += _describe_files(found)
    lines += [_wrap("    read by   ", f"{reader.name}: {reader.means}") for reader in found.readers if reader.means]
    if found.files and "=" in found.name:
        lines.append(_wrap("    file      ", found.files[0].file))
    if found.resume is not None:
        may = "may change in metarun resume" if found.resume else "fixed once a run has begun"
        acts = "acts in metarun eval" if found.evaluate else "has no effect on metarun eval"
        lines.append(_wrap("    changes   ", f"{may}; {acts}"))
    return "\n".join(lines)


def _describe_files(found: Explained) -> list[str]:
    """The files of a key, those with the same default and comment together."""
    together: dict[tuple, list] = {}
    for where in found.files:
        together.setdefault((where.default, where.means, where.file, where.line), []).append(where.choice)
    lines = []
    for (default, means, file, line), choices in together.items():
        value = "" if default is None else f" {default}"
        said = f" # {means}" if means and means != found.means else ""
        place = f"{file}:{line}" if line else file
        lines.append(_wrap("    set in    ", f"{place}{value}{said} ({', '.join(choices)})"))
    return lines


def _group(values: dict[str, str]) -> str:
    """Values by choice, choices with the same value together: `0.1 with data=images, data=tabular; else 0.01`."""
    together: dict[str, list[str]] = {}
    for choice, value in values.items():
        if choice != "config":
            together.setdefault(value, []).append(choice)
    parts = [f"{value} with {', '.join(choices)}" for value, choices in together.items()]
    return "; ".join([*parts, *(f"else {value}" for choice, value in values.items() if choice == "config")])


def _list(names: list[Named], sign: str = "") -> list[str]:
    """A line for each name, with its default and its meaning."""
    typed = [
        f"{named.name}{sign}" if named.default is None else f"{named.name}={_spell(named.default)}" for named in names
    ]
    width = max(map(len, typed), default=0)
    return [_wrap(f"    {text:<{width}}  ", named.means) for text, named in zip(typed, names, strict=True)]


def _spell(default: str) -> str:
    """A default; of one that a task source or an algorithm decides, that it does."""
    by = {"suggested": "<by data>", "needs": "<by algo>"}
    found = re.fullmatch(r"\$\{(suggested|needs)\.\w+\}", default)
    return by[found[1]] if found else default


def _wrap(begin: str, text: str) -> str:
    indent = " " * len(begin)
    rows = textwrap.wrap(text, WIDTH, initial_indent=begin, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(rows) or begin.rstrip()
