"""A folder imports only from those after it, and the code is in the shape that pyproject.toml asks for."""

import ast
import subprocess
import sys

import pytest
from helpers.runs import ROOT

PACKAGE = ROOT / "metarun"
ROOMS = ["cli", "commands", "results", "run", "engine", "storage", "config", "algos", "data", "models"]
GROUND = ["tasks", "seeds", "intervals", "text", "files", "errors"]
NOT_BESIDE = {("engine", "storage"), ("engine", "config"), ("algos", "data"), ("data", "models")}
NOT_BESIDE |= {(a, b) for a in ("storage", "config") for b in ("algos", "data", "models")}
LIBRARIES = {  # library: the rooms that may import it
    **dict.fromkeys(("hydra", "omegaconf"), ("cli", "commands", "config")),
    **dict.fromkeys(("torchvision", "PIL", "pandas"), ("data",)),
    "torch": ("run", "engine", "storage.checkpoint", "algos", "data", "models", "tasks", "seeds"),
}


def _imports():
    """(importing module, imported name) for every import of the package."""
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((name, f"{node.module}.{alias.name}") for alias in node.names)


def test_a_folder_imports_only_from_those_after_it():
    order = {room: n for n, room in enumerate(ROOMS)} | dict.fromkeys(GROUND, len(ROOMS))
    for module, imported in _imports():
        here, (library, _, rest) = module.partition(".")[0], imported.partition(".")
        there = rest.partition(".")[0]
        if library in LIBRARIES:
            allowed = (*LIBRARIES[library], "__init__", "__main__")
            assert f"{module}.".startswith(tuple(f"{room}." for room in allowed)), f"{module} imports {imported}"
        elif library == "metarun" and here in order and there in order:
            assert order[here] <= order[there], f"{module} imports {imported}"
            assert (here, there) not in NOT_BESIDE, f"{module} imports {imported}"


def test_the_ground_and_the_rooms_are_all_there_is():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__", "cli", *GROUND}
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == {*ROOMS} - {
        "cli"
    }


def test_every_module_has_a_test_file_or_says_which_one_tests_it():
    lines = (ROOT / "tests/helpers/COVERED_BY.txt").read_text().splitlines()[1:]
    covered_by = dict(line.split() for line in lines)
    for path in (path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"):
        module = path.relative_to(PACKAGE).with_suffix("")
        own = module.parent / f"test_{module.name}"
        assert any((ROOT / "tests" / f"{name}.py").exists() for name in (own, covered_by.get(str(module)))), module


def test_configs_become_code_in_one_place():
    """Hydra's instantiate resolves interpolations, which can call things; config.targets.build() does not."""
    for path in PACKAGE.rglob("*.py"):
        # `metarun eval` has a module of that name, which is imported under another one.
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if not (isinstance(n, ast.alias) and n.asname)]
        names = {getattr(node, "id", getattr(node, "attr", getattr(node, "name", ""))) for node in nodes}
        assert not names & {"instantiate", "get_object", "get_class", "get_method", "eval", "exec"}, path
        assert "import_module" not in names or path.stem == "targets", path


@pytest.mark.parametrize("words", [["check"], ["format", "--check"]])
def test_ruff_has_nothing_to_say(words):
    done = subprocess.run([sys.executable, "-m", "ruff", *words, ROOT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
