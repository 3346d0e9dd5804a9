"""Which source files of the user's a run is made of, by their hashes. Imports no torch."""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from weakref import WeakKeyDictionary

from metarun.config.own_code import is_own


class Source(NamedTuple):
    """The file of a module, as it was when it was first looked at: its SHA-256, and the names that it may import."""

    sha256: str
    imports: list[str]


# A file that is edited while a process runs is not what that process has imported.
_seen: WeakKeyDictionary[ModuleType, Source] = WeakKeyDictionary()


def hash_modules(classes: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the files of all trusted modules that these classes need and that are imported, by module name.

    A module needs the packages that it lies in, and what its text imports. All of the user's that is imported would be
    too much: in a sweep that is also the code of the other jobs. What a module imports by a computed name is not seen.
    """
    found: dict[str, str] = {}
    passed, waiting = set(), [name.rpartition(".")[0] for name in classes]
    while waiting:
        name = waiting.pop()
        if name in passed or not is_own(name) or (module := sys.modules.get(name)) is None:
            continue
        passed.add(name)
        waiting.append(name.rpartition(".")[0])
        if source := _read(module):
            found[name] = source.sha256
            waiting += source.imports
    return dict(sorted(found.items()))


def _read(module: ModuleType) -> Source | None:
    """The source of a module; None where it has no file, or that is gone."""
    if module not in _seen:
        try:
            content = Path(module.__file__ or "").read_bytes()
        except (AttributeError, OSError):  # a namespace package
            return None
        _seen[module] = Source(hashlib.sha256(content).hexdigest(), list(_imports(content, module.__package__ or "")))
    return _seen[module]


def _imports(content: bytes, package: str) -> Iterator[str]:
    """The names that a text imports, anywhere in it, from a module of this package; some are of no module."""
    try:
        nodes = list(ast.walk(ast.parse(content)))
    except (SyntaxError, ValueError):  # it is compiled
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # too many dots, in a line that nothing has come to
                continue
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))
