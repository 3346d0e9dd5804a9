"""What the source of a class says of its settings, read as text: nothing is imported, so no torch and no user's code.

Docstrings have sections in Google form. A setting that a base class takes is described there.
"""

import ast
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import NamedTuple

from metarun.config.folders import PACKAGE
from metarun.config.own_code import trusted, within


class Module(NamedTuple):
    """A module by its source: its dotted name, and the tree of its text."""

    name: str
    tree: ast.Module


@dataclass
class ClassText:
    """A class by its source.

    Attributes:
        name: dotted, where it is defined.
        summary: the first line of its docstring.
        module: the docstring of its module.
        args: what its docstring says of each setting, with its base classes'.
        owners: the class that says so, of each setting.
        types: the annotation of each setting, as typed.
        words: the words that a setting may be, where the constructor checks that by errors.one_of or Literal.
        training_only: settings of an algorithm that have no effect once it is trained.
    """

    name: str
    summary: str
    module: str
    args: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)
    training_only: list[str] = field(default_factory=list)


def class_text(target: str | None) -> ClassText | None:
    """The text of a `_target_`; None where no trusted package has its source, or it is no class."""
    return _class_text(str(target), tuple(trusted()), os.getcwd())


@lru_cache(maxsize=256)
def _class_text(target: str, _trusted: tuple[str, ...], _here: str) -> ClassText | None:
    name, _, last = target.rpartition(".")
    module = read_module(name)
    found = definition(last, module) if module else None
    if found is None or not isinstance(found[1], ast.ClassDef):
        return None
    module, node = found
    doc = ast.get_docstring(node) or ""
    text = ClassText(f"{module.name}.{node.name}", doc.partition("\n")[0], ast.get_docstring(module.tree) or "")
    _add(text, module, node, 0)
    return text


def _add(text: ClassText, module: Module, node: ast.ClassDef, depth: int) -> None:
    """Adds what a class says, and below it what its base classes say."""
    for name, said in section(ast.get_docstring(node) or "", "Args").items():
        if name not in text.args:
            text.args[name], text.owners[name] = said, node.name
    for name, annotation in _annotations(node):
        text.types.setdefault(name, ast.unparse(annotation))
    for name, words in _words(module, node):
        text.words.setdefault(name, words)
    for part in (part for part in node.body if "training_only" in _bound(part)):
        found = (item.value for item in ast.walk(part) if isinstance(item, ast.Constant))
        text.training_only += [name for name in found if isinstance(name, str)]
    for base in node.bases if depth < 8 else []:
        found = definition(ast.unparse(base).partition("[")[0], module)
        if found and isinstance(found[1], ast.ClassDef):
            _add(text, found[0], found[1], depth + 1)


def section(doc: str, title: str) -> dict[str, str]:
    """The entries of a section of a docstring in Google form, by name, each in one line."""
    lines, found, names = doc.splitlines(), {}, []
    start = next((n for n, line in enumerate(lines) if line.strip() == f"{title}:"), len(lines))
    for line in lines[start + 1 :]:
        if line.strip() and not line.startswith(" "):
            break
        if entry := re.fullmatch(r" {4}(\w[\w, ]*?)(?: \([^)]*\))?: (.*)", line):
            names = [name.strip() for name in entry[1].split(",")]
            found |= dict.fromkeys(names, entry[2].strip())
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _annotations(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """The annotated fields of a dataclass, and parameters of a constructor."""
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and not ast.unparse(part.annotation).startswith("ClassVar"):
            yield ast.unparse(part.target), part.annotation
        elif isinstance(part, ast.FunctionDef) and part.name == "__init__":
            arguments = (*part.args.posonlyargs, *part.args.args, *part.args.kwonlyargs)
            yield from ((argument.arg, argument.annotation) for argument in arguments if argument.annotation)


def _words(module: Module, node: ast.ClassDef) -> Iterator[tuple[str, list[str]]]:
    """The words that settings may be: of one_of(name, value, words) in a class, and in functions that it calls."""
    bodies: list[tuple[Module, ast.AST]] = [(module, node)]
    called = {ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)} - {"one_of"}
    bodies += [found for name in sorted(called) if name.isidentifier() and (found := definition(name, module))]
    for where, body in bodies:
        for call in ast.walk(body):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "one_of" and len(call.args) == 3:
                name, _, words = call.args
                if isinstance(name, ast.Constant) and (found := _constants(words, where, node)):
                    yield str(name.value), found
    for name, annotation in _annotations(node):
        for part in ast.walk(annotation):
            if isinstance(part, ast.Subscript) and ast.unparse(part.value) == "Literal":
                yield name, _constants(part.slice, module, node)


