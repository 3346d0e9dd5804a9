"""Sinusoid and tabular tasks: their distribution, and that there is something to learn exactly where there "
"should be."""

import math

import pytest
import torch

from metarun.data.sequences import Sequences
from metarun.data.sinusoid import Sinusoid
from metarun.data.tabular import Tabular
from metarun.errors import SettingError

CPU = torch.device("cpu")


def _sampled(source, n, split="train", seed=0):
    source.prepare(CPU)
    return source.sample(seed, split, torch.arange(n))


def test_sinusoid_moments():
    tasks = _sampled(Sinusoid(shots=20, queries=30), 40_000)
    x = torch.cat([tasks.support_x, tasks.query_x], dim=1).double()
    y = torch.cat([tasks.support_y, tasks.query_y], dim=1).double()
    assert x.shape == y.shape == (40_000, 50, 1)
    assert x.min() >= -5
    assert x.max() <= 5
    assert abs(x.mean()) < 0.02
    assert abs(x.var() - 100 / 12) < 0.03
    assert y.abs().max() <= 5
    # E[A²]: A uniform on [0.1, 5]. E[sin²(x - φ)] = ½ - ½ E[cos 2x] E[cos 2φ] = ½, for φ runs over half a circle.
    expected = (5**3 - 0.1**3) / 3 / 4.9 / 2
    assert round(expected, 2) == 4.25, "the zero predictor's error"
    assert abs((y**2).mean() - expected) < 0.1
    # E[y] = E[A] E[sin x cos φ - cos x sin φ] = -2.55 · (sin 5 / 5) · (2 / π)
    assert abs(y.mean() + 2.55 * math.sin(5) / 5 * 2 / math.pi) < 0.03


def test_each_sinusoid_is_one_wave():
    tasks = _sampled(Sinusoid(shots=30, queries=40), 50)
    x = torch.cat([tasks.support_x, tasks.query_x], dim=1).double()
    y = torch.cat([tasks.support_y, tasks.query_y], dim=1).double()
    basis = torch.cat([x.sin(), x.cos()], dim=-1)  # A sin(x - φ) = a sin x + b cos x
    weights = torch.linalg.lstsq(basis[:, :30], y[:, :30]).solution
    assert (basis @ weights - y).abs().max() < 1e-4
    amplitude = weights.square().sum(dim=1).sqrt()
    phase = torch.atan2(-weights[:, 1], weights[:, 0])
    assert ((amplitude > 0.0999) & (amplitude < 5.0001)).all()
    assert ((phase > -1e-4) & (phase < math.pi + 1e-4)).all()
    assert amplitude.unique().numel() == 50


@pytest.mark.parametrize(
    "source",
    [
        Sinusoid(),
        Sequences(),
        Tabular(),
        Tabular(teacher="mlp", ways=3),
        Tabular(teacher="tree"),
        Tabular(teacher="noise"),
    ],
)
def test_a_task_is_a_function_of_seed_split_and_number(source):
    whole = _sampled(source, 20)
    for one in (3, 19):
        alone = source.sample(0, "train", torch.tensor([one]))
        assert all(torch.equal(a[0], b[one]) for a, b in zip(alone, whole, strict=True))
    for other in (source.sample(1, "train", torch.arange(20)), source.sample(0, "test", torch.arange(20))):
        if isinstance(source, Sequences):  # symbols are few, so that single sequences may well occur again
            assert not any(torch.equal(a, b) for a, b in zip(other.support_x, whole.support_x, strict=True))
        else:
            assert not torch.isin(other.support_x, whole.support_x).any()
        assert not torch.isin(other.key, whole.key).any()


@pytest.mark.parametrize("teacher", ["linear", "mlp", "tree", "noise"])
@pytest.mark.parametrize("ways", [2, 5])
def test_tabular_classes_have_equal_numbers(teacher, ways):
    tasks = _sampled(Tabular(ways=ways, shots=3, queries=4, teacher=teacher), 50)
    for y, each in ((tasks.support_y, 3), (tasks.query_y, 4)):
        counts = torch.stack([(y == way).sum(dim=1) for way in range(ways)])
        assert (counts == each).all()


def _nearest_neighbour_accuracy(tasks, scales):
    """Labels each query point as its nearest support point, after scaling the features."""
    distances = torch.cdist(tasks.query_x.double() * scales, tasks.support_x.double() * scales)
    answers = tasks.support_y.gather(1, distances.argmin(dim=-1))
    return (answers == tasks.query_y).double().mean()


@pytest.mark.parametrize("teacher", ["linear", "mlp", "tree"])
def test_knowing_the_shared_feature_scales_helps(teacher):
    """What meta-learning can find: with the scales even nearest neighbours do better than without."""
    source = Tabular(teacher=teacher, shots=10)
    tasks = _sampled(source, 2000, "test")
    blind = _nearest_neighbour_accuracy(tasks, torch.ones(10, dtype=torch.float64))
    knowing = _nearest_neighbour_accuracy(tasks, source.scales)
    assert blind > 0.55, "labels depend on the features"
    assert knowing > blind + 0.04, "and on some more than on others, the same in all tasks"


def test_noise_teaches_nothing():
    source = Tabular(teacher="noise", shots=10)
    tasks = _sampled(source, 4000, "test")
    for scales in (torch.ones(10, dtype=torch.float64), source.scales):
        # 120,000 query points in 4000 tasks; the classes are balanced, which pulls answers a little below one half.
        assert abs(_nearest_neighbour_accuracy(tasks, scales) - 0.5) < 0.01


def test_linear_teachers_are_linear():
    """Logistic regression on the true features separates support and query points of a task together."""
    tasks = _sampled(Tabular(features=3, shots=40, queries=10), 5)
    for t in range(5):
        task = tasks.select(t)
        x = torch.cat([task.support_x, task.query_x]).double()
        y = torch.cat([task.support_y, task.query_y]).double() * 2 - 1
        w = torch.zeros(4, dtype=torch.float64)
        padded = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
        for _ in range(20_000):  # the perceptron's rule ends on separable points, and only there
            wrong = (padded @ w * y <= 0).nonzero()
            if not len(wrong):
                break
            w += y[wrong[0, 0]] * padded[wrong[0, 0]]
        assert ((padded @ w) * y > 0).all()


@pytest.mark.parametrize(
    "bad",
    [
        {"shots": 0},
        {"queries": 0},
        {"ways": 1},
        {"features": 0},
        {"teacher": "oracle"},
        {"split_seed": -1},
        {"ways": 2.0},
    ],
)
def test_tabular_settings_out_of_range_are_refused(bad):
    with pytest.raises(SettingError):
        Tabular(**bad)


@pytest.mark.parametrize("bad", [{"shots": 0}, {"queries": -1}, {"shots": True}])
def test_sinusoid_settings_out_of_range_are_refused(bad):
    with pytest.raises(SettingError):
        Sinusoid(**bad)
