"""The words of an explanation, for people."""

import re
import textwrap
from typing import Any

from metarun.results.explained import Explained, Named, Where

WIDTH = 110


def as_text(found: Explained) -> str:
    """What is known of a key, a choice, a group, a shape of JSON, or of all, in lines of 110 characters at most."""
    if not found.name:
        lines = _describe_all(found)
    elif "=" in found.name:
        lines = _describe_choice(found)
    elif found.choices and found.settings:
        lines = _describe_shape(found)
    else:
        lines = _describe_key(found)
    return "\n".join(lines)


def _describe_all(found: Explained) -> list[str]:
    groups = "Groups, chosen by name as in algo=maml (metarun explain algo lists the names):"
    return [groups, *_list(found.choices, "="), "", "Keys, set as in seed=3:", *_list(found.settings)]


def _describe_choice(found: Explained) -> list[str]:
    """An algorithm, a task source, ...: its comment, the docstring of its module, its settings, and its class."""
    lines = [_wrap(f"{found.name}  ", found.means or "no comment")]
    if "\n" in found.means:
        lines = [found.name, "", textwrap.indent(found.means, "    ")]
    if found.text:
        lines += ["", textwrap.indent(found.text, "    ")]
    facts = {
        "with": " ".join(choice.name for choice in found.choices),
        "suggests": ", ".join(f"{key}={value}" for key, value in found.suggested.items()),
        "built as": "; ".join(_describe_readers(found)),
        "file": found.files[0].file,
    }
    return [*lines, "", *_list(found.settings), "", *_facts(facts)]


def _describe_key(found: Explained) -> list[str]:
    """A key or a group: its meaning, its default, what it may be, the files that set it, the classes that read it."""
    facts = {
        "default": _describe_default(found),
        "type": found.type,
        "one of": ", ".join(found.words),
        "see also": ", ".join(found.see_also),
    }
    several = any(where.means for where in found.files)
    means = found.means or ("not the same with each choice:" if several else "no comment")
    lines = [_wrap(f"{found.name}  ", means), *_facts(facts), *_list(found.choices)]
    lines += [_fact("set in", text) for text in _describe_files(found)]
    lines += [_fact("read by", text) for text in _describe_readers(found)]
    if found.resume is not None:
        may = "may change in metarun resume" if found.resume else "fixed once a run has begun"
        acts = "acts in metarun eval" if found.evaluate else "has no effect on metarun eval"
        lines.append(_fact("changes", f"{may}; {acts}"))
    return lines


def _describe_shape(found: Explained) -> list[str]:
    """A record, and the records that it is made of, each with its fields."""
    lines = [_wrap(f"{found.name}  ", f"{found.means} What may be None is null, or left out, where it is not known.")]
    for record in found.choices:
        lines += ["", _wrap(f"{record.name}  ", record.means)]
        fields = [field for field in found.settings if field.name.partition(".")[0] == record.name]
        lines += _columns([(f"{field.name.partition('.')[2]}: {field.type}", field.means) for field in fields])
    return lines


def _describe_readers(found: Explained) -> list[str]:
    return [f"{reader.name}: {reader.means}" if reader.means else reader.name for reader in found.readers]


def _describe_files(found: Explained) -> list[str]:
    """The files of a key, those with the same default and comment together."""
    together: dict[Where, list[str]] = {}
    for where in found.files:
        together.setdefault(where.model_copy(update={"choice": ""}), []).append(where.choice)
    lines = []
    for where, choices in together.items():
        place = f"{where.file}:{where.line}" if where.line else where.file
        value = "" if where.default is None else f" {where.default}"
        said = f" # {where.means}" if where.means and where.means != found.means else ""
        lines.append(f"{place}{value}{said} ({', '.join(choices)})")
    return lines


def _describe_default(found: Explained) -> str:
    """The default, those that task sources or algorithms suggest, and those of choices with one of their own."""
    own = {
        where.choice: where.default
        for where in found.files
        if where.default not in (None, found.default) and where.choice != "config" and "${" not in (where.default or "")
    }
    usual = [] if found.suggested or found.default is None else [found.default]
    return "; ".join(filter(None, [*usual, _group(own), _group(found.suggested)]))


def _group(values: dict[str, Any]) -> str:
    """Values by choice, choices with the same value together: `0.1 with data=images, data=tabular; else 0.01`."""
    together: dict[str, list[str]] = {}
    for choice, value in values.items():
        if choice != "config":
            together.setdefault(value, []).append(choice)
    parts = [f"{value} with {', '.join(choices)}" for value, choices in together.items()]
    return "; ".join([*parts, *(f"else {value}" for choice, value in values.items() if choice == "config")])


def _list(names: list[Named], sign: str = "") -> list[str]:
    """A line for each name, with its default and its meaning."""
    values = {named.name: sign if named.default is None else f"={_spell(named.default)}" for named in names}
    return _columns([(f"{named.name}{values[named.name]}", named.means) for named in names])


def _spell(default: str) -> str:
    """A default; of one that a task source or an algorithm decides, that it does."""
    by = {"suggested": "<by data>", "needs": "<by algo>"}
    found = re.fullmatch(r"\$\{(suggested|needs)\.\w+\}", default)
    return by[found[1]] if found else default


def _facts(facts: dict[str, str]) -> list[str]:
    """A line for each fact that there is."""
    return [_fact(name, text) for name, text in facts.items() if text]


def _fact(name: str, text: str) -> str:
    return _wrap(f"    {name:<9} ", text)


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    """Two columns, of which the second is filled."""
    width = max((len(name) for name, _ in rows), default=0)
    return [_wrap(f"    {name:<{width}}  ", means) for name, means in rows]


def _wrap(begin: str, text: str) -> str:
    indent = " " * len(begin)
    rows = textwrap.wrap(text, WIDTH, initial_indent=begin, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(rows) or begin.rstrip()
