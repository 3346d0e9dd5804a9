"""Imports run one way, and the code is in the shape that pyproject.toml asks for."""

import ast
import subprocess
import sys

from helpers.runs import ROOT

PACKAGE = ROOT / "metarun"
ALLOWED = {  # module: what it may import of metarun; the leaves import none of these
    "cli": None, "verbs": None, "jobs": None, "rerun": None, "run": None, "start": None, "__main__": None,
    "experiment": {"algos.base", "checkpoint", "config", "errors", "launch", "loop", "rundir", "runtime", "seeds", "trust"},
    "adjust": {"compose", "config", "errors", "settings"}, "compose": {"config", "errors", "settings", "trust"}, "settings": {"errors"}, "search": {"compose", "config", "errors"}, "config": {"errors", "trust"}, "trust": {"errors"}, "saved": {"config", "errors", "files"}, "errors": set(), "seeds": set(), "memory": set(),
    "inner": set(), "tasks": {"errors", "seeds"}, "cells": set(), "compiled": {"errors"}, "units": {"compiled"}, "models": {"cells", "compiled", "errors"}, "engine": {"algos.base", "errors", "inner", "memory", "tasks", "units"},
    "loop": {"engine", "tasks", "algos.base", "errors", "inner", "loggers", "processes"}, "processes": {"errors", "inner", "launch"}, "launch": {"errors"}, "files": set(), "checkpoint": {"errors", "files"}, "runtime": {"errors", "launch"},
    "rundir": {"config", "errors", "files", "saved"}, "record": {"errors", "files", "loggers", "loop", "rundir", "tasks"}, "loggers": {"errors"}, "plot": {"files", "tasks"}, "stop": {"errors"},
    "runs": {"config", "errors", "rundir", "saved"}, "compare": {"differing", "runs"}, "differing": {"config", "runs"}, "table": {"compare", "errors", "record", "runs"},
    "figures": set(), "page": set(), "examples": {"algos.base", "errors", "experiment", "inner", "loop", "runs", "tasks", "trust"},
    "curves": {"compare", "config", "errors", "figures", "page", "record", "runs", "table"}, "pictures": {"curves", "errors", "examples", "figures", "page"},
    "report": {"compare", "curves", "errors", "figures", "files", "page", "pictures", "record", "rundir", "runs", "table"},
}  # fmt: skip


def _modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text())


def _imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from (
                [f"{module}.{alias.name}" for alias in node.names]
                if module in ("metarun", "metarun.data")
                else [module]
            )


def test_imports_run_one_way():
    for name, tree in _modules():
        for imported in _imports(tree):
            package, _, rest = imported.partition(".")
            if package in ("hydra", "omegaconf"):
                assert name in ("adjust", "cli", "compose", "saved", "search", "jobs"), f"{name} imports {imported}"
            if package == "torchvision":
                assert name.startswith("data."), f"{name} imports {imported}"
            if package != "metarun" or not rest or rest == "__version__":
                continue
            if name.startswith("algos."):
                assert rest in ("algos.base", "algos.gradient", "inner", "tasks", "errors", "cells", "units"), (
                    f"{name} imports {rest}"
                )
            elif name.startswith("data."):
                assert rest in ("tasks", "seeds", "errors", "files") or rest.startswith("data."), (
                    f"{name} imports {rest}"
                )
            elif ALLOWED[name] is not None:  # a new module has to be entered there
                assert rest in ALLOWED[name], f"{name} imports {rest}"


def test_configs_become_code_in_one_place():
    """Hydra's instantiate resolves interpolations, which can call things; trust.build() does not."""
    for name, tree in _modules():
        names = {getattr(node, "id", getattr(node, "attr", getattr(node, "name", ""))) for node in ast.walk(tree)}
        assert not names & {"instantiate", "get_object", "get_class", "get_method", "eval", "exec"}, name
        assert "import_module" not in names or name == "trust"


def test_ruff_has_nothing_to_say():
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
