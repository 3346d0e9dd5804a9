"""A class has the same number for the learner whether its name comes as a word or as a number."""

import numpy as np
import pytest

from metarun.data.class_names import number_classes, spell_classes
from metarun.data.given import Examples, classes_of
from metarun.errors import DataError


def test_classes_of_training_that_are_fixed_have_their_numbers():
    fixed = {"target": {"name": "y", "classes": ["0", "10", "9"]}}  # sorted as words
    assert number_classes(fixed, np.array([0, 9, 10])).tolist() == [0, 2, 1]
    assert number_classes({}, np.array(["a", "b"])).tolist() == [0, 1]
    whole = np.array([3, 5, 11])
    in_adapt = classes_of(Examples([], whole, labels=["3", "5", "11"]), {})
    assert number_classes({}, whole).tolist() == [in_adapt.index(name) for name in ("3", "5", "11")] == [1, 2, 0]
    for others in (["0", "10"], ["0", "10", "9", "x"], ["0", "9", "x"]):
        with pytest.raises(DataError, match="0, 10, 9"):
            number_classes(fixed, np.array(others))


def test_classes_are_names_and_no_cells_of_a_table():
    """None is a gap in a table; 1.0 as a word is 1 as an array has it."""
    words = {"target": {"name": "y", "classes": ["NA", "None", "yes"]}}
    assert number_classes(words, np.array(["NA", "None", "yes"])).tolist() == [0, 1, 2]
    assert spell_classes(["None", "NA", "yes"]) == ["None", "NA", "yes"]
    assert number_classes({"target": {"name": "y", "classes": ["0.0", "1.0"]}}, np.array([0.0, 1.0])).tolist() == [0, 1]
