"""What a user has, made into what a learner takes: the preprocessing of a run, kept as plain data beside it.

A source says in preprocessing() what it does to its examples. The run keeps that, so that the very same is done to
examples that come later, on a machine without the data.

n examples.
"""

import json
import logging
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from metarun.data.columns import Column, Columns
from metarun.data.decode import decode, fit_image, resize
from metarun.data.frames import check_columns, labels
from metarun.errors import DataError
from metarun.tasks import TaskSource
from metarun.text import count_of

log = logging.getLogger("metarun")
Plain = dict[str, Any]
Size = Annotated[int, Field(ge=1, le=10**6)]


def describe_inputs(source: TaskSource) -> Plain:
    """The preprocessing of a source as plain data: its `kind`, and the `shape` of an example.

    `images`, `table` and `text` say more; sources that say nothing have inputs that are taken as they are, `numbers`.
    """
    plain = source.preprocessing() if hasattr(source, "preprocessing") else {"kind": "numbers"}
    return {**plain, "shape": list(source.input_shape)}


def name_inputs(inputs: Plain) -> list[str]:
    """What each place of an example stands for: the features of a table's rows, the symbols of texts; [] of others."""
    known: dict[str, Callable[[], list[str]]] = {
        "table": lambda: Columns.from_dict(inputs).features,
        "text": lambda: list(inputs["symbols"]),
    }
    return known.get(inputs["kind"], list)()


class _Target(TypedDict):
    name: str
    mean: NotRequired[float]  # of training, in regression
    sd: NotRequired[Annotated[float, Field(gt=0)]]
    classes: NotRequired[Annotated[list[str], Field(min_length=2)]]  # of training, where all tasks have the same


class _Numbers(TypedDict):
    kind: Literal["numbers"]
    shape: Annotated[list[Size], Field(min_length=1)]
    scale: NotRequired[Literal[255]]  # by which the whole numbers of training, uint8, were divided
    target: NotRequired[_Target]


class _Images(TypedDict):
    kind: Literal["images"]
    shape: Annotated[list[Size], Field(min_length=3, max_length=3)]
    invert: bool
    target: NotRequired[_Target]


class _Texts(TypedDict):
    kind: Literal["text"]
    shape: Annotated[list[Size], Field(min_length=2, max_length=2)]
    text: str
    symbols: str
    target: _Target


class _Table(TypedDict):
    kind: Literal["table"]
    shape: Annotated[list[Size], Field(min_length=1, max_length=1)]
    columns: list[Column]
    target: _Target


@cache
def _adapter() -> TypeAdapter:
    known = Annotated[_Numbers | _Images | _Texts | _Table, Field(discriminator="kind")]
    return TypeAdapter(known, config=ConfigDict(allow_inf_nan=False, extra="forbid"))


def check_inputs(inputs: Plain) -> None:
    """Refuses what is no preprocessing of a run: it may come from a stranger's file.

    Raises:
        ValueError: it is none; in one line.
    """
    try:
        _adapter().validate_json(json.dumps(inputs), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"preprocessing ({'.'.join(map(str, first['loc']))}): {first['msg']}") from error
    given = inputs["shape"][-1]
    if inputs["kind"] == "table" and given != (found := len(Columns.from_dict(inputs).features)):
        raise ValueError(f"preprocessing (columns): {found} features, expected {given}")
    if inputs["kind"] == "text" and given != (found := len(inputs["symbols"]) + 1):
        raise ValueError(f"preprocessing (symbols): {found} with one for others, expected {given}")


