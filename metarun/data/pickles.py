"""Pickles that strangers made, read without running anything that they name.

A pickle is a program for a small stack machine. This reader knows the instructions that make dict, list, tuple, str,
bytes, int, float, bool and None, and of all functions that a pickle may call the few that NumPy's arrays are made of,
each in a stand-in of our own. NumPy itself sees nothing but a plain dtype, a shape and as many bytes as go with them.

We differ from pickle.Unpickler with its find_class overridden: an instruction that is not listed here does not exist,
so there are no objects, no persistent ids and no extension codes to be careful with; and memory is bounded by the size
of the file, as the C reader sets aside what a number in the file asks for.
"""

import math
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from metarun.errors import DataError
from metarun.text import reason, spell

EXPECTED = "expected a pickle of dict, list, str, int and numpy arrays"
REMEDY = "save the arrays with numpy.savez and read them as data.layout=npz"
LARGEST_COPY = 4  # bytes that arrays may take for a byte of the file; a text of latin-1 is decoded once and copied once
PLAIN = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[SU][1-9]\d{0,4})")


def load_pickle(path: Path) -> Any:
    """What the pickle holds: dict, list, tuple, str, bytes, int, float, bool, None and numpy arrays, and no code runs.

    Texts and arrays of Python 2 are read as latin-1. Arrays may be read-only.

    Raises:
        DataError: it is damaged, it names anything but numpy arrays, or it cannot be read.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise pickle.UnpicklingError("is not a regular file")
        with path.open("rb") as file:
            return _Reader(_Bounded(file, size)).load()
    except _RefusedError as error:
        raise DataError(f"{path} {error} (data.root): {EXPECTED}, and nothing of it was run; {REMEDY}") from error
    except OSError as error:
        raise DataError(f"{path}: {reason(error)} (data.root): expected a file that can be read; mend that") from error
    except Exception as error:  # a damaged pickle raises all kinds of errors
        why = reason(error) or type(error).__name__
        raise DataError(f"{path} is no readable pickle ({why}) (data.root): {EXPECTED}; replace it") from error


class _RefusedError(Exception):
    """The pickle wants more than plain data; says what."""


class _Bounded:
    """A file of which no more is asked for than there is: a number in a pickle reserves no memory."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.size = file, size

    def read(self, count: int) -> bytes:
        return self.file.read(max(0, min(count, self.size - self.file.tell())))

    def readline(self) -> bytes:
        return self.file.readline(self.size)


@dataclass
class _DType:
    """A dtype as a pickle makes it: its code first, its byte order later."""

    code: str
    order: str = ""

    def as_numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code.lstrip("<>|="))


class _Fresh(np.ndarray):
    """An array that was made, and not filled yet. Never leaves this file."""


NDARRAY = object()  # stands for the class numpy.ndarray, which a pickle may name but not call


def _make_dtype(code: str, *_: Any) -> _DType:
    if not isinstance(code, str) or not PLAIN.fullmatch(code):
        raise _RefusedError(f"has an array of dtype {spell(code)}")
    return _DType(code, code[0] if code[0] in "<>" else "=")


def _reconstruct(*_: Any) -> np.ndarray:
    return _Fresh(0, np.uint8)


def _frombuffer(content: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> np.ndarray:
    return _array(content, dtype, shape, fortran=order == "F")


def _scalar(dtype: _DType, content: bytes | str) -> Any:
    return _array(content, dtype, (), fortran=False)[()]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"encodes by {spell(encoding)}")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    """How protocols 0 to 2 write b""."""
    return b""


def _array(content: bytes | str, dtype: _DType, shape: tuple[int, ...], fortran: bool) -> np.ndarray:
    """The array over these bytes, which have to be exactly as many as dtype and shape ask for."""
    content = content.encode("latin1") if isinstance(content, str) else content
    if not (isinstance(content, bytes) and isinstance(dtype, _DType) and isinstance(shape, tuple)):
        raise _RefusedError("has an array of objects")
    plain = dtype.as_numpy()
    if math.prod(shape) * plain.itemsize != len(content):
        raise _RefusedError(f"has an array of shape {spell(shape)} and dtype {plain} in {len(content)} bytes")
    return np.frombuffer(content, plain).reshape(shape, order="F" if fortran else "C")


def _names(modules: str, function: str, stand_in: object) -> dict[tuple[str, str], object]:
    return {(module, function): stand_in for module in modules.split()}