def _constants(words: ast.expr, module: Module, owner: ast.ClassDef) -> list[str]:
    """The strings of a list, or of the name that the module or the class gives one; [] where they are computed."""
    if isinstance(words, (ast.List, ast.Tuple, ast.Set, ast.Dict)):
        items = words.keys if isinstance(words, ast.Dict) else words.elts
        return [str(item.value) for item in items if isinstance(item, ast.Constant)]
    name = ast.unparse(words)
    own = (part for part in ast.walk(owner) if isinstance(part, ast.stmt) and {name, name[5:]} & set(_bound(part)))
    where, found = definition(name, module) or (module, next(own, None))
    value = getattr(found, "value", None)
    return _constants(value, where, owner) if isinstance(value, ast.expr) else []


def definition(name: str, module: Module, depth: int = 0) -> tuple[Module, ast.stmt] | None:
    """Where a module, or the one that it has it from, defines a name; None where no trusted package does."""
    for part in module.tree.body:
        if name in _bound(part):
            return module, part
        if isinstance(part, ast.ImportFrom) and depth < 8:
            for alias in part.names:
                if name == (alias.asname or alias.name) and (other := read_module(_absolute(part, module))):
                    return definition(alias.name, other, depth + 1)
    return None


def _bound(part: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    if isinstance(part, (ast.ClassDef, ast.FunctionDef)):
        return [part.name]
    targets = part.targets if isinstance(part, ast.Assign) else [part.target] if isinstance(part, ast.AnnAssign) else []
    return [ast.unparse(target) for target in targets]


def _absolute(part: ast.ImportFrom, module: Module) -> str:
    """The module that `from X import` names; of a package's __init__ a dot less than of a module is cut."""
    if not part.level:
        return part.module or ""
    path = source_of(module.name)
    cut = part.level - (path is not None and path.name == "__init__.py")
    parts = module.name.split(".")
    return ".".join([*parts[: len(parts) - cut], *filter(None, [part.module])])


def read_module(name: str) -> Module | None:
    """A module by its text; None where no trusted package has its source."""
    path = source_of(name)
    try:
        return Module(name, _parse(path, path.stat().st_mtime_ns)) if path else None
    except (OSError, SyntaxError, ValueError):
        return None


@lru_cache(maxsize=256)
def _parse(path: Path, _changed: int) -> ast.Module:
    return ast.parse(path.read_bytes())


def source_of(name: str) -> Path | None:
    """The file of a module of metarun's, or of a package that the user trusts, here or where Python finds it."""
    if not within(name, [package for package in trusted() if package.partition(".")[0] != "torch"]):
        return None
    first, *rest = name.split(".")
    if first == PACKAGE.name:
        folders = [PACKAGE]
    else:
        spec = find_spec_of(first)
        folders = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
        if spec and not rest and spec.origin:
            return Path(spec.origin)
    for folder in folders:
        path = folder.joinpath(*rest)
        for file in (path.with_suffix(".py") if rest else path / "__init__.py", path / "__init__.py"):
            if file.is_file():
                return file
    return None


def find_spec_of(package: str) -> ModuleSpec | None:
    """Where Python, or the working directory, has a package; it is not imported."""
    with suppress(ImportError, ValueError):
        return PathFinder.find_spec(package) or PathFinder.find_spec(package, [os.getcwd()])
    return None
