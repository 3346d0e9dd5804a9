"""Means and their 95% intervals, over tasks and over seeds.

    over tasks   these trained models, on other tasks:   t s/√T over T tasks
                 of accuracies:   sqrt((t s/√T)² + (z²/(n + z²))²)
    pooled       S models:   sqrt(Σ ci²)/S, or Σ ci/S where they were tested on the same tasks
    over seeds   other trained models:   t s/√S over S seeds

s is the standard deviation with Bessel's correction, t the 97.5% quantile of Student's distribution and z that of the
normal one. Pure Python, so that tables need no torch.

Accuracies near 0 or 1 are skewed, and s is 0 where by chance no task has an error, or all have as many. So a second
term is added, which hardly matters with 600 tasks: the width of Wilson's interval of n answers none of which is wrong,
from n/(n + z²) to 1 (Wilson 1927, "Probable inference, the law of succession, and statistical inference"). n is the
number of independent answers whose mean p would vary as it does here, p (1 - p) / (s²/T), but at most all T·Q of them
(Korn & Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts").

scripts/coverage.py simulates how often these intervals hold the truth, from 50 to 99.5%. With 600 tasks 94 to 96 times
in 100. With fewer more often, where fewer than some ten wrong answers are to be expected, for then no choice comes
nearer to 95. Less often where tasks vary much and hardly any is bad: those tasks cannot tell of the bad ones (with 10
tasks of 100 queries, correlation 0.1 within a task: 91 times at 95%, 68 at 99.5%). So it is with squared errors, which
are skewed: as skewed as the sinusoid's, 80 times with 10 tasks, 92 with 100, 95 with 600.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

NAME = "Student's t, Wilson's width"  # of the formula that over_tasks() is, in environment.json
Z = 1.959964
# Student's t, two-sided 95 %, for 1 to 9 degrees of freedom (any table of it).
FEW = (12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216)


class Evaluation(NamedTuple):
    """The metric over tasks, after each of 0..K inner steps."""

    mean: list[float]
    ci95: list[float]  # half the width of the 95% interval of that mean, over tasks
    tasks: int
    each: list[float]  # the metric of each task, after the last inner step
    queries: int  # of a task


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


def over_tasks(values: Sequence[float], answers: int | None = None) -> tuple[float, float]:
    """The mean of a number for each task, and half the width of its 95% interval.

    Args:
        values: of at least two tasks.
        answers: where the numbers are accuracies in [0, 1], of how many queries in each task. The interval has a width
            then even where all tasks are alike, and reaches no further than to 0 and 1.
    """
    tasks = len(values)
    mean = math.fsum(values) / tasks
    variance = math.fsum((value - mean) ** 2 for value in values) / (tasks - 1) / tasks  # of the mean
    width = student_t(tasks - 1) * math.sqrt(variance)
    if answers is None:
        return mean, width
    every = tasks * answers
    independent = min(every, mean * (1 - mean) / variance) if variance else every
    return mean, min(math.hypot(width, Z**2 / (independent + Z**2)), max(mean, 1 - mean))


def former(values: Sequence[float]) -> float:
    """The interval over tasks of runs that record no formula: 1.96 s/√T."""
    return 1.96 * statistics.stdev(values) / math.sqrt(len(values))


def pooled(points: Iterable[tuple[float, float]], shared: bool = False) -> tuple[float, float]:
    """The mean of several models' means, and its interval over tasks.

    Args:
        points: (mean, ci95) of each model.
        shared: whether models were tested on the same tasks, instead of each on its own. The interval is then as wide
            as it can be, for models may find the same tasks hard.
    """
    means, widths = zip(*points, strict=True)
    return statistics.fmean(means), statistics.fmean(widths) if shared else math.hypot(*widths) / len(widths)


def over_seeds(means: Sequence[float]) -> float | None:
    """Half the width of the 95% interval of the mean over seeds; None for one seed."""
    if len(means) < 2:
        return None
    return student_t(len(means) - 1) * statistics.stdev(means) / math.sqrt(len(means))
