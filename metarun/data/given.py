"""What a user gives to a trained learner: examples to learn from, with their classes or values, and queries.

Images lie in folders, a folder for each class. All else is a table (frames.py) with the columns of training: those of a
run's table or text; of tasks that are made of numbers x (or x0, x1, ...) and y (or y0, y1, ...).

n examples, C outputs.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarun.data.frames import check_columns, labels, numbers, read_frame
from metarun.data.given_images import list_classes, list_images
from metarun.data.inputs import encode
from metarun.errors import DataError, UsageError
from metarun.text import count_of, nearest

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_NAMES = 20  # that a message lists
log = logging.getLogger("metarun")


@dataclass(frozen=True)
class Examples:
    """Examples as a learner takes them, and as the user wrote them.

    Attributes:
        names: of each the file in its folder, or the number of the row.
        x: [n, *shape] float32, for the learner.
        labels: of each its class; None: not known. Empty in regression.
        values: [n, C] float64 targets in the user's units, nan where they are not known; None for classes.
        cells: the inputs as they were written, by column; none of images.
        y: of a support set [n] int64 numbers of the classes, or [n, C] float32 targets, for the learner.
    """

    names: list[str]
    x: np.ndarray
    labels: list[str | None] = field(default_factory=list)
    values: np.ndarray | None = None
    cells: dict[str, list[str]] = field(default_factory=dict)
    y: np.ndarray | None = None


@dataclass(frozen=True)
class Scale:
    """A number of the user's as a learner has it: (number - mean) / sd."""

    name: str
    mean: float = 0.0
    sd: float = 1.0

    def to_learner(self, values: np.ndarray) -> np.ndarray:
        """float32, in the learner's units."""
        return ((values - self.mean) / self.sd).astype(np.float32)

    def to_user(self, values: np.ndarray) -> np.ndarray:
        """float64, in the user's units."""
        return values.astype(np.float64) * self.sd + self.mean


def scale_of_target(inputs: dict[str, Any]) -> Scale:
    """How targets of regression are scaled, by the preprocessing of a run (data/inputs.py)."""
    target = inputs.get("target", {})
    return Scale(target.get("name", "y"), target.get("mean", 0.0), target.get("sd", 1.0))


def axis_of(inputs: dict[str, Any]) -> Scale | None:
    """The only input, where it is one number; else None."""
    if inputs["kind"] == "numbers" and inputs["shape"] == [1]:
        return Scale("x")
    if inputs["kind"] == "table" and len(inputs["columns"]) == 1 and inputs["shape"] == [1]:
        (column,) = inputs["columns"]
        return Scale(column["name"], column["mean"], column["sd"]) if column["kind"] == "number" else None
    return None


def read_support(
    path: str,
    inputs: dict[str, Any],
    outputs: int | None,
    apart: Sequence[str | None] = (),
    task: str | None = None,
) -> Examples:
    """The examples to learn from: those of classes a class after the other, by name; else in the order of their rows.

    Args:
        path: of a folder with a folder of images for each class, or of a table.
        inputs: the preprocessing of the run.
        outputs: C in regression; None: they have classes.
        apart: columns of the run's own table that were no inputs; of others that are left aside a line is logged.
        task: the column of the run's own table by which its rows were parted into tasks; None: by none.

    Raises:
        DataError: it cannot be read; an example has no class or value; a class has no example, or is none of those
            that the learner was trained for.
        UsageError: a column is missing.
    """
    if inputs["kind"] == "images":
        found = _encode_files(list_classes(Path(path)), [Path(path)], inputs, "support")
    else:
        found = _read_rows(path, inputs, outputs, "support", labelled=True, apart=apart, task=task)
    if found.values is not None:
        return replace(found, y=scale_of_target(inputs).to_learner(found.values))
    known = {name: n for n, name in enumerate(classes_of(found, inputs))}
    _refuse_other_classes(found, list(known), "support")
    if empty := [name for name in known if name not in found.labels]:
        raise DataError(
            f"{path} (support): no example of {empty[0]!r}: expected some of each of {_list(known)}, the classes of "
            "training; add them"
        )
    y = np.array([known[label or ""] for label in found.labels], dtype=np.int64)
    order = np.argsort(y, kind="stable").tolist()
    return Examples(
        names=[found.names[n] for n in order],
        x=found.x[order],
        labels=[found.labels[n] for n in order],
        cells={name: [cells[n] for n in order] for name, cells in found.cells.items()},
        y=y[order],
    )


def classes_of(support: Examples, inputs: dict[str, Any]) -> list[str]:
    """The classes that are learned, in the learner's order: sorted, or those of training where they are fixed."""
    return inputs.get("target", {}).get("classes") or sorted({name for name in support.labels if name is not None})


def read_queries(
    paths: Sequence[str],
    inputs: dict[str, Any],
    outputs: int | None,
    classes: Sequence[str] = (),
    apart: Sequence[str | None] = (),
) -> Examples:
    """The queries, with their classes or values as far as those are known.

    Args:
        paths: images: files, folders of files, or folders with a folder of images for each class. Else one table.
        inputs: as in read_support.
        outputs: as in read_support.
        classes: that were learned.
        apart: as in read_support.

    Raises:
        DataError: they cannot be read; there is none; or one has another class.
        UsageError: a column is missing; or there are several tables.
    """
    if inputs["kind"] == "images":
        folders = [Path(path) for path in paths]
        found = _encode_files(list_images(folders), folders, inputs, "query")
    elif len(paths) == 1:
        found = _read_rows(paths[0], inputs, outputs, "query", labelled=False, apart=apart)
    else:
        raise UsageError(f"{count_of(len(paths), 'table')} (query): expected one table; put them together")
    _refuse_other_classes(found, classes, "query")
    return found