def encode(inputs: Plain, x: Any, where: str = "examples") -> np.ndarray:
    """float32 [n, *shape]: what the learner takes.

    Args:
        inputs: as describe_inputs() gives them.
        x: n examples. Images: paths, PIL images, or arrays of whole numbers from 0 to 255, [n, H, W], [n, H, W, C] or
            [n, C, H, W]; floats [n, *shape] from 0 to 1 are taken as they are. Rows: a DataFrame with the columns of
            training, or an array of them in order. Texts: words, or a DataFrame with their column. Numbers: arrays or
            tensors; where training had uint8, integers from 0 to 255, or floats from 0 to 1.
        where: what they are called in messages, such as `support`.

    Raises:
        DataError: they are of another kind or shape.
        UsageError: a column is missing.
    """
    x = _as_array(x) if isinstance(x, torch.Tensor) else x
    x = x.to_pandas() if hasattr(x, "to_pandas") else x  # frames of other libraries, whose columns have names too
    x = [x] if isinstance(x, (str, Path, Image.Image)) else x
    known: dict[str, Callable[[Plain, Any, str], np.ndarray]] = {
        "images": _encode_images,
        "table": _encode_rows,
        "text": _encode_texts,
        "numbers": _encode_numbers,
    }
    return known[inputs["kind"]](inputs, x, where)


def encode_text(text: str, symbols: dict[str, int], length: int) -> np.ndarray:
    """[L] int16: the number of each symbol from 1 on, one more for all that are not known, 0 behind the end."""
    codes = np.zeros(length, dtype=np.int16)
    found = [symbols.get(symbol, len(symbols) + 1) for symbol in unicodedata.normalize("NFC", text)[:length]]
    codes[: len(found)] = found
    return codes


def number_symbols(symbols: str) -> dict[str, int]:
    """{symbol: its number, from 1 on}."""
    return {symbol: number for number, symbol in enumerate(symbols, start=1)}


def _encode_images(inputs: Plain, x: Any, where: str) -> np.ndarray:
    channels, height, width = shape = tuple(inputs["shape"])
    form = ((height, width), channels, inputs["invert"])
    if hasattr(x, "columns"):
        if len(x.columns) != 1:
            raise DataError(f"{len(x.columns)} columns ({where}): expected one, of the paths of images")
        x = x.iloc[:, 0]
    if isinstance(x, np.ndarray) and x.dtype.kind in "fiub":
        if x.dtype.kind == "f":
            return _take_pixels(inputs, x, where)
        return _fit_pixels(x, form, shape, where).astype(np.float32) / np.float32(255)
    if not isinstance(x, Iterable):
        raise DataError(f"{x!r} ({where}): expected images: paths, PIL images, or uint8 arrays")
    pixels = []
    for example in x:
        if isinstance(example, (str, Path)):
            pixels.append(decode(Path(example), *form, where))
        elif isinstance(example, Image.Image):
            pixels.append(fit_image(example, *form))
        elif (array := _as_array(example)).dtype.kind == "f":
            pixels.append(_take_pixels(inputs, array[None], where)[0])
            continue
        else:
            pixels.append(_fit_pixels(array[None], form, shape, where)[0])
        pixels[-1] = pixels[-1].astype(np.float32) / np.float32(255)
    return np.stack(pixels) if pixels else np.zeros((0, *shape), np.float32)


def _fit_pixels(
    x: np.ndarray, form: tuple[tuple[int, int], int, bool], shape: tuple[int, ...], where: str
) -> np.ndarray:
    """uint8 [n, C, H, W] of whole numbers from 0 to 255, channels last, or first as torch has them, or none."""
    if x.dtype.kind not in "iu" or (x.size and not 0 <= x.min() <= x.max() <= 255):
        raise DataError(f"{x.dtype} ({where}): expected images of whole numbers from 0 to 255, or floats from 0 to 1")
    first = x.ndim == 4 and (x.shape[1:] == shape or (x.shape[1] in (1, 3) and x.shape[3] not in (1, 3, 4)))
    return resize((x.transpose(0, 2, 3, 1) if first else x).astype(np.uint8), *form, where)


def _take_pixels(inputs: Plain, x: np.ndarray, where: str) -> np.ndarray:
    """Floats as the learner takes them: scaled to it, inverted where it inverts, from 0 to 1."""
    numbers = _take_numbers(inputs, x, where)
    if numbers.size and not 0 <= numbers.min() <= numbers.max() <= 1:
        found = f"from {numbers.min():.4g} to {numbers.max():.4g}"
        inverted = ", dark as bright" if inputs.get("invert") else ""
        rule = f"floats from 0 to 1 as the learner takes them{inverted}"
        raise DataError(f"{found} ({where}): expected {rule}; or give whole numbers from 0 to 255")
    return numbers


