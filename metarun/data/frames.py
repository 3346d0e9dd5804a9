"""Tables as people have them on disk: CSV, TSV, Parquet, or arrays in an .npz; and what their cells mean.

n rows, F features.
"""

import csv
import io
import logging
import re
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarun.errors import DataError, UsageError
from metarun.text import count_of, nearest, reason

if TYPE_CHECKING:
    from pandas import DataFrame, Series

log = logging.getLogger("metarun")

INPUTS = ("x", "X", "features", "embeddings")  # names of arrays in an .npz
TARGETS = ("y", "labels", "targets")
GAPS = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None")  # cells without a value
LARGEST = float(np.finfo(np.float32).max)  # learners compute in float32
MOSTLY = 0.9  # a column with as large a share of numbers is one of numbers, and words in it are mistakes
# A number with separators between its thousands, as 1,234 or 1.234.567,8; refused, for 1,234 may be 1.234 as well.
THOUSANDS = re.compile(r"[+-]?\d{1,3}([,.'\u00a0\u202f])\d{3}(\1\d{3})*([,.]\d+)?")
MOST_NAMES = 30  # that a message lists


def read_frame(path: str | Path, where: str = "data.file") -> "DataFrame":
    """The table in a file, its rows numbered from 1. Cells of a CSV are words as they are written.

    A CSV is UTF-8, with commas, semicolons (then 1,5 is a number) or tabs, by what its header has most of outside
    quotes; a file that ends in .tsv has tabs. An .npz has
    `x` [n, F], of which the columns x0, x1, ... are made, and one-dimensional arrays, such as `y`, `labels` or `task`.

    Args:
        path: of the file; its ending says what it is: .parquet, .npz, and all others CSV.
        where: the setting that names the file, for messages.

    Raises:
        DataError: the file is missing, empty, or no such table.
        UsageError: it is Parquet, and pyarrow is not installed.
    """
    path = Path(path)
    known = {".parquet": _read_parquet, ".pq": _read_parquet, ".npz": _read_npz}
    known |= {".tsv": partial(_read_csv, delimiter="\t")}
    read = known.get(path.suffix.lower(), _read_csv)
    place = f"{path} ({where})"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{place}: {reason(error)}: expected a table: CSV, TSV, Parquet or .npz") from error
    if not content.strip():
        raise DataError(f"{place}: empty: expected a table with a header")
    frame = read(content, place)
    names = [str(name) for name in frame.columns]
    _refuse_doubles(names, place)
    if not len(frame):
        raise DataError(f"{place}: has a header and no rows: expected rows")
    frame.columns = names
    frame.index = range(1, len(frame) + 1)
    return frame


def _refuse_doubles(names: list[str], place: str) -> None:
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{place}: two columns are named {double[0]!r}: expected a name for each; rename one")


def find_delimiter(header: str) -> str:
    """What parts the names in the first line of a table: the comma, semicolon or tab that is there most often.

    Those inside quotes do not count.
    """
    return max(",;\t", key=re.sub('"[^"]*"', "", header).count)


def _read_csv(content: bytes, place: str, delimiter: str | None = None) -> "DataFrame":
    import pandas

    text = _decode(content, place)
    delimiter = delimiter or find_delimiter(text.lstrip("\r\n").partition("\n")[0])
    style: Any = {"delimiter": delimiter, "skipinitialspace": delimiter != "\t"}
    names = _check_rows(csv.reader(io.StringIO(text, newline=""), strict=True, **style), place)
    cells = {"dtype": str, "keep_default_na": False, "index_col": False}
    frame = pandas.read_csv(io.StringIO(text, newline=""), header=0, names=range(len(names)), **cells, **style)
    if delimiter in ";\t":  # where people write so, the comma is that of decimals; beside tabs 1,234 may be a thousand
        digits = r"\d+" if delimiter == ";" else r"(?!\d{3}\s*$)\d+"
        decimal = rf"^\s*([+-]?\d*),({digits}(?:[eE][+-]?\d+)?)\s*$"
        frame = frame.apply(lambda column: column.str.replace(decimal, r"\1.\2", regex=True))
    frame.columns = [name.strip() for name in names]
    if nameless := int((frame.columns == "").sum()):
        log.info("%s: %s without a name left out", place, count_of(nameless, "column"))
    return frame.loc[:, frame.columns != ""]  # one without a name holds row numbers, or is the end of each line