def _refuse_other_classes(found: Examples, classes: Sequence[str], where: str) -> None:
    for name, label in zip(found.names, found.labels, strict=False):
        if label is not None and label not in classes:
            place = f"row {name}" if name.isdigit() else name
            rule = f"one of {_list(classes)}, which are learned{nearest(label, classes)}"
            raise DataError(f"{label!r} (class of {place}, {where}): expected {rule}; correct or remove it")


def _list(names: Sequence[str] | dict[str, int]) -> str:
    names = list(names)
    more = f", ... ({len(names)} in all)" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _encode_files(
    files: Sequence[tuple[Path, str | None]], roots: list[Path], inputs: dict[str, Any], where: str
) -> Examples:
    """The images, named by where they lie in the folder that was given if there is one."""
    root = roots[0] if len(roots) == 1 and roots[0].is_dir() else None
    names = [(path.relative_to(root) if root else path).as_posix() for path, _ in files]
    return Examples(names, encode(inputs, [path for path, _ in files], where), [label for _, label in files])


def _read_rows(
    path: str,
    inputs: dict[str, Any],
    outputs: int | None,
    where: str,
    labelled: bool,
    apart: Sequence[str | None],
    task: str | None = None,
) -> Examples:
    """The rows of a table; the support set's are all labelled, and of one task."""
    frame = read_frame(path, where)
    if isinstance(task, str) and task in frame.columns and len(values := labels(frame[task]).dropna().unique()) > 1:
        names = ", ".join(values[:2]) + (", ..." if len(values) > 2 else "")
        rule = "expected those of one, as in training; they are learned together"
        log.warning(f"{path} ({where}): rows of {len(values)} tasks ({task} {names}): {rule}")
    columns, targets = _input_columns(inputs, frame), _target_columns(inputs, outputs)
    if labelled or (outputs is not None and any(name in frame for name in targets)):
        check_columns(frame, targets, where)
    check_columns(frame, columns, where)
    if other := [str(name) for name in frame.columns if name not in (*columns, *targets, *apart)]:
        log.info("%s: %s: columns left aside, which the run did not have: %s", where, path, _list(other))
    asked = targets if all(name in frame for name in targets) else []
    names = [str(row) for row in frame.index]
    found = Examples(
        names,
        _encode_frame(frame, columns, inputs, where),
        _labels(frame, asked) if outputs is None else [],
        None if outputs is None else _values(frame, asked, outputs),
        {name: [_spell(cell) for cell in frame[name].tolist()] for name in columns},
    )
    if labelled and (gaps := _gaps(found)):
        what = " and ".join(targets)
        raise DataError(
            f"{path} (support): row {gaps[0]} below the header has no {what}: expected it in every row to learn from; "
            f"fill it, or move the row to the query"
        )
    return found


def _spell(cell: Any) -> str:
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def _input_columns(inputs: dict[str, Any], frame: "DataFrame") -> list[str]:
    if inputs["kind"] == "table":
        return [column["name"] for column in inputs["columns"]]
    if inputs["kind"] == "text":
        return [inputs["text"]]
    size = prod(inputs["shape"])
    return ["x"] if size == 1 and "x0" not in frame else [f"x{n}" for n in range(size)]


def _target_columns(inputs: dict[str, Any], outputs: int | None) -> list[str]:
    if "target" in inputs:
        return [inputs["target"]["name"]]
    return [f"y{n}" for n in range(outputs)] if outputs is not None and outputs > 1 else ["y"]


def _encode_frame(frame: "DataFrame", columns: list[str], inputs: dict[str, Any], where: str) -> np.ndarray:
    if inputs["kind"] != "numbers":
        return encode(inputs, frame[columns], where)
    x = np.stack([numbers(frame[name], mostly=0.0) for name in columns], axis=1)
    if "scale" in inputs and (x == np.round(x)).all():  # a file has no types: 0 and 1 of 255, and no shares
        x = x.astype(np.int64)
    return encode(inputs, x.reshape(-1, *inputs["shape"]), where)


def _labels(frame: "DataFrame", columns: list[str]) -> list[str | None]:
    """The class of each row; None where it is not known."""
    words = labels(frame[columns[0]]).tolist() if columns else [None] * len(frame)
    return [word if isinstance(word, str) else None for word in words]


def _values(frame: "DataFrame", columns: list[str], outputs: int) -> np.ndarray:
    """[n, C] float64: the targets of each row; nan where they are not known."""
    if not columns:
        return np.full((len(frame), outputs), np.nan)
    values = [np.asarray(numbers(frame[name], mostly=0.0, instead=""), dtype=np.float64) for name in columns]
    return np.stack(values, axis=1)


def _gaps(found: Examples) -> list[str]:
    """The names of the examples without a class or a value."""
    if found.values is not None:
        return [name for name, row in zip(found.names, found.values, strict=True) if not np.isfinite(row).all()]
    return [name for name, label in zip(found.names, found.labels, strict=True) if label is None]
