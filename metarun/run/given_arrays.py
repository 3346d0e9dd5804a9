"""X and y, as users of scikit-learn give them, and the complaints about them, which are ValueErrors of one line.

n examples.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from metarun.data.frames import name_columns
from metarun.data.inputs import encode
from metarun.errors import DataError, DivergedError, UsageError
from metarun.run.trained import Trained

OF_ROWS = ("numbers", "table")  # kinds of inputs whose examples are rows


def rows_of(trained: Trained, x: Any) -> Any:
    """The examples; those of a learner of numbers or tables as an array, or the DataFrame that they are.

    Raises ValueError: they are no rows.
    """
    if hasattr(x, "toarray"):
        raise ValueError("a sparse matrix (X): expected a dense one; give X.toarray()")
    inputs = trained.facts.inputs
    if inputs["kind"] not in OF_ROWS or hasattr(x, "columns"):
        return x
    try:
        rows = np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
    except ValueError as error:
        raise ValueError("rows of unlike lengths (X): expected [n, columns]; fill or cut them") from error
    if rows.dtype.kind == "c":
        raise ValueError("Complex data not supported (X): expected real numbers")
    if len(inputs["shape"]) == 1 and rows.ndim < 2:
        raise ValueError(
            f"{rows.ndim} dimensions (X): expected [n, columns]. Reshape your data: X[:, None], or X[None]"
        )
    if rows.ndim == 2 and not rows.shape[1]:
        raise ValueError(f"0 feature(s) (shape={rows.shape}) while a minimum of 1 is required.")
    return rows


def encode_rows(trained: Trained, rows: Any) -> np.ndarray:
    """[n, *input_shape] float32, of at least one example."""
    x = encode(trained.facts.inputs, rows, "X")
    if not len(x):
        raise ValueError("0 examples (X): expected at least one; a minimum of 1 is required")
    return x


def columns_of(rows: Any) -> int | None:
    """How many columns rows have; None where they are no matrix."""
    shape = getattr(rows, "shape", ())
    return int(shape[1]) if len(shape) == 2 else None


def names_of(trained: Trained, rows: Any) -> list[str] | None:
    """The names of the columns, where they are words, as scikit-learn has it; None of others, and of no rows."""
    if trained.facts.inputs["kind"] not in OF_ROWS:
        return None
    names = list(getattr(rows, "columns", ()))
    return names if names and all(isinstance(name, str) for name in names) else None


def in_order(trained: Trained, rows: Any, names: list[str]) -> Any:
    """The rows of a learner that was given these columns: an array has them in their order, a DataFrame by name.

    Raises ValueError: a DataFrame lacks one.
    """
    if isinstance(rows, np.ndarray) and rows.ndim == 2:
        return name_columns(rows, names)
    if trained.facts.inputs["kind"] == "numbers" and hasattr(rows, "columns"):  # a table's are known by themselves
        if missing := [name for name in names if name not in rows.columns]:
            raise ValueError(f"{missing[0]!r} (X): no such column; expected those that fit() was given")
        return rows[names]
    return rows


def targets_of(y: Any, count: int) -> np.ndarray:
    """[n] or [n, outputs]. Raises ValueError: they are not so many, or one is missing."""
    if y is None:
        raise ValueError("None (y): requires y to be passed, but the target y is None; pass it")
    y = np.asarray(y.detach().cpu() if hasattr(y, "detach") else y)
    if y.shape[:1] != (count,):
        raise ValueError(f"{list(y.shape)} (y): expected {count}, a class or target for each example of X")
    if y.dtype.kind == "c" or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise ValueError("nan, infinity or complex (y): expected finite real numbers; drop those examples")
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


@contextmanager
def as_value_errors() -> Iterator[None]:
    """What metarun finds wrong with examples and settings is a ValueError, as users of scikit-learn expect."""
    try:
        yield
    except (DataError, UsageError, DivergedError) as error:
        raise ValueError(str(error)) from error
