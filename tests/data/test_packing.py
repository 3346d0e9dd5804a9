"""Packed files: whole or absent, noticed when damaged, made once, and made again when what they come from changes."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from metarun.data import packing
from metarun.data.omniglot import Omniglot
from metarun.errors import DataError


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def _chunks():
    yield "a", np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    yield "a", np.ones((1, 2, 2), np.uint8)
    yield "b", np.zeros((2, 2, 2), np.uint8)
    return {"layout": "folders"}


def test_what_is_packed_comes_back(own_cache):
    for make in (_chunks, lambda: pytest.fail("made although packed")):
        packed = packing.load_packed("x", ["key"], make)
        assert {name: len(examples) for name, examples in packed.items()} == {"a": 4, "b": 2}
        assert packed["a"].tolist()[:3] == np.arange(12).reshape(3, 2, 2).tolist()
        assert packed["b"].sum() == 0
        assert packed.facts == {"layout": "folders"}
    assert packing.load_packed("x", ["other"], lambda: iter_of({"c": np.ones((1, 5), np.float32)}))["c"].dtype == "f4"


def iter_of(by_class):
    yield from by_class.items()


def test_packed_and_unpacked_examples_are_the_same(own_cache):
    by_class = {"b": np.zeros((2, 2, 2), np.uint8), "a": np.ones((1, 2, 2), np.uint8)}
    packed = packing.load_packed("x", [], lambda: iter_of(dict(sorted(by_class.items()))))
    assert packed.digest == packing.Packed.of(by_class).digest
    assert packed.counts == packing.Packed.of(by_class).counts == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("by_class", "line"),
    [
        ({}, "no classes"),
        (
            {"a": np.zeros((2, 3)), "b": np.zeros((2, 4))},
            r"class 'b': has float64 \[2, 4\]: expected .* float64 \[2, 3\]",
        ),
        ({"a": np.zeros((2, 3)), "b": np.zeros((2, 3), np.uint8)}, "class 'b': has uint8"),
        ({"a": np.zeros(2)}, r"class 'a': has float64 \[2\]"),
        ({"a": np.zeros(8)}, r"'a': has float64 \[8\]: expected numbers \[examples, ...\]; stack"),
        ({"a": [np.zeros(2), np.zeros(2)], "b": np.array(["x"])}, r"'b': has <U1 \[1\]: expected numbers"),
    ],
)
def test_examples_of_several_kinds_are_refused(by_class, line):
    with pytest.raises(DataError, match=line):
        packing.Packed.of(by_class)


def test_made_again_when_damaged(own_cache):
    packing.load_packed("x", [], _chunks)
    (path,) = own_cache.glob("*.bin")
    good = path.read_bytes()
    flipped = [good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :] for n in (3, 30, len(good) - 20, len(good) - 1)]
    for spoil in (good[:-1], *flipped, b"", good[:10], good + good):
        path.write_bytes(spoil)
        assert packing.load_packed("x", [], _chunks).counts == {"a": 4, "b": 2}
        assert path.read_bytes() == good
    assert [path.suffix for path in sorted(own_cache.iterdir())] == [".bin", ".lock"]


def test_nothing_is_left_when_the_data_is_refused(own_cache):
    def chunks():
        yield from _chunks()
        raise DataError("altered")

    with pytest.raises(DataError, match="altered"):
        packing.load_packed("x", [], chunks)
    assert [path.suffix for path in own_cache.iterdir()] == [".lock"]


def test_a_kill_while_packing_leaves_the_same_bytes_to_the_next_process(own_cache, tmp_path):
    code = (
        "import os, signal, sys, numpy as np; from metarun.data import packing\n"
        "def chunks():\n"
        "    yield 'a', np.arange(12, dtype=np.uint8).reshape(3, 2, 2)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "packing.load_packed('x', [], chunks)"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "home")}
    killed = subprocess.run([sys.executable, "-c", code], env=environment)
    assert killed.returncode == -signal.SIGKILL
    packing.load_packed("x", [], _chunks)
    (whole,) = own_cache.glob("*.bin")
    left = tmp_path / "home" / "metarun"
    assert not list(left.glob("*.bin"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "cache", lambda: left)
        packing.load_packed("x", [], _chunks)
    assert (left / whole.name).read_bytes() == whole.read_bytes()
    assert not list(left.glob("*.tmp"))


def test_a_key_of_files_changes_with_them(tmp_path):
    (tmp_path / "a").write_bytes(b"12")
    before = packing.describe_files(tmp_path, [tmp_path / "a"])
    assert before == packing.describe_files(tmp_path, [tmp_path / "a"])
    os.utime(tmp_path / "a", (1, 1))
    touched = packing.describe_files(tmp_path, [tmp_path / "a"])
    (tmp_path / "a").write_bytes(b"123")
    os.utime(tmp_path / "a", (1, 1))
    assert len({str(key) for key in (before, touched, packing.describe_files(tmp_path, [tmp_path / "a"]))}) == 3


def test_a_disk_without_locks_is_named(own_cache, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(DataError, match=r"\.lock: No locks available: .* METARUN_LOCK=off"):
        packing.load_packed("x", [], _chunks)
    monkeypatch.setenv("METARUN_LOCK", "off")
    assert len(packing.load_packed("x", [], _chunks)) == 2


def test_a_cache_that_cannot_be_written_is_named(own_cache):
    own_cache.write_text("a file")
    with pytest.raises(DataError, match=r"\(cache\): expected a folder with room .* or set XDG_CACHE_HOME"):
        packing.load_packed("x", [], _chunks)


def test_no_home_folder_is_said(monkeypatch):
    """As in a container whose user has no name."""
    monkeypatch.undo()
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    for ask in (lambda: packing.expand("~/.cache"), lambda: Omniglot(root="~/data")):
        with pytest.raises(DataError, match=r"\(home folder\): there is none; expected HOME.*XDG_CACHE_HOME"):
            ask()
    assert Omniglot(root="/data").root == Path("/data"), "where it is not needed, it may be missing"


def test_packing_that_takes_long_is_said(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "metarun")
    monkeypatch.setattr(logging.getLogger("metarun"), "propagate", True)
    monkeypatch.setattr(packing, "cache", lambda: tmp_path)
    monkeypatch.setattr(packing, "PATIENCE", 0.01)

    def make(seconds):
        def chunks():
            deadline = time.monotonic() + 10
            while seconds and not caplog.messages and time.monotonic() < deadline:
                time.sleep(0.001)
            yield "a", np.zeros((2, 3), np.uint8)
            return {}

        return chunks

    packing.load_packed("slow", 1, make(10))
    assert caplog.messages == [f"packing slow into {tmp_path}, once"]
    monkeypatch.setattr(packing, "PATIENCE", 100)
    packing.load_packed("quick", 1, make(0))
    assert len(caplog.messages) == 1
