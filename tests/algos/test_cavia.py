"""CAVIA against the unadapted learner and finite differences."""

import pytest
import torch
from helpers.oracles import assert_central_differences, image_tasks

from metarun import seeds
from metarun.algos.cavia import CAVIA, CONTEXT, MAP
from metarun.algos.inner import without_prefix
from metarun.errors import SettingError
from metarun.models import MLP, Conv4


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


def test_what_makes_no_sense_is_refused():
    with pytest.raises(SettingError, match="layers"):
        _made(layers="last")
    with pytest.raises(SettingError, match="biases"):
        CAVIA(torch.nn.Linear(3, 2, bias=False))