def _encode_rows(inputs: Plain, x: Any, where: str) -> np.ndarray:
    import pandas as pd

    columns = Columns.from_dict(inputs)
    names = [column.name for column in columns.columns]
    if not isinstance(x, pd.DataFrame):
        array = np.asarray(x)
        if array.ndim != 2 or array.shape[1] != len(names):
            rule = f"[n, {len(names)}], the columns {', '.join(names[:10])}{', ...' if names[10:] else ''}"
            raise DataError(f"{_shape(array)} ({where}): expected {rule}; give those, or a DataFrame with them")
        x = pd.DataFrame(array, columns=names)
    found = columns.transform(x, where)
    for column in columns.columns:
        if column.knows_none(x[column.name]):
            cells, values = labels(x[column.name]).dropna(), ", ".join(column.values[:10])
            log.warning(
                f"{cells.iloc[0]!r} (column {column.name!r}, {where}): expected values that training had: {values}; "
                "no cell has one, and the learner sees none"
            )
        if gaps := column.count_new_gaps(x[column.name]):
            taken = "the mean of training" if column.kind in ("number", "frequency") else "no category"
            given = f"{count_of(gaps, 'gap')} (column {column.name!r}, {where})"
            log.warning(f"{given}: expected none, as in training; taken for {taken}")
    return found


def _encode_texts(inputs: Plain, x: Any, where: str) -> np.ndarray:
    import pandas as pd

    if isinstance(x, pd.DataFrame):
        if len(x.columns) > 1:
            check_columns(x, [inputs["text"]], where)
        x = labels(x[inputs["text"]]).fillna("") if inputs["text"] in x else x.iloc[:, 0]
    texts = list(np.asarray(x, dtype=object).reshape(-1))
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise DataError(f"{wrong[0]!r} ({where}): expected texts")
    texts = [text.strip() for text in texts]  # as those of training were
    length, count = inputs["shape"]
    symbols = number_symbols(inputs["symbols"])
    codes = np.stack([encode_text(text, symbols, length) for text in texts]) if texts else np.zeros((0, length), int)
    return np.eye(count + 1, dtype=np.float32)[codes][..., 1:]


def _encode_numbers(inputs: Plain, x: Any, where: str) -> np.ndarray:
    if "scale" not in inputs:
        return _take_numbers(inputs, x, where)
    numbers, scale = _take_numbers(inputs, x, where), inputs["scale"]
    if np.asarray(x).dtype.kind not in "iu":
        return _take_pixels(inputs, numbers, where)
    if numbers.size and not 0 <= numbers.min() <= numbers.max() <= scale:
        found = f"from {numbers.min():.4g} to {numbers.max():.4g}"
        raise DataError(f"{found} ({where}): expected whole numbers from 0 to {scale}, as in training")
    return numbers / np.float32(scale)


def _as_array(x: Any) -> np.ndarray:
    return x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)


def _take_numbers(inputs: Plain, x: Any, where: str) -> np.ndarray:
    """The numbers as they are, once they are seen to be of the shape of an example, and finite."""
    shape = tuple(inputs["shape"])
    places = [f"x{n}" for n in range(shape[0])]  # their names in files for `metarun adapt`
    if len(shape) == 1 and hasattr(x, "columns") and set(x.columns) == set(places):
        x = x[places]
    try:
        array = np.asarray(x).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{type(x).__name__} ({where}): expected numbers [n, {_sizes(shape)}]") from error
    if array.ndim == 1 and shape == (1,):
        array = array[:, None]
    if array.shape[1:] != shape or not array.ndim:
        raise DataError(f"{_shape(array)} ({where}): expected [n, {_sizes(shape)}], as in training")
    if not np.isfinite(array).all():
        raise DataError(f"nan or infinity ({where}): expected finite numbers; fill or drop them")
    return array


def _shape(array: np.ndarray) -> str:
    return f"[{_sizes(array.shape)}]"


def _sizes(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
