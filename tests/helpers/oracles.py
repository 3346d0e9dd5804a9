"""Learners, tasks and comparisons whose right answers are known by themselves."""

import torch
from torch import nn

from metarun.algos.maml import MAML
from metarun.tasks import Task


class Linear(nn.Module):
    """Outputs x·θ: its mean squared error is a quadratic of θ."""

    def __init__(self, size):
        super().__init__()
        self.theta = nn.Parameter(torch.randn(size, 1, dtype=torch.float64))

    def forward(self, x):
        return x @ self.theta


def quadratic(size=5, seed=0):
    """A task, and A, c, B, d of ½(θ-c)ᵀA(θ-c) and ½(θ-d)ᵀB(θ-d): its support and its query loss."""
    g = torch.Generator().manual_seed(seed)
    sx, qx = (torch.randn(1, size, size, generator=g, dtype=torch.float64) for _ in range(2))
    sy, qy = (torch.randn(1, size, 1, generator=g, dtype=torch.float64) for _ in range(2))
    a, b = (2 * x[0].T @ x[0] / size for x in (sx, qx))
    return (
        Task(sx, sy, qx, qy, torch.ones(1, dtype=torch.int64)),
        a,
        torch.linalg.solve(sx[0], sy[0]),
        b,
        torch.linalg.solve(qx[0], qy[0]),
    )


def image_tasks(generator, tasks=4, ways=3, shots=2, queries=2):
    """Random 16x16 images with labels, float64."""

    def part(each):
        x = torch.rand(tasks, ways * each, 1, 16, 16, generator=generator, dtype=torch.float64)
        return x, torch.arange(ways).repeat_interleave(each).expand(tasks, -1)

    return Task(*part(shots), *part(queries), torch.arange(tasks) + 1000)


def maml(model, **settings) -> MAML:
    """MAML with settings under which second derivatives matter."""
    return MAML(model, **{"inner_lr": 0.3, "inner_steps": 2, "eval_inner_steps": 3, **settings})


def run_engine(engine, algorithm, tasks, meta=None):
    meta = algorithm.init() if meta is None else meta
    gradient = engine.meta_gradient(algorithm, meta, tasks)
    # One vector: a bias before batch norm has a gradient of rounding alone, which has no digits to agree in.
    whole = torch.cat([grad.flatten() for grad in gradient.grads.values()])
    return [whole, gradient.losses, gradient.scores, engine.adaptation_curves(algorithm, meta, tasks)]


def assert_same(a, b, tolerance):
    for x, y in zip(a, b, strict=True):
        scale = y.abs().max().clamp(min=1e-3)
        assert (x - y).abs().max() <= tolerance * scale
