"""predictions.csv and adapt.html: all answers, mistakes marked, nothing that a name could smuggle in."""

import csv
import io
import re
from dataclasses import replace

import numpy as np
from helpers.adapted import classified, regressed

from metarun.results.answers import to_csv, to_html
from metarun.run.drawings import choose_steps


def _read(adapted):
    return list(csv.DictReader(io.StringIO(to_csv(adapted).decode())))


def test_each_query_is_a_row_with_all_probabilities():
    rows = _read(classified(["cat", None, "dog", "dog"]))
    assert rows[1] == {"file": "1.png", "prediction": "dog", "truth": "", "p(cat)": "0.25", "p(dog)": "0.75"}
    assert [row["truth"] for row in rows] == ["cat", "", "dog", "dog"]
    assert list(_read(classified([None] * 4))[0]) == ["file", "prediction", "p(cat)", "p(dog)"]
    names = ['a,"b', "line\nbreak"]
    assert {f"p({name})" for name in names} < set(_read(classified([None] * 4, classes=names))[0])


def test_values_keep_their_digits():
    found = np.random.default_rng(0).normal(size=(3, 1)).astype(np.float32)
    rows = _read(regressed(np.array([[1.0], [np.nan], [0.1]]), found))
    assert [np.float32(row["prediction"]) for row in rows] == found[:, 0].tolist()
    assert [row["truth"] for row in rows] == ["1", "", "0.1"]
    assert list(_read(regressed(np.full((3, 2), np.nan), np.zeros((3, 2))))[0]) == [
        "row",
        "prediction 0",
        "prediction 1",
    ]


def test_the_page_marks_mistakes_and_needs_nothing_else():
    page = to_html(classified(["cat", None, "dog", "dog"])).decode()
    assert re.findall(r'class="outside">(.*?)</td>', page) == ["✗ dog"]
    assert page.count("data:image/png") == 2
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "prefers-color-scheme: dark" in page
    page = to_html(classified([None] * 4, classes=["<script>x", "$\\frac{$"])).decode()
    assert "<script>" not in page
    assert "truth" not in page


def test_of_a_function_that_was_learned_at_once_there_is_no_before():
    adapted = regressed(np.ones((3, 1)), np.ones((3, 1)), curve=True)
    curve = replace(adapted.curve, values=adapted.curve.values[-1:])
    page = to_html(replace(adapted, outputs=adapted.outputs[-1:], curve=curve)).decode()
    assert "The function of x, as it was learned" in page
    assert "before" not in page
    assert choose_steps(0) == {0: "answer"}


def test_a_function_is_drawn_and_a_table_listed():
    page = to_html(regressed(np.array([[1.0], [np.nan], [0.12345678]]), np.ones((3, 1)), curve=True)).decode()
    assert "The function of x before and after 1 inner step" in page
    assert page.count("0.1235") == 2, "among the queries and in the support set"
