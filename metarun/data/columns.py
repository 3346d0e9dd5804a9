"""Columns of a table as numbers for a learner, by statistics of its training rows alone.

    number      (value - mean) / sd
    category    one-hot over the training rows' values, at most 20; others are all zeros
    frequency   of more values than that: log(times that it is in the training rows, at least 1), scaled as a number

A gap is the mean, or no category; where training rows have gaps, a further column of 0 and 1 marks them. What is the
same in all training rows is left out, and so are more than 20 words none of which is more frequent than another.

n rows, F features.
"""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from metarun.data.frames import check_columns, gaps, labels, numbers
from metarun.errors import DataError
from metarun.text import count_of

if TYPE_CHECKING:
    from pandas import DataFrame, Series

MOST_VALUES = 20  # of a category that is one-hot
EVEN = f"over {MOST_VALUES} words, none more frequent than another"


@dataclass(frozen=True, kw_only=True)
class Column:
    """What the training rows say of a column.

    Attributes:
        name: of the column.
        kind: how its values become numbers; `constant`: they do not, and only their gaps count.
        mean: of the training rows' numbers, or of the logarithms of their frequencies.
        sd: their standard deviation; above 0.
        values: of a category, in order.
        counts: of the values that more than one training row has, for `frequency`.
        gaps: whether training rows have gaps.
    """

    name: str
    kind: Literal["number", "category", "frequency", "constant"]
    mean: float = 0.0
    sd: float = 1.0
    values: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    gaps: bool = False

    @property
    def features(self) -> list[str]:
        """The names of its features, such as sex=F."""
        values = {"category": [f"{self.name}={value}" for value in self.values], "constant": []}
        return [*values.get(self.kind, [self.name]), *([f"{self.name} is missing"] if self.gaps else [])]

    def transform(self, cells: "Series") -> np.ndarray:
        """[n, its features] float32. Raises DataError: a word or an infinity in a column of numbers."""
        found = numbers(cells, mostly=0.0, instead="") if self.kind == "number" else labels(cells)
        assert found is not None
        if self.kind == "category":
            found = self._as_in_training(found)
        parts = {"category": self._one_hot, "constant": lambda _: []}.get(self.kind, self._scale)(found)
        if self.gaps:
            parts = [*parts, found.isna()]
        return np.stack([np.asarray(part, dtype=np.float32) for part in parts], axis=1)

    def knows_none(self, cells: "Series") -> bool:
        """Whether this is a category, and the cells have values of which training had none."""
        if self.kind != "category":
            return False
        words = self._as_in_training(labels(cells))
        return bool(words.notna().any() and not words.isin(self.values).any())

    def count_new_gaps(self, cells: "Series") -> int:
        """How many of the cells are gaps, where training had none; they are taken for the mean, or for no category."""
        return 0 if self.gaps or self.kind == "constant" else int(gaps(cells).sum())

    def _as_in_training(self, words: "Series") -> "Series":
        """The words, with True and False spelled as in training: pandas makes them of true, TRUE and so on."""
        spelled = {value.capitalize(): value for value in self.values if value.capitalize() in ("True", "False")}
        if not spelled:
            return words
        return words.map(lambda word: word if word in self.values else spelled.get(str(word).capitalize(), word))

    def _one_hot(self, words: "Series") -> "list[Series]":
        return [words == value for value in self.values]

    def _scale(self, found: "Series") -> "list[Series]":
        if self.kind == "frequency":
            found = _logarithms(found, self.counts)
        return [((found - self.mean) / self.sd).fillna(0.0)]


def _logarithms(words: "Series", counts: dict[str, int]) -> "Series":
    """The logarithm of how often each word is in the training rows, at least once; nan for gaps."""
    return np.log(words.map(counts).astype(float).fillna(1.0)).where(words.notna())


