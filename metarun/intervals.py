"""Means and their 95% intervals, over tasks and over seeds.

    over tasks   these trained models, on other tasks:   w = t s/√T over T tasks
                 where tasks share classes or tables, on other ones:   w = t sqrt(s²/T + k σ²)
                 of accuracies:   sqrt(w² + (z²/(n + z²))²)
    pooled       S models:   sqrt(Σ ci²)/S, or Σ ci/S where they were tested on the same tasks
    over seeds   other trained models:   t s/√S over S seeds

s is the standard deviation with Bessel's correction, t the 97.5% quantile of Student's distribution and z that of the
normal one. Pure Python, so that tables need no torch.

Accuracies near 0 or 1 are skewed, and s is 0 where by chance no task has an error, or all have as many. So a second
term is added, which hardly matters with 600 tasks: the width of Wilson's interval of n answers none of which is wrong,
from n/(n + z²) to 1 (Wilson 1927, "Probable inference, the law of succession, and statistical inference"). n is the
number of independent answers whose mean p would vary as it does here, p (1 - p) / (w/t)², but at most all T·Q of them
(Korn & Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts").

Tasks that are made of the same classes, or drawn from the same table, are not independent: what is hard about a class
is in all its tasks, and no number of tasks makes it average out. Such a class or table is a cluster here, and a task's
metric is modelled as mean + effects of its clusters + a rest of its own, all with mean 0, an effect with variance σ²
(multiple membership: Browne, Goldstein & Rasbash 2001). The variance of the mean then exceeds s²/T by k σ², where two
tasks share k clusters on average. σ² comes from moments, whatever the distributions: with e a task's deviation from the
mean, Σ e² over tasks and Σ (Σ e over a cluster's tasks)² over clusters are equated to their expectations (Hartley, Rao
& LaMotte 1978, "A simple synthesis-based method of variance component estimation"); where it is negative it is 0, so
that no interval is narrower than without clusters. t has min(C, T) - 1 degrees of freedom, C clusters (Cameron & Miller
2015). Where each of C tables has as many tasks, this is t times the standard error of the C means of tables. Sums over
pairs of tasks that share a class would do for many classes, but are near 0 where nearly all pairs do, as with 10
classes in 5-way tasks. Where all tasks share all their clusters, nothing here can tell how others would do, and the
interval is one for these.

scripts/coverage.py simulates how often these intervals hold the truth, from 50 to 99.5%. With 600 tasks 94 to 96 times
in 100. With fewer more often, where fewer than some ten wrong answers are to be expected, for then no choice comes
nearer to 95. Less often where tasks vary much and hardly any is bad: those tasks cannot tell of the bad ones (with 10
tasks of 100 queries, correlation 0.1 within a task: 91 times at 95%, 68 at 99.5%). So it is with squared errors, which
are skewed: as skewed as the sinusoid's, 80 times with 10 tasks, 92 with 100, 95 with 600.

Over clusters 92 to 97 times with 600 tasks of 10 or 40 tables, or of 10, 20, 100 or 423 classes in 5-way tasks, where
classes differ; without clusters 11 to 90. Where they do not differ at all 96 to 99, for the interval is then 1.06 times
as wide as without clusters (423 classes), 1.07 (40 tables), 1.13 (100 classes), 1.25 (10 tables) or 1.65 (10 classes):
fewer can hardly be told from others that differ.
"""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, combinations
from typing import NamedTuple

NAME = "Student's t, Wilson's width"  # of the formula that over_tasks() is, in environment.json
CLUSTERED = f"{NAME}, clustered"  # the same with clusters
Z = 1.959964
# Student's t, two-sided 95 %, for 1 to 9 degrees of freedom (any table of it).
FEW = (12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216)


class Clusters:
    """The classes or tables that tasks share.

    Args:
        members: for each of at least two tasks the numbers of the clusters that it is made of.

    Attributes:
        number: how many clusters there are in all tasks together.
        degrees: of freedom of Student's t.
    """

    def __init__(self, members: Sequence[Sequence[int]]):
        self.members = members
        tasks, rows = len(members), [sorted(set(row)) for row in members]
        self._tasks_of: dict[int, list[int]] = defaultdict(list)
        for task, row in enumerate(rows):
            for cluster in row:
                self._tasks_of[cluster].append(task)
        sizes = {cluster: len(found) for cluster, found in self._tasks_of.items()}
        # Of A, [T, T], how many clusters two tasks share: trace, sum, and the sum of squares of A with its mean row and
        # column subtracted. In integers, so that what is 0 is 0.
        self._trace = sum(sizes.values())
        self._sum = sum(size**2 for size in sizes.values())
        rows_of_a = sum(sum(sizes[cluster] for cluster in row) ** 2 for row in rows)
        squares = self._sum + 2 * sum(count**2 for count in _count_pairs(rows, self._tasks_of.values()))
        centred = tasks**2 * squares - 2 * tasks * rows_of_a + self._sum**2  # times T²
        self._known = (tasks - 1) * centred - (tasks * self._trace - self._sum) ** 2
        self.number = len(sizes)
        self.degrees = (min(self.number, tasks) if self._known else tasks) - 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Clusters) and self.members == other.members

    def __hash__(self) -> int:
        return hash(tuple(map(tuple, self.members)))

    def excess(self, deviations: Sequence[float]) -> float:
        """By how much (k σ²) the variance of the mean exceeds that of independent tasks; from the deviations from it.

        0 where tasks share nothing, or all the same.
        """
        if not self._known:
            return 0.0
        tasks = len(deviations)
        own = math.fsum(e**2 for e in deviations)
        shared = math.fsum(math.fsum(deviations[task] for task in found) ** 2 for found in self._tasks_of.values())
        moment = tasks * shared - own * (tasks * self._trace - self._sum) / (tasks - 1)
        return max(0.0, (self._sum - self._trace) * moment / self._known)


