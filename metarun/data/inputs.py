"""What a user has, made into what a learner takes: the preprocessing of a run, kept as plain data beside it.

A source says in preprocessing() what it does to its examples. The run keeps that, so that the very same is done to
examples that come later, on a machine without the data.

n examples.
"""

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from metarun.data.columns import Columns
from metarun.data.decode import decode, fit_image, resize
from metarun.data.frames import labels
from metarun.errors import DataError
from metarun.tasks import TaskSource

Plain = dict[str, Any]


def describe_inputs(source: TaskSource) -> Plain:
    """The preprocessing of a source as plain data: its `kind`, and the `shape` of an example.

    `images`, `table` and `text` say more; sources that say nothing have inputs that are taken as they are, `numbers`.
    """
    plain = source.preprocessing() if hasattr(source, "preprocessing") else {"kind": "numbers"}
    return {**plain, "shape": list(source.input_shape)}


def encode(inputs: Plain, x: Any) -> np.ndarray:
    """float32 [n, *shape]: what the learner takes.

    Args:
        inputs: as describe_inputs() gives them.
        x: n examples. Images: paths, PIL images, or uint8 arrays [n, H, W] or [n, H, W, C]. Rows: a DataFrame with the
            columns of training, or an array of them in order. Texts: words, or a DataFrame with their column. Numbers
            and whatever has the shape already: arrays or tensors.

    Raises:
        DataError: they are of another kind or shape.
        UsageError: a column is missing.
    """
    x = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x
    x = [x] if isinstance(x, (str, Path, Image.Image)) else x
    known: dict[str, Callable[[Plain, Any], np.ndarray]] = {
        "images": _encode_images,
        "table": _encode_rows,
        "text": _encode_texts,
        "numbers": _encode_numbers,
    }
    return known[inputs["kind"]](inputs, x)


def encode_text(text: str, symbols: dict[str, int], length: int) -> np.ndarray:
    """[L] int16: the number of each symbol from 1 on, one more for all that are not known, 0 behind the end."""
    codes = np.zeros(length, dtype=np.int16)
    found = [symbols.get(symbol, len(symbols) + 1) for symbol in unicodedata.normalize("NFC", text)[:length]]
    codes[: len(found)] = found
    return codes


def number_symbols(symbols: str) -> dict[str, int]:
    """{symbol: its number, from 1 on}."""
    return {symbol: number for number, symbol in enumerate(symbols, start=1)}


def _encode_images(inputs: Plain, x: Any) -> np.ndarray:
    shape = tuple(inputs["shape"])
    channels, *size = shape
    form = ((size[0], size[1]), channels, inputs["invert"])
    if isinstance(x, np.ndarray) and x.dtype != object and x.dtype.kind != "U":
        if x.shape[1:] == shape or x.dtype != np.uint8:
            return _encode_numbers(inputs, x)
        return resize(x, *form).astype(np.float32) / np.float32(255)
    pixels = []
    for example in x:
        if isinstance(example, (str, Path)):
            pixels.append(decode(Path(example), *form))
        elif isinstance(example, Image.Image):
            pixels.append(fit_image(example, *form))
        else:
            array = np.asarray(example)
            pixels.append(array if array.shape == shape and array.dtype == np.uint8 else resize(array[None], *form)[0])
    return np.stack(pixels).astype(np.float32) / np.float32(255) if pixels else np.zeros((0, *shape), np.float32)


def _encode_rows(inputs: Plain, x: Any) -> np.ndarray:
    import pandas as pd

    columns = Columns.from_dict(inputs)
    names = [column.name for column in columns.columns]
    if not isinstance(x, pd.DataFrame):
        array = np.asarray(x)
        if array.ndim != 2 or array.shape[1] != len(names):
            rule = f"[n, {len(names)}], the columns {', '.join(names[:10])}{', ...' if names[10:] else ''}"
            raise DataError(f"{_shape(array)} (examples): expected {rule}; give those, or a DataFrame with them")
        x = pd.DataFrame(array, columns=names)
    return columns.transform(x, "examples")


def _encode_texts(inputs: Plain, x: Any) -> np.ndarray:
    import pandas as pd

    if isinstance(x, pd.DataFrame):
        x = labels(x[inputs["text"]]).fillna("") if inputs["text"] in x else x.iloc[:, 0]
    texts = list(np.asarray(x, dtype=object).reshape(-1))
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise DataError(f"{wrong[0]!r} (examples): expected texts")
    length, count = inputs["shape"]
    symbols = number_symbols(inputs["symbols"])
    codes = np.stack([encode_text(text, symbols, length) for text in texts]) if texts else np.zeros((0, length), int)
    return np.eye(count + 1, dtype=np.float32)[codes][..., 1:]


def _encode_numbers(inputs: Plain, x: Any) -> np.ndarray:
    shape = tuple(inputs["shape"])
    try:
        array = np.asarray(x)
        scale = np.float32(255) if array.dtype == np.uint8 and inputs["kind"] != "numbers" else np.float32(1)
        array = array.astype(np.float32) / scale
    except (TypeError, ValueError) as error:
        raise DataError(f"{type(x).__name__} (examples): expected numbers [n, {_sizes(shape)}]") from error
    if array.ndim == 1 and shape == (1,):
        array = array[:, None]
    if array.shape[1:] != shape or not array.ndim:
        raise DataError(f"{_shape(array)} (examples): expected [n, {_sizes(shape)}], as in training")
    if not np.isfinite(array).all():
        raise DataError("nan or infinity (examples): expected finite numbers; fill or drop them")
    return array


def _shape(array: np.ndarray) -> str:
    return f"[{_sizes(array.shape)}]"


def _sizes(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
