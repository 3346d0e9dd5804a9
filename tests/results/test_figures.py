"""Figures: bars where they belong, and pictures for two kinds of page."""

import base64
import itertools
import xml.etree.ElementTree as ET

import pytest

from metarun.results import figures
from metarun.results.figures import DARK, LIGHT, PAGE, PHONE, Bar, Series
from metarun.storage.records import Published

CURVE = [(x, 2.0 - 0.1 * x, 0.1) for x in range(5)]


def _svg(address):
    head, _, content = address.partition(",")
    assert head == "data:image/svg+xml;base64"
    return base64.b64decode(content).decode()


def _texts(svg):
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def _bar(name, number, mean):
    return Bar(name, number, mean, 0.1, [mean - 0.1, mean + 0.1])


def test_a_picture_has_the_colours_of_its_page():
    picture = figures.draw_lines("alt", "mse", "step", {"": [Series("a", 0, CURVE), Series("b", 9, CURVE)]})
    light, dark = _svg(picture.addresses["light"]), _svg(picture.addresses["dark"])
    for svg, ours, others in ((light, LIGHT, DARK), (dark, DARK, LIGHT)):
        assert {ours.rows[0], ours.rows[1], ours.ink} <= {
            word for word in others.rows + ours.rows + (ours.ink,) if word in svg
        }
        assert others.rows[0] not in svg
        assert others.ink not in svg
    assert _texts(light) == _texts(dark)
    assert {"a", "b", "mean squared error", "step"} <= set(_texts(light))


def test_drawing_twice_gives_the_same_bytes():
    bars = [Bar("a", 0, 0.5, 0.1, published=Published(paper="X", mean=0.6, ci95=0.05)), _bar("b", 1, 0.7)]
    assert figures.draw_bars("alt", "accuracy", bars) == figures.draw_bars("alt", "accuracy", bars)


@pytest.mark.parametrize("name", ["a $b_$ c", "a $b^2$", "a_b^c$", "<b>&amp;"])
def test_a_name_is_no_formula(name):
    for picture in (
        figures.draw_lines("alt", "mse", "step", {"": [Series(name, 0, CURVE)]}),
        figures.draw_bars("alt", "mse", [_bar(name, 0, 1.0), _bar("b", 1, 1e4)]),
        figures.draw_histograms("alt", "mse", [(name, 0, [1.0, 2.0])]),
    ):
        texts = _texts(_svg(picture.addresses["light"]))
        assert name in texts
        assert not any("mathdefault" in text for text in texts)


def test_a_long_name_keeps_its_begin_and_less_of_it_on_a_phone():
    picture = figures.draw_bars("alt", "mse", [_bar("1 " + "a" * 60, 0, 1.0)])
    for kind, size in (("light", PAGE), ("dark phone", PHONE)):
        (text,) = [t for t in _texts(_svg(picture.addresses[kind])) if "…" in t]
        assert (len(text), text[:3]) == (size.name, "1 a")


def test_twenty_rows_have_different_looks():
    looks = {(figures.color_of(n), figures.mark_of(n)) for n in range(20)}
    assert len(looks) == 20


@pytest.mark.parametrize(("key", "logarithmic"), [("algo.inner_lr", True), ("algo.filters", False)])
def test_what_was_swept_has_its_values_as_ticks_and_rates_a_logarithmic_axis(key, logarithmic, monkeypatch):
    scales = []
    monkeypatch.setattr(figures, "make_logarithmic", lambda axes, name: scales.append(name))
    points = [(x, 1.0, 0.1) for x in (0.01, 0.02, 0.04)]
    panels = {"validation": [Series("a", 0, points)], "test": [Series("a", 0, points)]}
    texts = _texts(_svg(figures.draw_lines("alt", "accuracy", key, panels, swept=True).addresses["light"]))
    assert {"validation", "test", "0.01", "0.02", "0.04"} <= set(texts)
    assert scales == (["x", "x"] if logarithmic else [])  # of the page and of the phone


def test_bars_are_the_accuracies_that_are_possible():
    assert figures.edges_of([0.4, 0.6, 1.0], False) == pytest.approx([-0.1, 0.1, 0.3, 0.5, 0.7, 0.9, 1.1])
    assert len(figures.edges_of([k / 300 for k in range(301)], False)) == 22
    low, *_, high = figures.edges_of([0.01, 1.0, 8.0], True)
    assert low == pytest.approx(0.01)
    assert 8.0 < high < 8.01


@pytest.mark.parametrize("value", [0.0, 1e-40, 0.25])
def test_results_without_any_spread_have_a_picture(value):
    edges = figures.edges_of([value] * 5, logarithmic=True)
    assert len(edges) == 31
    assert all(0 < a < b for a, b in itertools.pairwise(edges))


def test_a_value_out_of_all_bounds_leaves_the_others_readable():
    assert figures.edges_of([1.0, 2.0, 3.0, 1e24], True)[-1] == pytest.approx(2.5e4, rel=1e-3)
    wild = Series("b", 1, [(x, 1e23, 1e22) for x in range(4)])
    picture = figures.draw_lines("alt", "mse", "step", {"": [Series("a", 0, CURVE), wild]})
    assert not any("e+2" in text for text in _texts(_svg(picture.addresses["light"])))
