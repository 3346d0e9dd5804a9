"""Intervals against statistics by hand, tables, and simulation."""

import math
import random
import statistics

import numpy as np
import pytest

from metarun import intervals


def test_an_interval_over_tasks_is_t_standard_errors():
    mean, ci95 = intervals.over_tasks([1.0, 2.0, 4.0, 9.0])
    assert mean == 4.0
    assert ci95 == pytest.approx(3.18245 * math.sqrt((9 + 4 + 0 + 25) / 3 / 4))
    assert intervals.former([1.0, 2.0, 4.0, 9.0]) == pytest.approx(1.96 * math.sqrt((9 + 4 + 0 + 25) / 3 / 4))


def test_students_t_is_scipys_for_every_number_of_degrees():
    stats = pytest.importorskip("scipy.stats")
    for degrees in (*range(1, 200), 599, 9999, 10**6):
        assert intervals.student_t(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-5)


@pytest.mark.parametrize(
    ("tasks", "queries", "right", "least", "most"),
    [  # bounds: Clopper and Pearson's interval of the same answers, from its nearer end to its farther
        (4, 5, 2, 0.10, 0.24),
        (50, 5, 5, 0.012, 0.018),
        (600, 5, 5, 0.0010, 0.0015),
        (2, 10, 10, 0.14, 0.18),
        (4, 5, 0, 0.14, 0.18),
    ],
)
def test_accuracies_that_are_all_alike_have_an_interval_with_a_width(tasks, queries, right, least, most):
    mean, ci95 = intervals.over_tasks([right / queries] * tasks, queries)
    assert mean == pytest.approx(right / queries)
    assert least < ci95 < most


def test_an_interval_of_accuracies_reaches_no_further_than_all_accuracies():
    assert intervals.over_tasks([0.4, 0.8], 5) == (pytest.approx(0.6), pytest.approx(0.6))


def test_with_600_tasks_the_interval_of_accuracies_is_the_one_that_papers_print():
    draws = random.Random(0)
    for share, most in ((0.5, 1.006), (0.95, 1.02), (0.99, 1.1)):
        each = [sum(draws.random() < share for _ in range(5)) / 5 for _ in range(600)]
        assert 1 < intervals.over_tasks(each, 5)[1] / intervals.former(each) < most


@pytest.mark.parametrize(
    ("tasks", "queries", "share", "spread", "least", "most"),
    [
        (4, 100, 0.5, 0, 0.935, 0.965),
        (4, 25, 0.7, 9, 0.925, 0.965),
        (10, 25, 0.9, 0, 0.935, 0.97),
        (50, 25, 0.98, 0, 0.935, 0.97),
        (100, 25, 0.95, 30, 0.935, 0.965),
        (600, 5, 0.995, 0, 0.935, 0.965),
        (600, 5, 0.98, 9, 0.935, 0.965),
        # Where hardly a wrong answer is to be expected, no choice comes near to 95.
        (4, 5, 0.95, 0, 0.985, 1),
        (50, 5, 0.995, 0, 0.985, 1),
    ],
)
def test_the_interval_of_accuracies_covers_95_percent(tasks, queries, share, spread, least, most):
    """Right answers are binomial; with a spread, in every task by a chance of its own, of a beta distribution."""
    draws, hits = np.random.default_rng(0), 0
    for _ in range(1500):
        chance = draws.beta(share * spread, (1 - share) * spread, tasks) if spread else np.full(tasks, share)
        mean, ci95 = intervals.over_tasks((draws.binomial(queries, chance) / queries).tolist(), queries)
        hits += abs(mean - share) <= ci95 + 1e-12
    assert least <= hits / 1500 <= most


def test_the_interval_over_tasks_covers_95_percent():
    draws, hits = random.Random(1), 0
    for _ in range(3000):
        mean, ci95 = intervals.over_tasks([draws.expovariate(1.0) for _ in range(200)])
        hits += abs(mean - 1.0) <= ci95
    assert hits / 3000 == pytest.approx(0.95, abs=0.015)


def _tasks(tasks, number, in_task, seed=0):
    """Tasks made of some of so many classes, whose metrics depend on their classes."""
    draws = random.Random(seed)
    members = [draws.sample(range(number), in_task) for _ in range(tasks)]
    effects = [draws.gauss(0, 1) for _ in range(number)]
    return members, [sum(effects[c] for c in row) / in_task + draws.gauss(0, 0.5) for row in members]


