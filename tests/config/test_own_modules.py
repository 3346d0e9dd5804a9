"""Which files a run of the user's code is made of."""

import hashlib
import importlib
import sys
from pathlib import Path

import pytest

from metarun.config.own_modules import hash_modules

PACKAGE = {
    "__init__": "",
    "net": "import torch\nfrom .parts import RATE\nfrom metarun.models.mlp import MLP\n\nclass Net(MLP):\n    pass\n",
    "parts": "import math, own_hashed.deep.base as base\n\nRATE = 1\n\ndef late():\n    from . import lazy\n",
    "lazy": "from .net import *\n",
    "deep/base": "",  # deep is a namespace package
    "other": "from . import net\n",  # of another job of the same process
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    for name, text in PACKAGE.items():
        path = tmp_path / "own_hashed" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("METARUN_TRUST", "own_hashed")
    for name in ("net", "other"):
        importlib.import_module(f"own_hashed.{name}")
    yield tmp_path / "own_hashed"
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_hashed"]:
        del sys.modules[name]


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_modules_that_a_class_needs_are_hashed_and_no_others(package):
    names = {"own_hashed": "__init__", "own_hashed.deep.base": "deep/base"}
    names |= {f"own_hashed.{name}": name for name in ("net", "parts")}
    expected = {name: _hash(package / f"{file}.py") for name, file in names.items()}
    assert hash_modules(["own_hashed.net.Net", "metarun.algos.maml.MAML"]) == expected
    importlib.import_module("own_hashed.lazy")
    assert hash_modules(["own_hashed.net.Net"]) == expected | {"own_hashed.lazy": _hash(package / "lazy.py")}


def test_a_file_that_is_edited_later_is_not_what_was_imported(package):
    before = hash_modules(["own_hashed.net.Net"])
    (package / "parts.py").write_text("RATE = 2\n")
    assert hash_modules(["own_hashed.net.Net"]) == before


def test_what_nobody_trusts_is_not_looked_at(package, monkeypatch):
    monkeypatch.setenv("METARUN_TRUST", "own_hashed.parts,torch")
    assert list(hash_modules(["own_hashed.net.Net", "own_hashed.parts.RATE", "torch.optim.Adam"])) == [
        "own_hashed.parts"
    ]
