"""Simulates how often the intervals of metarun/intervals.py hold the truth, in percent; they should 95 times in 100.

python scripts/coverage.py            prints the table, in half a minute
python scripts/coverage.py shared     the one of tasks that share classes or tables, in a minute

Accuracies: T tasks of Q queries; the chance of a right answer is p in all tasks, or varies from task to task by a beta
distribution in which two answers of a task have correlation ρ. (In outputs/published ρ is 0 to 0.1.) Beside ours stand
t s/√T and 1.96 s/√T, and Wilson's with the same effective number of answers, whose larger half is taken.

Shared: 600 tasks of 5 queries a class. The chance of a right answer varies from class to class, or from table to table,
by a beta distribution; or classes are points, the answer is the nearest of a task's, and so depends on which classes
are together. The truth is the mean over all classes or tables there could be.
"""

import sys

import numpy as np

from metarun.intervals import Clusters, Z, over_tasks, student_t

RUNS = 4000
SHARES = (0.5, 0.7, 0.9, 0.95, 0.98, 0.995)
TASKS = (2, 4, 10, 20, 50, 100, 600)
SHARED = ((10, 1), (40, 1), (10, 5), (20, 5), (100, 5), (423, 5))  # classes or tables; in a task
SHARED_RUNS, DESIGNS = 1000, 20
NEAREST = 0.7262  # the truth of draw_nearest() with five classes in a task, from a million tasks


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


def draw_shares(rng: np.random.Generator, members: np.ndarray, spread: float) -> np.ndarray:
    """[T] accuracies of tasks of these classes, [T, c], whose chances have mean 0.8 and this standard deviation."""
    chance = np.full(members.max() + 1, 0.8)
    if spread:
        total = 0.8 * 0.2 / spread**2 - 1
        chance = rng.beta(0.8 * total, 0.2 * total, chance.shape)
    return rng.binomial(5, chance[members]).mean(1) / 5


def draw_nearest(rng: np.random.Generator, members: np.ndarray) -> np.ndarray:
    """[T] accuracies of tasks of these classes, which are points in the plane; their queries scatter about them."""
    points = rng.normal(size=(members.max() + 1, 2))[members]  # [T, c, 2]
    queries = points[:, :, None] + 0.5 * rng.normal(size=(*members.shape, 5, 2))
    distances = np.linalg.norm(queries[:, :, :, None] - points[:, None, None], axis=-1)
    return (distances.argmin(-1) == np.arange(members.shape[1])[:, None]).mean((1, 2))


def compare_shared(rng: np.random.Generator, number: int, in_task: int, spread: float | None) -> str:
    """The coverage of the interval with clusters and of the one without, and how many times as wide it is."""
    truth, hits, ratios = 0.8 if spread is not None else NEAREST, np.zeros(2), []
    for _ in range(DESIGNS):
        members = rng.permuted(np.tile(np.arange(number), (600, 1)), axis=1)[:, :in_task]
        clusters = Clusters(members.tolist())
        for _ in range(SHARED_RUNS // DESIGNS):
            drawn = draw_shares(rng, members, spread) if spread is not None else draw_nearest(rng, members)
            values = drawn.tolist()
            (mean, ours), (_, alone) = over_tasks(values, 5 * in_task, clusters), over_tasks(values, 5 * in_task)
            hits += [abs(mean - truth) <= ours, abs(mean - truth) <= alone]
            ratios.append(ours / alone)
    return " ".join(f"{100 * hit / SHARED_RUNS:6.1f}" for hit in hits) + f"   {np.mean(ratios):5.2f}"


def show_shared() -> None:
    """Prints a line for each number of classes or tables, and each way in which they differ."""
    rng = np.random.default_rng(0)
    print("clusters  in a task  spread    ours  without   times as wide")
    for number, in_task in SHARED:
        for spread in (0.0, 0.05, 0.1, 0.2, *([None] if in_task > 1 else [])):
            where = f"{number:8d} {in_task:10d} {'nearest' if spread is None else spread:>7}"
            print(where, compare_shared(rng, number, in_task, spread), flush=True)


def main() -> None:
    """Prints a line for each setting."""
    if sys.argv[1:] == ["shared"]:
        show_shared()
        return
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