def _fit(name: str, cells: "Series") -> Column:
    """What these rows say of a column."""
    if any(isinstance(cell, (list, tuple, dict, np.ndarray)) for cell in cells):
        raise DataError(
            f"{name!r} (inputs): has lists in its cells: expected a number or a word in each; give each number a "
            "column, save them as x [n, F] in an .npz, or leave the column out (data.drop)"
        )
    found = numbers(cells)
    kind: Literal["number", "frequency"] = "number" if found is not None else "frequency"
    counts: dict[str, int] = {}
    if found is None:
        words = labels(cells)
        values = words.value_counts()
        if 1 < len(values) <= MOST_VALUES:
            gaps = bool(words.isna().any())
            return Column(name=name, kind="category", values=sorted(values.index), gaps=gaps)
        counts = {word: int(count) for word, count in values.items() if count > 1}
        found = _logarithms(words, counts)
    gaps = bool(found.isna().any() and found.notna().any())
    mean, sd = float(found.mean()), float(found.std(ddof=0))
    if not (found.min() < found.max() and sd > 0):  # numbers near the smallest have no variance
        return Column(name=name, kind="constant", gaps=gaps)
    return Column(name=name, kind=kind, mean=mean, sd=sd, counts=counts, gaps=gaps)


@dataclass(frozen=True)
class Columns:
    """The preprocessing of a table: fitted once, to training rows, and applied to all rows since.

    Attributes:
        columns: those that are used, in the order of the features.
        same: the names of those that are left out, for all training rows have the same there; known once it is fitted.
        even: the names of those that are left out, for their words, over 20, are all as frequent; known then too.
    """

    columns: list[Column]
    same: list[str] = field(default_factory=list, compare=False)
    even: list[str] = field(default_factory=list, compare=False)

    @classmethod
    def fit(cls, frame: "DataFrame") -> "Columns":
        """The preprocessing by these rows, all of whose columns are inputs.

        Raises:
            DataError: a column is neither of numbers nor of words, or none says anything.
        """
        fitted = [_fit(name, frame[name]) for name in frame.columns]
        used, unused = ([c for c in fitted if bool(c.features) == wanted] for wanted in (True, False))
        even = [c.name for c in unused if numbers(frame[c.name]) is None and labels(frame[c.name]).nunique() > 1]
        same = [c.name for c in unused if c.name not in even]
        if not fitted:
            raise DataError("no columns (inputs): expected one at least; see data.features and data.drop")
        if not used:
            reasons = {"the same in all training rows": same, EVEN: even}
            found = "; ".join(f"{', '.join(names)} (inputs): {why}" for why, names in reasons.items() if names)
            raise DataError(f"{found}: expected inputs that say something of their rows")
        return cls(used, same, even)

    @property
    def features(self) -> list[str]:
        """The names of all F features."""
        return [feature for column in self.columns for feature in column.features]

    def transform(self, frame: "DataFrame", where: str = "data.file") -> np.ndarray:
        """[n, F] float32: the features of these rows; further columns are passed over.

        Raises:
            UsageError: a column is missing; `where` is the setting that the rows come from.
            DataError: a word or an infinity in a column of numbers, or a column twice.
        """
        check_columns(frame, [column.name for column in self.columns], where)
        try:
            return np.concatenate([column.transform(frame[column.name]) for column in self.columns], axis=1)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error

    def describe(self) -> str:
        """How the columns are read, such as '3 numbers, 2 categories; gaps marked in ses'."""
        kinds = [column.kind for column in self.columns]
        words = [count_of(kinds.count("number"), "number")]
        if count := kinds.count("category"):
            words.append(f"{count} categor{'y' if count == 1 else 'ies'}")
        if many := [column.name for column in self.columns if column.kind == "frequency"]:
            words.append(f"by the frequency of its values, as there are over {MOST_VALUES}: {', '.join(many)}")
        marked = [column.name for column in self.columns if column.gaps]
        ends = [f"; gaps filled and marked in {', '.join(marked)}"] if marked else []
        ends += [f"; left out, as all training rows have the same: {', '.join(self.same)}"] if self.same else []
        ends += [f"; left out, as {EVEN}: {', '.join(self.even)}"] if self.even else []
        return ", ".join(words) + "".join(ends)

    def to_dict(self) -> dict[str, Any]:
        """The preprocessing as plain data, for JSON."""
        return {"columns": [asdict(column) for column in self.columns]}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Columns":
        """The preprocessing that to_dict() has written."""
        return cls([Column(**column) for column in plain["columns"]])
