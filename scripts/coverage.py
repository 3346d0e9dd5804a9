"""Simulates how often the intervals of metarun/intervals.py hold the truth, in percent; they should 95 times in 100.

python scripts/coverage.py            prints the table, in half a minute

Accuracies: T tasks of Q queries; the chance of a right answer is p in all tasks, or varies from task to task by a beta
distribution in which two answers of a task have correlation ρ. (In outputs/published ρ is 0 to 0.1.) Beside ours stand
t s/√T and 1.96 s/√T, and Wilson's with the same effective number of answers, whose larger half is taken.
"""

import sys

import numpy as np

from metarun.intervals import Z, over_tasks, student_t

RUNS = 4000
SHARES = (0.5, 0.7, 0.9, 0.95, 0.98, 0.995)
TASKS = (2, 4, 10, 20, 50, 100, 600)


def draw_accuracies(rng: np.random.Generator, tasks: int, queries: int, share: float, correlation: float) -> np.ndarray:
    """[RUNS, T] accuracies."""
    chance = np.full((RUNS, tasks), share)
    if correlation:
        spread = (1 - correlation) / correlation
        chance = rng.beta(share * spread, (1 - share) * spread, chance.shape)
    return rng.binomial(queries, chance) / queries


def wilson(values: np.ndarray, answers: int) -> np.ndarray:
    """The larger half of Wilson's interval, of the effective number of answers, with t for z in its main term."""
    tasks, mean = values.shape[1], values.mean(1)
    variance, every = values.var(1, ddof=1) / tasks, tasks * answers
    with np.errstate(divide="ignore", invalid="ignore"):
        independent = np.fmin(every, np.where(variance > 0, mean * (1 - mean) / variance, every))
    shift = Z**2 / independent
    return shift * abs(mean - 0.5) + np.sqrt(student_t(tasks - 1) ** 2 * variance + shift**2 / 4)


def cover(values: np.ndarray, widths: np.ndarray, truth: float) -> str:
    """How many intervals in 100 hold the truth."""
    return f"{100 * np.mean(abs(values.mean(1) - truth) <= widths + 1e-12):6.1f}"


def compare(values: np.ndarray, truth: float, answers: int | None) -> str:
    """The coverage of each kind of interval, and the mean half-width of ours and of t s/√T."""
    tasks = values.shape[1]
    normal = values.std(1, ddof=1) / tasks**0.5
    t = student_t(tasks - 1) * normal
    ours = np.array([over_tasks(row, answers)[1] for row in values.tolist()])
    kinds = [ours, t, 1.96 * normal, *([wilson(values, answers)] if answers else [])]
    return " ".join(cover(values, kind, truth) for kind in kinds) + f"   {ours.mean():.4f} {t.mean():.4f}"


def main() -> None:
    """Prints a line for each setting."""
    rng = np.random.default_rng(0)
    print("   T   Q     ρ      p   ours    t   1.96  Wilson   half-width: ours, t")
    for tasks in TASKS:
        for queries in (5, 25, 100):
            for correlation in (0.0, 0.03, 0.1):
                for share in SHARES:
                    values = draw_accuracies(rng, tasks, queries, share, correlation)
                    where = f"{tasks:4d} {queries:3d} {correlation:5.2f} {100 * share:6.1f}"
                    print(where, compare(values, share, queries), flush=True)
    print("   T   squared errors, gamma distribution of skewness 4 (as the sinusoid's)")
    for tasks in TASKS:
        print(f"{tasks:4d}", " " * 16, compare(rng.gamma(0.25, 4, (RUNS, tasks)), 1.0, None), flush=True)


if __name__ == "__main__":
    sys.exit(main())