def test_the_interval_of_tasks_from_as_large_tables_is_that_of_the_means_of_the_tables():
    """The analysis of variance of one factor."""
    draws = random.Random(0)
    levels = [draws.gauss(0, 1) for _ in range(10)]
    tables = [[level + draws.gauss(0, 1) for _ in range(6)] for level in levels]
    members = [[100 + table] for table in range(10) for _ in range(6)]
    mean, ci95 = intervals.over_tasks([v for table in tables for v in table], clusters=intervals.Clusters(members))
    means = [statistics.fmean(table) for table in tables]
    assert mean == pytest.approx(statistics.fmean(means))
    assert ci95 == pytest.approx(2.26216 * statistics.stdev(means) / math.sqrt(10))


@pytest.mark.parametrize(("number", "in_task"), [(9, 1), (7, 4), (30, 5)])
def test_the_variance_of_class_effects_solves_the_equations_of_its_moments(number, in_task):
    """In matrices: both sums of squares have their expectations, and the mean the variance that follows."""
    members, values = _tasks(40, number, in_task)
    joined = np.zeros((40, number))
    for task, row in enumerate(members):
        joined[task, row] = 1
    shared, centre = joined @ joined.T, np.eye(40) - 1 / 40
    moments = [[np.trace(centre @ a @ centre @ b) for b in (shared, np.eye(40))] for a in (shared, np.eye(40))]
    e = centre @ values
    of_classes, own = np.linalg.solve(moments, [e @ shared @ e, e @ e])
    assert of_classes > 0
    expected = of_classes * shared.sum() / 40**2 + own / 40
    clusters = intervals.Clusters(members)
    assert clusters.number == number
    ci95 = intervals.over_tasks(values, clusters=clusters)[1]
    assert ci95 == pytest.approx(intervals.student_t(number - 1) * math.sqrt(expected))


def test_tasks_that_share_nothing_or_all_the_same_have_the_interval_of_independent_ones_to_the_last_bit():
    _, values = _tasks(30, 9, 2)
    values = [1 / (1 + math.exp(-value)) for value in values]
    for members in ([[3 * t, 3 * t + 1] for t in range(30)], [[4, 2]] * 30, [[7]] * 30):
        for answers in (None, 5):
            clusters = intervals.Clusters(members)
            assert intervals.over_tasks(values, answers, clusters) == intervals.over_tasks(values, answers)


def test_a_class_effect_never_narrows_an_interval_and_the_order_of_tasks_and_classes_changes_nothing():
    for seed in range(5):
        members, values = _tasks(50, 8, 3, seed)
        clusters = intervals.Clusters(members)
        found = intervals.over_tasks(values, clusters=clusters)
        assert found[1] > intervals.over_tasks(values)[1]
        within = [value * (-1) ** t for t, value in enumerate(values)]
        assert intervals.over_tasks(within, clusters=clusters)[1] > intervals.over_tasks(within)[1]
        order = random.Random(seed).sample(range(50), 50)
        again = intervals.Clusters([[99 - c for c in reversed(members[t])] for t in order])
        assert intervals.over_tasks([values[t] for t in order], clusters=again) == found


def test_models_on_their_own_tasks_know_more_about_tasks_and_on_the_same_no_more():
    points = [(1.0, 0.3), (3.0, 0.4)]
    assert intervals.pooled(points) == (2.0, pytest.approx(0.25))
    assert intervals.pooled(points, shared=True) == (2.0, pytest.approx(0.35))
    assert intervals.pooled([(1.0, 0.3)] * 4) == (1.0, pytest.approx(0.15))
    assert intervals.pooled([(1.0, 0.3)] * 4, shared=True) == (1.0, pytest.approx(0.3))


def test_models_on_other_tasks_of_the_same_classes_know_no_more_about_classes():
    points = [(1.0, 0.5), (3.0, 0.5)]
    assert intervals.pooled(points, unclustered=[0.3, 0.3]) == (2.0, pytest.approx(math.hypot(0.4, 0.3 / math.sqrt(2))))
    assert intervals.pooled(points, unclustered=[0.5, 0.5]) == intervals.pooled(points)


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
