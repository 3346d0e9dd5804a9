"""Pickles: arrays come out as NumPy's own reader has them, and no code of a stranger's file runs."""

import copyreg
import functools
import io
import os
import pickle
import struct

import numpy as np
import pytest

from metarun.data.pickles import load_pickle
from metarun.errors import DataError

RAN = "a_pickle_ran_code"


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        np.array([True, False]),
        np.array(["Ä", "b"]),
        np.array([b"ab", b"c"]),
        np.zeros((0, 3), np.float32),
        np.arange(12, dtype=np.float64)[::2],
        np.array(3.5),
    ],
    ids=str,
)
def test_arrays_are_as_numpys_reader_has_them(tmp_path, array, protocol):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"data": array}, protocol))
    loaded = load_pickle(tmp_path / "a.pkl")["data"]
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back_and_stay_shared(tmp_path, protocol):
    labels = [3, -1, 2**70, 300, 70000]
    array = np.arange(3)
    value = {
        "labels": labels,
        "again": (labels, (array, array)),
        "n": None,
        "x": 1.5,
        "b": b"\xff",
        "t": "ä🦊\n",
        1: True,
    }
    value["number"] = np.int64(7)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol))
    loaded = load_pickle(tmp_path / "a.pkl")
    (shared, (first, second)), value_array = loaded.pop("again"), value.pop("again")[1][0]
    assert loaded == value
    assert shared is loaded["labels"]
    assert first is second
    np.testing.assert_array_equal(first, value_array)


def test_a_list_that_holds_itself_ends(tmp_path):
    knot: list = [np.arange(2)]
    knot.append((knot, knot[0]))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(knot))
    loaded = load_pickle(tmp_path / "a.pkl")
    assert loaded[1][0] is loaded
    np.testing.assert_array_equal(loaded[1][1], [0, 1])


PYTHON_2 = (  # what Python 2 and its NumPy wrote for {"data": array([[200, 65]], uint8), "labels": ["é" in latin-1]}
    b"\x80\x02}q\x00(U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04U\x01b"
    b"\x87q\x05Rq\x06(K\x01K\x01K\x02\x86q\x07cnumpy\ndtype\nq\x08U\x02u1q\tK\x00K\x01\x87q\nRq\x0b(K\x03U\x01|NNNJ\xff\xff"
    b"\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\xc8AtbU\x06labels]U\x01\xe9au."
)


def test_a_pickle_of_python_2_is_read_as_latin_1(tmp_path):
    (tmp_path / "a.pkl").write_bytes(PYTHON_2)
    loaded = load_pickle(tmp_path / "a.pkl")
    assert loaded["labels"] == ["é"]
    np.testing.assert_array_equal(loaded["data"], np.array([[200, 65]], np.uint8))


class _Calls:
    """Pickles as a call of a function with arguments, and more of what __reduce__ may give."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


class _Array(np.ndarray):
    """A subclass, as a stranger may have it."""


class _Persistent(pickle.Pickler):
    def persistent_id(self, value):
        return "os.system" if value == "p" else None


def _persistent(protocol):
    buffer = io.BytesIO()
    _Persistent(buffer, protocol).dump({"data": "p"})
    return buffer.getvalue()


def _array_state(dtype, *state):
    """An array whose state is this, with a real NumPy's names."""
    reconstruct = np.arange(2).__reduce__()[0]
    return _Calls(reconstruct, (np.ndarray, (0,), b"b"), (1, *state[:1], dtype, False, *state[1:]))


