"""Learners, tasks and comparisons whose right answers are known by themselves."""

import torch
from torch import nn

from metarun import seeds
from metarun.algos.maml import MAML
from metarun.engine.engine import Engine
from metarun.models import Conv4
from metarun.tasks import Task

EYE = torch.eye(5, dtype=torch.float64)


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


def norm_model(**settings):
    """A small Conv4 for image_tasks, whose batch norm has shifts that keep all channels alive."""
    with seeds.forked("test", "norms"):
        model = Conv4((1, 16, 16), 3, filters=4, **settings).double()
        for name in model.norm_parameters:
            nn.init.uniform_(model.get_parameter(name), 0.5, 1.5)
    return model


def flat(params):
    return torch.cat([value.flatten() for value in params.values()])


def tune_by_hand(theta, task, steps):
    """Query losses before and after each update of Linear's vector; `steps` has updates and their support points."""
    yield (task.query_x @ theta - task.query_y).square().mean()
    for update, places in steps:
        x, y = (t if places is None else t[places] for t in (task.support_x, task.support_y))
        theta = update(theta, 2 / len(x) * x.T @ (x @ theta - y))
        yield (task.query_x @ theta - task.query_y).square().mean()


def central_differences(algorithm, tasks, meta, to_the_end=True):
    """For each meta-parameter the error of the gradient along a random direction, and the gradient along it.

    Differences are of fourth order. A ReLU may switch within h, where there is no derivative: of several h the smallest error counts, and without
    `to_the_end` the first.
    """
    grads = Engine().meta_gradient(algorithm, meta, tasks).grads
    generator = torch.Generator().manual_seed(1)
    for name in meta:  # a direction for each parameter, so that none can hide behind another
        direction = torch.randn(meta[name].shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()

        def loss(h, name=name, direction=direction):
            changed = {**meta, name: meta[name] + h * direction}
            return torch.stack([algorithm.meta_loss(changed, tasks.select(t))[0] for t in range(len(tasks.key))]).mean()

        analytic, least = float((grads[name] * direction).sum()), float("inf")
        for h in (1e-5, 1e-4, 3e-6, 3e-5, 1e-6, 3e-7, 1e-7) if to_the_end else (1e-5,):
            with torch.no_grad():
                difference = float((8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h))
            least = min(least, abs(difference - analytic))
            if least < 1e-6 * max(1e-3, abs(analytic)):
                break
        yield name, least, analytic


def assert_central_differences(algorithm, tasks, meta):
    """The meta-gradient agrees with the loss to six digits, along a direction in each meta-parameter."""
    for name, error, analytic in central_differences(algorithm, tasks, meta):
        assert error < 1e-6 * max(1e-3, abs(analytic)), name


def sample_again(source):
    """Twenty tasks of a source, once they are seen to be the same alone; and those of another seed and another split."""
    whole = source.sample(0, "train", torch.arange(20))
    for one in (3, 19):
        alone = source.sample(0, "train", torch.tensor([one]))
        assert all(torch.equal(a[0], b[one]) for a, b in zip(alone, whole, strict=True))
    others = source.sample(1, "train", torch.arange(20)), source.sample(0, "test", torch.arange(20))
    return whole, others


def source_of_other_ways(make, train, test):
    """A source with eval_ways, whose tasks of each split are seen to be those of a source with that split's ways."""

    def prepared(**settings):
        source = make(**settings)
        source.prepare(torch.device("cpu"))
        return source

    source = prepared(ways=train, eval_ways=test)
    for split, ways in (("train", train), ("val", test), ("test", test)):
        tasks, same = (s.sample(0, split, torch.arange(3)) for s in (source, prepared(ways=ways)))
        assert all(torch.equal(a, b) for a, b in zip(tasks, same, strict=True))
    return source
