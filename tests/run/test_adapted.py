"""What came of an adaptation, and how right it is."""

import numpy as np
import pytest
from helpers.adapted import classified, regressed
from sklearn.metrics import mean_squared_error, r2_score

from metarun.run.adapted import describe


def test_queries_with_a_known_class_are_judged_and_the_others_answered():
    adapted = classified(["cat", None, "dog", "dog"])
    assert adapted.taken == ["cat", "dog", "dog", "cat"]
    assert adapted.right == [True, None, True, False]
    judged = adapted.judged
    assert (judged.queries, judged.mean) == (3, pytest.approx(2 / 3))
    assert judged.mean + judged.ci95 > 1, "three answers say little"
    lines = describe(adapted)
    assert lines[0] == "4 queries answered from 2 examples of 2 classes, after 1 inner step"
    assert "accuracy 67 ± 67 %" in lines[1]
    assert "over 3 of them" in lines[1]
    assert "0.png: cat (75%)" in lines
    assert classified([None] * 4).judged is None
    assert classified(["cat", None, None, None]).judged.ci95 is None, "of a single answer there is no interval"
    record = adapted.record()
    assert record.answers[1].truth is None
    assert record.answers[3].probabilities == [0.75, 0.25]


def test_images_are_said_to_be_inverted_as_in_training_where_they_are():
    asked, again = classified(["cat"] * 4), classified(["cat"] * 4)
    again.trained.support = (again.support.x, np.arange(2))
    for adapted, *given, expected in (
        (asked, False, "images: inverted as in training, dark ink is bright (bright on dark already: invert=false)"),
        (asked, True, "images: inverted, dark ink is bright (bright on dark already: invert=false)"),
        (again, False, False, "images: inverted as what it learned from before, dark ink is bright"),
    ):
        assert [line for line in describe(adapted, *given) if "invert" in line] == [expected]


def test_batch_norm_over_all_queries_is_said_once():
    together = [line for line in describe(classified(["cat"] * 4, True, True)) if "batch norm" in line]
    alone = [line for line in describe(classified(["cat"] * 4, True, False)) if "batch norm" in line]
    assert (len(together), len(alone)) == (1, 1)
    assert "together=true" in alone[0]
    assert not [line for line in describe(classified(["cat"] * 4, False, False)) if "batch norm" in line]


def test_values_are_judged_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    truth, found = rng.normal(size=(9, 2)), rng.normal(size=(9, 2))
    judged = regressed(truth, found).judged
    assert judged.mean == pytest.approx(mean_squared_error(truth, found))
    assert judged.r2 == pytest.approx(r2_score(truth, found))
    truth[3, 1] = np.nan
    known = np.arange(9) != 3
    judged = regressed(truth, found).judged
    assert judged.queries == 8
    assert judged.mean == pytest.approx(mean_squared_error(truth[known], found[known]))
    assert regressed(np.ones((9, 2)), found).judged.r2 is None, "nothing varies"
    assert regressed(np.full((9, 2), np.nan), found).judged is None
