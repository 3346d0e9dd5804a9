"""CAVIA against the unadapted learner and finite differences."""

import pytest
import torch
from helpers.oracles import assert_central_differences, image_tasks

from metarun import seeds
from metarun.algos.cavia import CAVIA, CONTEXT, MAP
from metarun.algos.inner import without_prefix
from metarun.data.tabular import Tabular
from metarun.errors import SettingError
from metarun.models import MLP, Conv4
from metarun.models.adopt import adopt


def _made(model=None, **settings):
    with seeds.forked("test", "cavia"):
        model = model or Conv4((1, 16, 16), 3, filters=4)
        return CAVIA(model.double(), **{"inner_lr": 0.5, "inner_steps": 2, "eval_inner_steps": 2, **settings})


@pytest.mark.parametrize("layers", ["first", "all"])
def test_with_the_context_zero_it_is_the_learner(layers):
    algorithm, task = _made(layers=layers), image_tasks(torch.Generator().manual_seed(0)).select(0)
    meta = algorithm.init()
    unadapted = algorithm.model(task.query_x)
    torch.testing.assert_close(algorithm.predictions(meta, task)[0], unadapted)
    assert not torch.allclose(algorithm.predictions(meta, task)[-1], unadapted)


def test_the_context_is_a_further_input_of_the_first_layer():
    """As in the paper: a linear layer of x and φ together."""
    algorithm, x = _made(MLP((3,), 2, hidden=[7]), context=4), torch.randn(5, 3, dtype=torch.float64)
    params = algorithm.start(algorithm.init(), image_tasks(torch.Generator()).select(0))
    context = torch.randn(4, dtype=torch.float64)
    learner = without_prefix("learner", params)
    weight, bias, *rest = learner.values()
    assert weight.shape == (7, 3)
    wide = torch.cat([weight, params[MAP]], dim=1)
    hidden = torch.cat([x, context.expand(5, -1)], dim=1) @ wide.T + bias
    expected = hidden.relu() @ rest[0].T + rest[1]
    torch.testing.assert_close(algorithm.predict({**params, CONTEXT: context}, x), expected)


def test_its_meta_gradient_is_that_of_central_differences():
    assert_central_differences(
        _made(layers="all"), image_tasks(torch.Generator().manual_seed(0)), _made().init() | _made(layers="all").init()
    )


def test_nothing_but_the_context_is_adapted():
    algorithm, task = _made(), image_tasks(torch.Generator().manual_seed(0)).select(0)
    meta = algorithm.init()
    *_, last = algorithm.adapt(meta, task, 2)
    assert [name for name in last if name not in meta or not torch.equal(last[name], meta[name])] == [CONTEXT]
    assert last[CONTEXT].shape == (5,)


class Scaled(torch.nn.Module):
    """A layer whose bias batch norm takes away, with a scale and a shift of its own."""

    def __init__(self, bias):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=bias), torch.nn.BatchNorm1d(4), torch.nn.ReLU())
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (lambda: MLP((3,), 2, hidden=[4], norm="transductive", norm_scale=True), "norms.0.shift"),
        (lambda: MLP((3,), 2, hidden=[4]), "layers.0.bias"),
        (lambda: adopt(Scaled(True), (3,), "transductive"), "body.1.bias"),
        (lambda: adopt(Scaled(False), (3,), "transductive"), "body.1.bias"),
    ],
)
def test_the_context_shifts_the_first_bias_that_shows(model, name):
    """Not the one that batch norm takes away, and no scale: the answers change with the context."""
    source = Tabular(features=3, ways=2)
    source.prepare(torch.device("cpu"))
    with seeds.forked("test", "cavia"):
        algorithm = CAVIA(model(), eval_inner_steps=1)
    algorithm.check(source, 4)
    assert algorithm.sizes == {name: 4}
    task = source.sample(0, "train", torch.arange(1)).select(0)
    first, last = algorithm.predictions(algorithm.init(), task)
    assert (first - last).abs().max() > 1e-4


def test_all_layers_are_those_with_biases():
    assert list(_made(MLP((3,), 2, hidden=[4], norm="support", norm_scale=True), layers="all").sizes) == [
        "layers.0.bias", "norms.0.shift", "head.bias",
    ]  # fmt: skip


def test_what_makes_no_sense_is_refused():
    with pytest.raises(SettingError, match="layers"):
        _made(layers="last")
    with pytest.raises(SettingError, match="biases"):
        CAVIA(torch.nn.Linear(3, 2, bias=False))
