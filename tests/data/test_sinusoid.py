"""Sinusoids: their distribution, and that a task is one wave."""

import math

import pytest
import torch
from helpers.oracles import sample_again

from metarun.data.sinusoid import Sinusoid
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


def test_a_task_is_a_function_of_seed_split_and_number():
    source = Sinusoid()
    source.prepare(CPU)
    whole, others = sample_again(source)
    for other in others:
        assert not torch.isin(other.support_x, whole.support_x).any()
        assert not torch.isin(other.key, whole.key).any()


def test_inputs_may_come_with_the_truth_about_the_wave():
    source = Sinusoid(tell=True)
    tasks = _sampled(source, 50, "test")
    for x, y in ((tasks.support_x, tasks.support_y), (tasks.query_x, tasks.query_y)):
        place, amplitude, phase = x.double().unbind(-1)
        torch.testing.assert_close(amplitude * torch.sin(place - phase), y[..., 0].double(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tasks.query_x[..., :1], _sampled(Sinusoid(), 50, "test").query_x)


def test_on_a_grid_the_tasks_are_the_same_waves():
    source = Sinusoid()
    tasks = _sampled(source, 5, "test")
    grid = source.on_grid(0, "test", torch.arange(5), 101)
    for name in ("support_x", "support_y", "key"):
        assert torch.equal(getattr(grid, name), getattr(tasks, name))
    torch.testing.assert_close(grid.query_x[0, :, 0], torch.linspace(-5, 5, 101))
    nearest = (grid.query_x - tasks.query_x[:, :1]).abs().argmin(dim=1, keepdim=True)
    assert (grid.query_y.gather(1, nearest) - tasks.query_y[:, :1]).abs().max() < 5 * 0.05 + 1e-4  # |slope| <= 5


def test_its_facts_are_those_of_its_settings():
    sizes = {"shots": 5, "queries": 3, "train_shots": 10, "train_queries": 4}
    given = {"shots": 10, "queries": 4, "eval_shots": 5, "eval_queries": 3}
    assert Sinusoid(**given).facts() == {"name": "sinusoid", **sizes, "more": {}}
    assert Sinusoid(**given, tell=True).facts()["more"] == {"inputs": "with amplitude and phase"}


@pytest.mark.parametrize("bad", [{"shots": 0}, {"queries": -1}, {"shots": True}])
def test_sinusoid_settings_out_of_range_are_refused(bad):
    with pytest.raises(SettingError):
        Sinusoid(**bad)
