"""Means and their 95% intervals, over tasks and over seeds.

    over tasks   these trained models, on other tasks:   1.96 s/√T over T tasks
    pooled       S models:   sqrt(Σ ci²)/S, or Σ ci/S where they were tested on the same tasks
    over seeds   other trained models:   t s/√S over S seeds, t of Student's distribution

s is the standard deviation with Bessel's correction. Pure Python, so that tables need no torch.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Student's t, two-sided 95 %, for 1 to 30 degrees of freedom (any table of it).
STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class Evaluation(NamedTuple):
    """The metric over tasks, after each of 0..K inner steps."""

    mean: list[float]
    ci95: list[float]  # half the width of the 95% interval of that mean, over tasks
    tasks: int
    each: list[float]  # the metric of each task, after the last inner step


def over_tasks(values: Sequence[float]) -> tuple[float, float]:
    """The mean of a number for each task, and half the width of its 95% interval; 0 for one task."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
    return mean, 1.96 * math.sqrt(variance / len(values))


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
    degrees = len(means) - 1
    t = STUDENT[degrees - 1] if degrees <= len(STUDENT) else 1.96 + 2.4 / degrees
    return t * statistics.stdev(means) / math.sqrt(len(means))