def _decode(content: bytes, place: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = content[: error.start].count(b"\n") + 1, content[error.start]
        raise DataError(
            f"{place}: byte 0x{byte:02x} in line {line} is no UTF-8: expected a text in UTF-8; save it again as that"
        ) from error


def _check_rows(rows: Any, place: str) -> list[str]:
    """The header of a CSV, all of whose rows have as many cells; pandas would fill up those that are too short."""
    header: list[str] = []
    try:
        for row in rows:
            header = header or row
            if row and len(row) != len(header):
                raise DataError(
                    f"{place}: line {rows.line_num} has {count_of(len(row), 'cell')}: expected {len(header)}, as the "
                    "header has; put quotes around a cell with the delimiter in it"
                )
    except csv.Error as error:
        raise DataError(f"{place}: line {rows.line_num}: {error}: expected rows of a CSV; mend the quotes") from error
    return header


def _read_parquet(content: bytes, place: str) -> "DataFrame":
    import pandas

    try:
        frame = pandas.read_parquet(io.BytesIO(content), engine="pyarrow")
        return frame if frame.index.names == [None] else frame.reset_index()  # an index with a name is a column too
    except ImportError as error:
        raise UsageError(f"{place}: Parquet needs pyarrow: pip install '.[parquet]', or save it as CSV") from error
    except Exception as error:  # pyarrow has errors of its own for each way in which a file is none
        raise DataError(f"{place}: {reason(error)}: expected a Parquet file") from error


def _read_npz(content: bytes, place: str) -> "DataFrame":
    import pandas

    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # pickled objects, no archive, a broken one
        rule = "arrays of numbers and words, without Python objects"
        raise DataError(f"{place}: {reason(error)}: expected {rule}; save them again with those types") from error
    found = [name for name in INPUTS if name in arrays]
    if not found or arrays[found[0]].ndim != 2:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(f"{place}: has {shapes or 'no arrays'}: expected x [n, F], or {', '.join(INPUTS[1:])}")
    x = arrays.pop(found[0])
    targets = [name for name in TARGETS if name in arrays]
    if targets and not any(arrays[name].shape == (len(x),) for name in targets):
        given, rule = list(arrays[targets[0]].shape), f"[{len(x)}], a class or a value for each row of {found[0]}"
        raise DataError(f"{place}: {targets[0]} {given}: expected {rule}; mend or rename it")
    frame = pandas.DataFrame(x, columns=[f"x{place}" for place in range(x.shape[1])])
    more = {name: _as_words(array, place) for name, array in arrays.items() if array.shape == (len(x),)}
    return pandas.concat([frame, pandas.DataFrame(more)], axis=1)


def _as_words(array: np.ndarray, place: str) -> np.ndarray:
    """The array, its bytes as words."""
    try:
        return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: {reason(error)}: expected words in UTF-8; save them again as that") from error


def name_columns(rows: np.ndarray, names: list[str]) -> "DataFrame":
    """A table of these rows [n, F], whose columns have these names."""
    import pandas

    return pandas.DataFrame(rows, columns=names)


def check_columns(frame: "DataFrame", names: Collection[str], where: str) -> None:
    """Raises UsageError for the first of these names that no column has, DataError for one that two have.

    `where` is the setting that gives them.
    """
    if not frame.columns.is_unique:
        _refuse_doubles([name for name in frame.columns if name in names], where)
    for name in names:
        if name not in frame.columns:
            columns = [str(column) for column in frame.columns]
            rest = f", ... ({len(columns)} in all)" if len(columns) > MOST_NAMES else ""
            listed = ", ".join(columns[:MOST_NAMES]) + rest
            raise UsageError(f"{name!r} ({where}): no such column; the file has {listed}{nearest(name, columns)}")


def labels(column: "Series") -> "Series":
    """The cells as words, see spell(); None for gaps."""
    words = spell(column)
    return words.where(~(column.isna() | words.isin(GAPS)), None)


def spell(column: "Series") -> "Series":
    """Values as words without blanks around them; a number without a fraction as an integer, such as 1224."""
    import pandas

    if column.dtype.kind == "f":
        words = [str(int(value)) if value.is_integer() else repr(value) for value in column.astype(float).tolist()]
    elif column.dtype.kind == "M" and (column.isna() | (column == column.dt.normalize())).all():
        words = [str(value.date()) for value in column.tolist()]  # as a CSV file has days
    else:
        words = [str(value).strip() for value in column.tolist()]
    return pandas.Series(words, column.index, dtype=object)


def numbers(
    column: "Series", mostly: float = MOSTLY, instead: str = ", or leave the column out (data.drop)"
) -> "Series | None":
    """The cells as float64, nan for gaps; None where a smaller share than `mostly` of them are numbers.

    Numbers with separators between their thousands count as such, and are then refused.

    `instead` is what else there is to do about a cell that is no such number, for the message.

    Raises:
        DataError: it is a column of numbers but for a few words, or has one that float32 has not; names the row.
    """
    import pandas

    if column.dtype.kind == "M":
        return (column - pandas.Timestamp(0, tz=column.dt.tz)) / pandas.Timedelta(days=1)
    if column.dtype.kind == "m":
        return column / pandas.Timedelta(days=1)
    given = ~gaps(column)
    found = pandas.to_numeric(column.where(given), errors="coerce").astype(float)
    wrong = given & found.isna()
    separated = wrong & np.fromiter(map(_has_thousands, column), bool, len(column)) if wrong.any() else wrong
    if wrong.any() and found.count() + separated.sum() < mostly * given.sum():
        return None
    for mask, rule in (
        (separated, "a number without separators, and a point for decimals, such as 1234.5"),
        (wrong, "a number, as most of the column are"),
        (found.abs() > LARGEST, f"a finite number, at most {LARGEST:.2g} in size"),
    ):
        if mask.any():
            row = column.index[mask.to_numpy().argmax()]
            raise DataError(
                f"{str(column.loc[row])!r} (row {row} below the header, column {column.name!r}): expected {rule}; "
                f"correct it or leave it empty{instead}"
            )
    return found


def _has_thousands(cell: Any) -> bool:
    return isinstance(cell, str) and THOUSANDS.fullmatch(cell.strip()) is not None


def gaps(column: "Series") -> "Series":
    """Whether each cell is without a value."""
    if column.dtype.kind in "iufbMm":
        return column.isna()
    return column.isna() | column.map(lambda cell: isinstance(cell, str) and cell.strip() in GAPS).astype(bool)
