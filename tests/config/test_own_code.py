"""Errors in classes of the user's name the class, the file and the line; metarun's own are left alone."""

import importlib
import re
import sys

import pytest
import torch

from metarun.config import own_code
from metarun.config.targets import build, trusted_class
from metarun.errors import DataError, UsageError

CODE = """
import torch
from torch import nn


class Source:
    def prepare(self, device):
        pass

    def sample(self, seed, split, index):
        return {}["missing"]


class Net(nn.Module):
    def forward(self, x):
        return torch.zeros(2, 3) @ torch.zeros(2, 3)


class Algorithm:
    def use(self, source):
        return source.sample(0, "train", None)


class Whole(nn.Sequential):
    pass


class Divides:
    def __init__(self):
        self.share = 1 / 0


class Reads:
    def __init__(self):
        open("/nowhere/at/all")


def helper():
    raise ValueError("no more")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's, which is trusted."""
    (tmp_path / "own_parts.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("METARUN_TRUST", "own_parts, ")
    yield importlib.import_module("own_parts")
    del sys.modules["own_parts"]


def _raised(function, *args):
    try:
        function(*args)
    except Exception as error:
        return own_code.explain(error)
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("call", "kind", "line"),
    [
        (
            lambda own: own.Source().sample(0, "train", None),
            DataError,
            "own_parts.Source.sample: KeyError: .*own_parts.py:11",
        ),
        (lambda own: own.Net()(None), UsageError, "own_parts.Net.forward: RuntimeError: .*own_parts.py:16"),
        (lambda own: own.Algorithm().use(own.Source()), DataError, "own_parts.Source.sample: KeyError: "),
        (lambda own: own.helper(), UsageError, "own_parts.helper: ValueError: no more .*own_parts.py:39"),
    ],
)
def test_errors_name_the_users_class_file_and_line(own, call, kind, line):
    error = _raised(call, own)
    assert type(error) is kind
    assert re.match(line, str(error)), str(error)


def test_other_errors_are_not_the_users(own, monkeypatch):
    def fail():
        raise DataError("said already")

    assert _raised(fail) is None
    assert _raised(lambda: 1 / 0) is None, "metarun's own"
    monkeypatch.setenv("METARUN_TRUST", "metarun")
    assert _raised(own.helper) is None, "a module that nobody trusts"


def test_a_class_without_a_line_of_its_own_is_named_by_its_file(own):
    error = _raised(lambda: own.Whole(torch.nn.Linear(3, 1))(torch.zeros(2, 5)))
    assert re.match(r"own_parts.Whole: RuntimeError: mat1 and mat2 .*own_parts.py\)", str(error))


def test_a_constructor_is_named_with_its_line(own):
    with pytest.raises(UsageError, match=r"own_parts.Divides cannot be built: ZeroDivisionError: .*own_parts.py:30"):
        build("algo", {"_target_": "own_parts.Divides"})
    for section, kind in {"data": DataError, "model": UsageError}.items():
        with pytest.raises(kind, match=r"No such file or directory: /nowhere/at/all \(.*own_parts.py:35"):
            build(section, {"_target_": "own_parts.Reads"})


@pytest.mark.parametrize("code", ["import nothing_of_that_name", "\ndef f(:\n", "1 / 0"])
def test_an_import_is_named_with_its_line(tmp_path, monkeypatch, code):
    (tmp_path / "broken_of_a_test.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METARUN_TRUST", "broken_of_a_test")
    line = 2 if code.startswith("\n") else 1
    with pytest.raises(UsageError, match=rf"imported: \w+Error: .* \(broken_of_a_test.py:{line}\)"):
        trusted_class("algo._target_", "broken_of_a_test.Mine")


def test_names_of_classes(own):
    assert own_code.class_name(own.Net()) == own_code.class_name(own.Net) == "own_parts.Net"
    assert own_code.class_name(own_code.DataError) == "DataError"
