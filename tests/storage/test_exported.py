"""Exported learners are whole or refused in a line: bits, cuts, headers that a stranger wrote, files that are others'."""

import json
import random
import struct

import numpy as np
import pytest
import safetensors.torch as torch_file
import torch

from metarun.errors import MetarunError, RunDirError, UsageError
from metarun.storage import exported
from metarun.storage.exported import VERSION, read_exported, write_exported
from metarun.storage.learner_records import Exported

FACTS = Exported(
    version=VERSION, name="run", config={"seed": 0}, inputs={"kind": "numbers", "shape": [3]}, outputs=1, metric="mse"
)
TENSORS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(0.5, np.float32), "y": np.arange(2)}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "learner.safetensors"
    write_exported(path, FACTS, TENSORS, "a card\nof two lines, ±")
    return path


def _parts(content):
    """The header as JSON has it, and the bytes behind it."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _join(header, rest):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def _refused(path, content):
    path.write_bytes(content)
    with pytest.raises(RunDirError) as caught:
        read_exported(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_read(file):
    facts, tensors = read_exported(file)
    assert facts == FACTS
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert (tensors[name].dtype, tensors[name].shape) == (value.dtype, value.shape)
        assert tensors[name].tobytes() == value.tobytes()
    found = torch_file.load_file(file)  # as others read it
    assert torch.equal(found["w"], torch.from_numpy(TENSORS["w"]))
    content = file.read_bytes()
    write_exported(file, FACTS, dict(reversed(TENSORS.items())), "a card\nof two lines, ±")
    assert file.read_bytes() == content, "the same learner, the same bytes"


def test_a_flipped_bit_anywhere_is_seen(file):
    content, rng = bytearray(file.read_bytes()), random.Random(0)
    for place in range(len(content)):  # of length, header, facts, card, digest, tensors
        bit = 1 << rng.randrange(8)
        content[place] ^= bit
        assert str(file) in _refused(file, bytes(content)), place
        content[place] ^= bit


def test_a_cut_or_a_longer_file_is_seen(file):
    content = file.read_bytes()
    for length in range(0, len(content), 5):
        _refused(file, content[:length])
    _refused(file, content + b"\0")


def test_a_newer_version_is_named(file):
    facts = FACTS.model_copy(update={"version": VERSION + 1})
    write_exported(file, facts, TENSORS, "")
    assert f"of version {VERSION + 1}" in _refused(file, file.read_bytes())


HUGE = b"9" * 5000
HEADERS = {
    "no object": b"[]",
    "no metadata": b"{}",
    "metadata of another kind": b'{"__metadata__": [1]}',
    "nested deep": b"[" * 100_000,
    "a huge number": b'{"__metadata__": ' + HUGE + b"}",
    "a number for a text": b'{"__metadata__": {"format": "pt", "metarun": 1, "sha256": "", "card": ""}}',
    "a key too many": b'{"__metadata__": {"format": "pt", "metarun": "", "sha256": "", "card": "", "more": ""}}',
}
FACTS_OF_STRANGERS = ["", "1", "[]", "{", '{"version": true}', '{"version": 1e999}', '{"version": "9"}', "[" * 100_000]


def test_headers_of_strangers_are_refused(file):
    good, rest = _parts(file.read_bytes())
    for name, header in HEADERS.items():
        assert "not an exported learner" in _refused(file, _join(header, rest)), name
    for text in [*FACTS_OF_STRANGERS, '{"version": ' + "9" * 5000 + "}"]:
        header = {**good, "__metadata__": {**good["__metadata__"], "metarun": text}}
        _refused(file, _join(header, rest))
        header["__metadata__"]["sha256"] = exported._digest(text, header["__metadata__"]["card"], TENSORS)
        _refused(file, _join(header, rest))  # the digest is no secret
    _refused(file, struct.pack("<Q", 2**63) + b"{}")
    _refused(file, struct.pack("<Q", exported.LARGEST_HEADER + 1) + b"{}")


def test_only_an_exported_learner_is_replaced(file, tmp_path):
    write_exported(file, FACTS, {"w": np.zeros(1)}, "")
    assert list(read_exported(file)[1]) == ["w"]
    other = tmp_path / "other.safetensors"
    for make in (lambda: other.write_bytes(b"my weights"), other.mkdir, lambda: other.symlink_to("nowhere")):
        make()
        with pytest.raises(RunDirError, match="no exported learner"):
            write_exported(other, FACTS, TENSORS, "")
        other.rmdir() if other.is_dir() else other.unlink()
    with pytest.raises(UsageError, match=r"ends in \.safetensors"):
        write_exported(tmp_path / "weights.pt", FACTS, TENSORS, "")
    with pytest.raises(MetarunError, match="is a file"):
        write_exported(file / "x.safetensors", FACTS, TENSORS, "")
    assert {path.name for path in tmp_path.iterdir()} == {file.name}
    with pytest.raises(RunDirError):
        read_exported(tmp_path / "absent.safetensors")
