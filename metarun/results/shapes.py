"""The shapes of metarun's JSON, read from the source of its records: fields, types and the comments beside them.

Programs read what `format=json` prints, and the JSON files of a run directory. Each has one record, and a verb's module
names the one that it prints: PRINTS. No field is described a second time.
"""

import ast
import copy
import re
from collections.abc import Iterator

from metarun.config.class_text import Module, definition, read_module, source_of
from metarun.config.folders import PACKAGE
from metarun.errors import UsageError
from metarun.results.explained import Explained, Named
from metarun.text import nearest

RECORDS = "metarun.storage.records"
PREFIX = "json"


def explain_shape(name: str) -> Explained:
    """The shape that `json.NAME` names: of a verb, or of a file of a run directory; `json` lists them.

    Raises UsageError: there is none of that name.
    """
    known = find_shapes()
    _, _, name = name.partition(".")
    if not name:
        means = {name: _document(module, node) for name, (module, node) in known.items()}
        choices = [Named(name=f"{PREFIX}.{name}", means=says) for name, says in means.items()]
        return Explained(name=PREFIX, means="what format=json prints, and the JSON files of a run", choices=choices)
    if name not in known:
        names, given = [f"{PREFIX}.{name}" for name in known], f"{PREFIX}.{name}"
        raise UsageError(f"{given!r} (explain): expected one of {', '.join(names)}{nearest(given, names)}")
    module, node = known[name]
    classes = list(_with_parts(module, node, []))
    return Explained(
        name=f"{PREFIX}.{name}",
        means=_document(module, node),
        choices=[Named(name=part.name, means=_document(where, part)) for where, part in classes],
        settings=[field for where, part in classes for field in _fields(where, part, part.name)],
    )


def find_shapes() -> dict[str, tuple[Module, ast.ClassDef]]:
    """The records by name: of verbs, as their modules say, and of files, as the records' docstrings begin."""
    found = {}
    for path in sorted((PACKAGE / "commands").glob("*.py")):
        module = read_module(f"metarun.commands.{path.stem}")
        part = definition("PRINTS", module) if module else None
        value = getattr(part[1], "value", None) if part else None
        if isinstance(value, ast.Constant) and (record := _record(str(value.value))):
            found[path.stem] = record
    records = read_module(RECORDS)
    for node in records.tree.body if records else []:
        if isinstance(node, ast.ClassDef) and (file := re.match(r"([\w-]+)\.json", ast.get_docstring(node) or "")):
            found[file[1]] = (records, node)
    return found


def _record(name: str) -> tuple[Module, ast.ClassDef] | None:
    """The class of a dotted name."""
    where, _, last = name.rpartition(".")
    module = read_module(where)
    found = definition(last, module) if module else None
    return (found[0], found[1]) if found and isinstance(found[1], ast.ClassDef) else None


def _document(module: Module, node: ast.ClassDef) -> str:
    return " ".join((ast.get_docstring(node) or "").split())


def _with_parts(module: Module, node: ast.ClassDef, seen: list[str]) -> Iterator[tuple[Module, ast.ClassDef]]:
    """A record, and below it those that its fields are made of, each once."""
    if node.name in seen:
        return
    seen.append(node.name)
    yield module, node
    for where, field in _annotated(module, node):
        for part in ast.walk(field.annotation):
            found = definition(part.id, where) if isinstance(part, ast.Name) else None
            if found and isinstance(found[1], ast.ClassDef):
                yield from _with_parts(found[0], found[1], seen)


def _annotated(module: Module, node: ast.ClassDef) -> Iterator[tuple[Module, ast.AnnAssign]]:
    """The fields of a record, those of its base classes first."""
    for base in node.bases:
        found = definition(ast.unparse(base), module)
        if found and isinstance(found[1], ast.ClassDef):
            yield from _annotated(*found)  # pyright: ignore[reportArgumentType]
    yield from ((module, part) for part in node.body if isinstance(part, ast.AnnAssign))


def _fields(module: Module, node: ast.ClassDef, owner: str) -> Iterator[Named]:
    for where, field in _annotated(module, node):
        path = source_of(where.name)
        row = path.read_text(encoding="utf-8").splitlines()[(field.end_lineno or 1) - 1] if path else ""
        comment = re.search(r"\s# (.*)$", row[field.end_col_offset or 0 :])
        alias = re.search(r"alias='(\w+)'", ast.unparse(field.value)) if field.value else None
        name = alias[1] if alias else ast.unparse(field.target)
        kind = ast.unparse(_Plain(where).visit(copy.deepcopy(field.annotation))).replace("'", "")
        yield Named(name=f"{owner}.{name}", means=comment[1] if comment else "", type=kind)


class _Plain(ast.NodeTransformer):
    """An annotation without the names of a module for it: Phase as the words that it stands for, Count as int."""

    def __init__(self, module: Module):
        self.module = module

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """See NodeTransformer."""
        found = definition(node.id, self.module)
        value = getattr(found[1], "value", None) if found else None
        return self.visit(copy.deepcopy(value)) if isinstance(value, ast.Subscript) else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """See NodeTransformer."""
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if ast.unparse(node.value) == "Annotated":
            return self.visit(inside[0])
        if ast.unparse(node.value) == "Literal":
            return ast.Name(" | ".join(repr(ast.literal_eval(word)) for word in inside))
        return self.generic_visit(node)