TOUCH = f"open({RAN!r}, 'w').close()"
U1 = np.dtype("u1")
RECONSTRUCT = np.arange(2).__reduce__()[0]
HOSTILE = {
    "system": _Calls(os.system, (f"touch {RAN}",)),
    "eval": _Calls(eval, (TOUCH,)),
    "exec": _Calls(exec, (TOUCH,)),
    "getattr": _Calls(getattr, ("", "join")),
    "open": _Calls(open, (RAN, "w")),
    "partial": functools.partial(os.system, f"touch {RAN}"),
    "import": _Calls(__import__, ("antigravity",)),
    "object with a state": _Calls(_Calls, (), {"x": 1}),
    "copyreg": _Calls(copyreg._reconstructor, (_Calls, object, None)),
    "new object": _Calls(copyreg.__newobj__, (_Calls,)),
    "new object with names": _Calls(copyreg.__newobj_ex__, (_Calls, (), {})),
    "list items appended to a call": _Calls(list, (), None, iter([1])),
    "set": {1, 2},
    "frozenset": frozenset((1, 2)),
    "complex": 1j,
    "objects in an array": np.array([None, {"a": 1}], object),
    "code in an array": np.array([_Calls(os.system, (f"touch {RAN}",))], object),
    "structured": np.zeros(2, [("a", "u1"), ("b", "f4")]),
    "dates": np.zeros(2, "M8[s]"),
    "array subclass": np.arange(3).view(_Array),
    "reconstruct of another class": _Calls(RECONSTRUCT, (_Array, (0,), b"b")),
    "bytes of a number": _Calls(bytes, (1 << 40,)),
    "array made, not filled": _Calls(RECONSTRUCT, (np.ndarray, (0,), b"b")),
    "state of another length": _Calls(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (2,), U1)),
    "more elements than bytes": _array_state(U1, (2**40,), b"ab"),
    "negative shape": _array_state(U1, (-1, -2), b"ab"),
    "shape is no tuple": _array_state(U1, [2], b"ab"),
    "content is a list": _array_state(U1, (2,), [1, 2]),
    "dtype is a text": _array_state("u1", (2,), b"ab"),
    "ndarray called": _Calls(np.ndarray, ((1 << 40,),)),
    "numpy load": _Calls(np.load, ("x.npy", None, True)),
    "numpy fromfile": _Calls(np.fromfile, ("/etc/passwd",)),
    "memory map": _Calls(np.memmap, (RAN,)),
}
RAW = {
    "dotted name": b"\x80\x04\x8c\x16numpy.core.multiarray\x8c\x0f_reconstruct.__globals__\x93.",
    "name through a module": b"\x80\x04\x8c\x05numpy\x8c\x09os.system\x93\x8c\x04true\x85R.",
    "stack global of os": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "instance, protocol 0": b"(S'true'\nios\nsystem\n.",
    "object, protocol 1": b"(cos\nsystem\nS'true'\no.",
    "new object": b"\x80\x02cnumpy\nndarray\n\x4b\x05\x85\x81.",
    "reduce of a text": b"\x80\x02U\x02os)R.",
    "reduce of the class": b"\x80\x02cnumpy\nndarray\n)R.",
    "build on a list": b"\x80\x02](K\x01tb.",
    "build with a dict": b"\x80\x02cnumpy\ndtype\nU\x02u1\x85R}U\x01xK\x01sb.",
    "extension code": b"\x80\x02\x82\x01.",
    "out of band buffer": b"\x80\x05\x97.",
    "codec that runs": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.",
    "bytes of a terabyte": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"ab.",
    "bytearray of a terabyte": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"ab.",
    "unhashable key": b"\x80\x02}]K\x01s.",
    "empty": b"",
    "text": b"this is no pickle\n",
    "truncated": pickle.dumps({"data": np.arange(10)})[:-20],
    "persistent id": _persistent(2),
    "persistent id, protocol 0": b"Pos.system\n.",
}


def _hostile():
    for name, value in HOSTILE.items():
        for protocol in (0, 2, 4, 5):
            try:
                yield pytest.param(pickle.dumps({"labels": [1], "data": [value]}, protocol), id=f"{name}-{protocol}")
            except (pickle.PicklingError, ValueError):
                assert protocol == 0
    yield from (pytest.param(content, id=name) for name, content in RAW.items())


@pytest.mark.parametrize("content", _hostile())
def test_a_hostile_pickle_is_refused_in_a_line_and_runs_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.pkl.*data\.root.*expected.*; ") as refused:
        load_pickle(tmp_path / "a.pkl")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


def test_a_large_memo_number_takes_no_memory(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02]r\xff\xff\xff\xff.")
    assert load_pickle(tmp_path / "a.pkl") == []


def test_a_text_that_is_encoded_again_and_again_is_refused(tmp_path):
    call = b"h\x01h\x00\x85R"
    text = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02(" + text + b"q\x00c_codecs\nencode\nq\x01" + call * 5 + b"t.")
    with pytest.raises(DataError, match="far larger arrays"):
        load_pickle(tmp_path / "a.pkl")


def test_a_folder_or_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.pkl"):
        with pytest.raises(DataError, match=r"data\.root"):
            load_pickle(path)
