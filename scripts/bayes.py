"""The accuracy of the Bayes rule on data=tabular with linear teachers: what no learner can beat on the average.

    python scripts/bayes.py [TASKS] [WEIGHTS]

It knows the prior w ~ N(0, 1)^F and the scales r of the source. Of many weights drawn from the prior those stay that
give every support point its class, and a query has the class that most of them give it. Two rules: `inductive` takes
each query alone, so that of the other points that decide where the classes part it knows the distribution only;
`transductive` sees all queries together, and ranks them with the support set.
"""

import sys

import torch

from metarun import intervals
from metarun.data.tabular import Tabular


def answer(support_x, support_y, query_x, weights, generator):
    """[Q] classes by the transductive, and by the inductive rule, for two classes of equally many points."""
    points = torch.cat([support_x, query_x]).double()
    scores = points @ weights.T  # [P, W]
    high = scores.argsort(dim=0).argsort(dim=0) >= len(points) // 2
    right = (high[: len(support_x)] == support_y[:, None].bool()).all(dim=0)
    together = high[len(support_x) :, right].double().mean(dim=1) > 0.5
    others = torch.randn(len(points) - len(support_x) - 1, weights.shape[0], generator=generator, dtype=torch.float64)
    others = others * weights.norm(dim=1)  # scores of unseen points: x ~ N(0, 1)^F
    known = scores[: len(support_x)]
    alone = []
    for score in scores[len(support_x) :]:
        ranked = torch.cat([known, score[None], others])
        high = ranked.argsort(dim=0).argsort(dim=0) >= len(ranked) // 2
        right = (high[: len(known)] == support_y[:, None].bool()).all(dim=0)
        alone.append(high[len(known), right].double().mean() > 0.5)
    return together, torch.stack(alone)


def main(tasks: int = 100, number: int = 100_000) -> None:
    """Prints both accuracies with their intervals over tasks."""
    source = Tabular(teacher="linear")
    source.prepare(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    right = {"transductive": [], "inductive": []}
    for index in range(tasks):
        task = source.sample(0, "test", torch.tensor([index])).select(0)
        weights = source.scales * torch.randn(number, source.features, generator=generator, dtype=torch.float64)
        answers = answer(task.support_x, task.support_y, task.query_x, weights, generator)
        for name, found in zip(right, answers, strict=True):
            right[name].append(float((found == task.query_y.bool()).double().mean()))
    for name, each in right.items():
        mean, ci95 = intervals.over_tasks(each, 30)
        print(f"{name}: {100 * mean:.1f} ± {100 * ci95:.1f} % over {tasks} tasks")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
