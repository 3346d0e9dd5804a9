"""Intervals against statistics by hand, tables, and simulation."""

import math
import random
import statistics

import pytest

from metarun import intervals


def test_an_interval_over_tasks_is_1_96_standard_errors():
    mean, ci95 = intervals.over_tasks([1.0, 2.0, 4.0, 9.0])
    assert mean == 4.0
    assert ci95 == pytest.approx(1.96 * math.sqrt((9 + 4 + 0 + 25) / 3 / 4))
    assert intervals.over_tasks([3.0]) == (3.0, 0.0)


def test_the_interval_over_tasks_covers_95_percent():
    draws, hits = random.Random(1), 0
    for _ in range(3000):
        mean, ci95 = intervals.over_tasks([draws.expovariate(1.0) for _ in range(200)])
        hits += abs(mean - 1.0) <= ci95
    assert hits / 3000 == pytest.approx(0.95, abs=0.015)


def test_models_on_their_own_tasks_know_more_about_tasks_and_on_the_same_no_more():
    points = [(1.0, 0.3), (3.0, 0.4)]
    assert intervals.pooled(points) == (2.0, pytest.approx(0.25))
    assert intervals.pooled(points, shared=True) == (2.0, pytest.approx(0.35))
    assert intervals.pooled([(1.0, 0.3)] * 4) == (1.0, pytest.approx(0.15))
    assert intervals.pooled([(1.0, 0.3)] * 4, shared=True) == (1.0, pytest.approx(0.3))


def test_the_pooled_interval_covers_95_percent():
    """Three models of different quality, each on 100 tasks of its own."""
    draws, hits, levels = random.Random(2), 0, (0.0, 1.0, 5.0)
    for _ in range(2000):
        models = [intervals.over_tasks([draws.gauss(level, 1.0) for _ in range(100)]) for level in levels]
        mean, ci95 = intervals.pooled(models)
        hits += abs(mean - 2.0) <= ci95
    assert hits / 2000 == pytest.approx(0.95, abs=0.016)


@pytest.mark.parametrize(
    ("degrees", "t"),
    [(1, 12.706), (2, 4.303), (10, 2.228), (11, 2.201), (15, 2.131), (30, 2.042), (40, 2.021), (100, 1.984)],
)
def test_the_interval_over_seeds_has_students_t(degrees, t):
    means = [0.0, 1.0] * degrees
    means = means[: degrees + 1]
    expected = t * statistics.stdev(means) / math.sqrt(degrees + 1)
    assert intervals.over_seeds(means) == pytest.approx(expected, rel=6e-4)


def test_one_seed_has_no_interval():
    assert intervals.over_seeds([0.5]) is None


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_over_seeds_covers_95_percent(seeds):
    draws, hits = random.Random(seeds), 0
    for _ in range(4000):
        means = [draws.gauss(1.0, 0.3) for _ in range(seeds)]
        hits += abs(statistics.fmean(means) - 1.0) <= intervals.over_seeds(means)
    assert hits / 4000 == pytest.approx(0.95, abs=0.012)
