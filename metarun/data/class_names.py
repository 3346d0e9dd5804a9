"""The names that a user has for classes, which may be numbers, and the numbers that they have for the learner."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metarun.data.frames import spell
from metarun.errors import DataError


def spell_classes(classes: Sequence[Any]) -> list[str]:
    """Classes that may be numbers as a table has them in words: 1 and 1.0 are '1'."""
    import pandas

    return spell(pandas.Series(list(classes))).tolist()


def number_classes(inputs: dict[str, Any], classes: np.ndarray) -> np.ndarray:
    """[N] int64: the numbers that the user's classes have for the learner: as a rule 0 to N - 1, sorted as words.

    So a task of a table, whose classes are words, is the same where they come as numbers.

    Raises:
        DataError: all tasks of training had the same classes, and these are others.
    """
    names = spell_classes(classes)
    if (known := inputs.get("target", {}).get("classes")) is None:
        return np.argsort(np.argsort(np.array(names)))
    if sorted(names) != sorted(known):  # 1.0 as a table has it in words is 1 as an array has it
        names, known = ([_as_number(name) for name in found] for found in (names, known))
    if sorted(names) != sorted(known):
        rule = f"all classes that the tasks of training had, and no others: {', '.join(known[:10])}"
        raise DataError(f"{', '.join(names[:10])} (classes): expected {rule}")
    return np.array([known.index(name) for name in names])


def _as_number(word: str) -> str:
    """The word, spelled as the number that it is if it is one."""
    try:
        value = float(word)
    except ValueError:
        return word
    return str(int(value)) if value.is_integer() else repr(value)
