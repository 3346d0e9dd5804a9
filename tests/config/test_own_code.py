"""Errors in classes of the user's name the class, the file and the line; metarun's own are left alone."""

import importlib
import re
import sys

import pytest

from metarun.config import own_code
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
        (lambda own: own.helper(), UsageError, "own_parts.helper: ValueError: no more .*own_parts.py:25"),
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


def test_names_of_classes(own):
    assert own_code.class_name(own.Net()) == own_code.class_name(own.Net) == "own_parts.Net"
    assert own_code.class_name(own_code.DataError) == "DataError"
