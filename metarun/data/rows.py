"""The rows of a table from which tasks are made: those with a target, and the columns that are inputs."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from metarun.data.frames import check_columns, labels, read_frame
from metarun.errors import DataError, SettingError
from metarun.text import count_of

if TYPE_CHECKING:
    from pandas import DataFrame


class Rows:
    """A table, and what its columns are for. The constructor reads nothing.

    Args:
        file: CSV, TSV, Parquet or .npz.
        roles: {setting: column} of what is no input, such as {"target": "mAch", "task": "school"}.
        features: the columns that are inputs; None: all that have no role.
        drop: columns that are no inputs either.
    """

    def __init__(
        self,
        file: str | None,
        roles: dict[str, str | None],
        features: Sequence[str] | None = None,
        drop: Sequence[str] | None = None,
    ):
        if not isinstance(file, str) or not file:
            raise SettingError(file, "file", "a table (CSV, TSV, Parquet or .npz); give it: data.file=FILE")
        for name, column in roles.items():
            if not isinstance(column, str):
                raise SettingError(column, name, f"the name of a column; give it: data.{name}=COLUMN")
        for name, columns in {"features": features, "drop": drop}.items():
            if columns is not None and not _is_list_of_names(columns):
                given = columns if isinstance(columns, str) and columns else "a,b"
                raise SettingError(columns, name, f"names of columns, in brackets: data.{name}=[{given}]")
        features, drop = (None if names is None else [str(name) for name in names] for names in (features, drop))
        self.file, self.features, self.drop = file, features, drop
        self.roles = {name: column for name, column in roles.items() if column is not None}
        taken = list(self.roles.values())
        for name, column in self.roles.items():
            if taken.count(column) > 1 or column in (*(features or ()), *(drop or ())):
                raise SettingError(column, name, "a column with no other part to play")

    @cached_property
    def _whole(self) -> "DataFrame":
        frame = read_frame(self.file)
        for name, column in self.roles.items():
            check_columns(frame, [column], f"data.{name}")
        check_columns(frame, self.features or (), "data.features")
        check_columns(frame, self.drop or (), "data.drop")
        return frame

    @cached_property
    def frame(self) -> "DataFrame":
        """The rows that have a value in all columns with a role, with their numbers in the file."""
        gaps = [labels(self._whole[column]).isna() for column in self.roles.values()]
        frame = self._whole[~sum(gaps[1:], gaps[0])]
        if not len(frame):
            columns = " and ".join(self.roles.values())
            raise DataError(
                f"{self.file} (data.file): no row has a value in {columns}: expected rows with values there"
            )
        return frame

    @property
    def inputs(self) -> list[str]:
        """The columns that are inputs, in order."""
        apart = {*self.roles.values(), *(self.drop or ())}
        columns = self._whole.columns if self.features is None else self.features
        return [name for name in dict.fromkeys(columns) if name not in apart]

    @property
    def note(self) -> str:
        """What was left out, in words: '' or '; 3 rows without a value in mAch left out'."""
        without = len(self._whole) - len(self.frame)
        where = " or ".join(self.roles.values())
        return f"; {count_of(without, 'row')} without a value in {where} left out" if without else ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and values of the columns that are used, wherever the file lies."""
        found = hashlib.sha256()
        for name in (*self.roles.values(), *self.inputs):
            cells = self.frame[name]
            if cells.dtype.kind in "iufb":
                content = cells.to_numpy(dtype=float).tobytes()
            else:
                content = "\0".join("" if word is None else word for word in labels(cells)).encode()
            found.update(f"{name}\0{len(content)}\0".encode() + content)
        return found.hexdigest()


def _is_list_of_names(value: Any) -> bool:
    """Whether it is a list of words, or of whole numbers: [2019] names a column as well."""
    return isinstance(value, (list, tuple)) and all(isinstance(name, str) or type(name) is int for name in value)