CALLABLE: dict[tuple[str, str], object] = {
    **_names("numpy.core.multiarray numpy._core.multiarray", "_reconstruct", _reconstruct),
    **_names("numpy.core.multiarray numpy._core.multiarray", "scalar", _scalar),
    **_names("numpy.core.numeric numpy._core.numeric", "_frombuffer", _frombuffer),
    **_names("numpy", "dtype", _make_dtype),
    **_names("_codecs codecs", "encode", _encode),
    **_names("__builtin__ builtins", "bytes", _empty_bytes),
    **_names("numpy", "ndarray", NDARRAY),
}
CALLS = tuple(call for call in CALLABLE.values() if call is not NDARRAY)

# Of the stack, of plain values and containers, of the memo: as the standard library has them.
INSTRUCTIONS = """
    PROTO FRAME STOP MARK POP POP_MARK
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS
    GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL
"""
BYTES = [getattr(pickle, name)[0] for name in INSTRUCTIONS.split()]


class _Instructions(dict[int, Callable[["_Reader"], None]]):
    """The instructions by their byte; one that is not listed is refused by its name."""

    def __missing__(self, byte: int) -> Callable[["_Reader"], None]:
        names = [name for name in pickle.__all__ if getattr(pickle, name) == bytes([byte])]
        raise _RefusedError(f"makes objects ({names[0] if names else hex(byte)})")


class _Reader(pickle._Unpickler):
    """Python's own reader with the instructions above, and stand-ins for those that call."""

    dispatch: ClassVar[dict[int, Callable[["_Reader"], None]]] = _Instructions(
        (byte, pickle._Unpickler.dispatch[byte]) for byte in BYTES
    )

    def __init__(self, file: _Bounded):
        super().__init__(file, fix_imports=False, encoding="latin1")
        self.room = LARGEST_COPY * file.size + 1000

    def load(self) -> Any:
        """The value, in which filled arrays have taken the places of fresh ones."""
        self.filled: dict[int, np.ndarray] = {}
        self.seen: dict[int, Any] = {}
        return self.resolve(super().load())

    def find_class(self, module: str, name: str) -> Any:
        try:
            return CALLABLE[module, name]
        except KeyError:
            raise _RefusedError(f"names {spell(f'{module}.{name}')}") from None

    def call(self) -> None:
        """REDUCE."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not any(function is known for known in CALLS) or type(arguments) is not tuple:
            raise _RefusedError("calls what is no function of numpy's arrays")
        self.stack.append(self.charge(function(*arguments)))

    dispatch[pickle.REDUCE[0]] = call

    def build(self) -> None:
        """BUILD: a dtype gets its byte order, an array its content."""
        state, made = self.stack.pop(), self.stack[-1]
        if type(state) is tuple and isinstance(made, _DType) and len(state) >= 2 and state[1] in ("<", ">", "|", "="):
            made.order = "=" if state[1] == "|" else state[1]
        elif type(state) is tuple and isinstance(made, _Fresh) and len(state) == 5:
            _, shape, dtype, fortran, content = state
            self.filled[id(made)] = self.charge(_array(content, dtype, shape, bool(fortran)))
            self.seen[id(made)] = made  # or its id would be given to another
        else:
            raise _RefusedError("sets the state of what is no array")

    dispatch[pickle.BUILD[0]] = build

    def load_bytearray8(self) -> None:
        """BYTEARRAY8, as bytes; the library's own sets the memory aside first."""
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def charge(self, made: Any) -> Any:
        """The value, if its bytes are not more than a file of this size can ask for."""
        self.room -= made.nbytes if isinstance(made, np.ndarray) else len(made) if isinstance(made, bytes) else 0
        if self.room < 0:
            raise _RefusedError("makes far larger arrays than it has bytes")
        return made

    def resolve(self, value: Any) -> Any:
        """The value with its arrays filled; what is in several places stays one object."""
        if id(value) in self.filled:
            return self.filled[id(value)]
        if isinstance(value, _Fresh):
            raise _RefusedError("has an array without content")
        if type(value) not in (dict, list, tuple):
            return value
        if id(value) not in self.seen:
            self.seen[id(value)] = value
            if isinstance(value, dict):
                value.update({key: self.resolve(item) for key, item in value.items()})
            elif isinstance(value, list):
                value[:] = map(self.resolve, value)
            else:
                self.seen[id(value)] = tuple(map(self.resolve, value))
        return self.seen[id(value)]