def _count_pairs(rows: Sequence[Sequence[int]], tasks_of: Collection[Sequence[int]]) -> Iterable[int]:
    """In how many tasks each two clusters are, given the clusters of each task and the tasks of each cluster.

    Where tasks have more pairs than there are, as 10,000 of 20 classes among 423, by sets of tasks that are the bits of
    a number: 0.05 s in place of 0.9.
    """
    if len(tasks_of) ** 2 > sum(len(row) ** 2 for row in rows):
        return Counter(chain.from_iterable(combinations(row, 2) for row in rows)).values()
    places = [bytearray(len(rows) // 8 + 1) for _ in tasks_of]
    for bits, found in zip(places, tasks_of, strict=True):
        for task in found:
            bits[task // 8] |= 1 << task % 8
    return ((a & b).bit_count() for a, b in combinations([int.from_bytes(bits, "little") for bits in places], 2))


class Evaluation(NamedTuple):
    """The metric over tasks, after each of 0..K inner steps."""

    mean: list[float]
    ci95: list[float]  # half the width of the 95% interval of that mean, over tasks
    tasks: int
    each: list[float]  # the metric of each task, after the last inner step
    queries: int  # of a task
    clusters: Clusters | None = None  # None: tasks share nothing
    unclustered: list[float] | None = None  # ci95 as it would be if they did


def student_t(degrees: int) -> float:
    """The 97.5% quantile of Student's distribution, to five digits (Abramowitz & Stegun 1964, 26.7.5)."""
    if degrees <= len(FEW):
        return FEW[degrees - 1]
    z, n = Z, degrees
    terms = (
        (z**3 + z) / 4 / n,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96 / n**2,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / n**3,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160 / n**4,
    )
    return z + math.fsum(terms)


def over_tasks(
    values: Sequence[float], answers: int | None = None, clusters: Clusters | None = None
) -> tuple[float, float]:
    """The mean of a number for each task, and half the width of its 95% interval.

    Args:
        values: of at least two tasks.
        answers: where the numbers are accuracies in [0, 1], of how many queries in each task. The interval has a width
            then even where all tasks are alike, and reaches no further than to 0 and 1.
        clusters: that the tasks share; None: they are independent.
    """
    tasks = len(values)
    mean = math.fsum(values) / tasks
    deviations = [value - mean for value in values]
    variance = math.fsum(e**2 for e in deviations) / (tasks - 1) / tasks  # of the mean
    degrees = tasks - 1
    if clusters is not None:
        variance += clusters.excess(deviations)
        degrees = clusters.degrees
    width = student_t(degrees) * math.sqrt(variance)
    if answers is None:
        return mean, width
    every = tasks * answers
    independent = min(every, mean * (1 - mean) / variance) if variance else every
    return mean, min(math.hypot(width, Z**2 / (independent + Z**2)), max(mean, 1 - mean))


def former(values: Sequence[float]) -> float:
    """The interval over tasks of runs that record no formula: 1.96 s/√T."""
    return 1.96 * statistics.stdev(values) / math.sqrt(len(values))


def pooled(
    points: Iterable[tuple[float, float]], shared: bool = False, unclustered: Sequence[float] | None = None
) -> tuple[float, float]:
    """The mean of several models' means, and its interval over tasks.

    Args:
        points: (mean, ci95) of each model.
        shared: whether models were tested on the same tasks, instead of each on its own. The interval is then as wide
            as it can be, for models may find the same tasks hard.
        unclustered: the ci95 of each model without its tasks' clusters. What it lacks is due to classes or tables,
            which models that were tested on other tasks have in common.
    """
    means, widths = zip(*points, strict=True)
    if shared:
        return statistics.fmean(means), statistics.fmean(widths)
    own = widths if unclustered is None else unclustered
    common = [math.sqrt(max(0.0, width**2 - part**2)) for width, part in zip(widths, own, strict=True)]
    return statistics.fmean(means), math.hypot(statistics.fmean(common), math.hypot(*own) / len(own))


def over_seeds(means: Sequence[float], widths: Sequence[float] = (), unclustered: Sequence[float] = ()) -> float | None:
    """Half the width of the 95% interval of the mean over seeds; None for one seed.

    Where tasks share classes or tables, all seeds share them too, and the spread over seeds has nothing of it: what
    intervals over tasks are wider for that belongs to the one over seeds as well, sqrt(w² + c²).

    Args:
        means: of each seed.
        widths: of each seed half the width of the interval over its tasks.
        unclustered: the same without the tasks' clusters.
    """
    if len(means) < 2:
        return None
    width = student_t(len(means) - 1) * statistics.stdev(means) / math.sqrt(len(means))
    common = [math.sqrt(max(0.0, w**2 - own**2)) for w, own in zip(widths, unclustered, strict=True)]
    return math.hypot(width, statistics.fmean(common)) if common else width
