"""Meta-SGD against MAML, and its learned rates against closed forms."""

import pytest
import torch
from helpers.oracles import EYE, Linear, quadratic, tune_by_hand

from metarun.algos.maml import MAML
from metarun.algos.meta_sgd import MetaSGD
from metarun.engine.engine import Engine
from metarun.errors import SettingError

CPU = torch.device("cpu")


def test_meta_sgd_with_equal_rates_is_maml_and_its_rates_have_the_closed_form():
    task, a, c, b, d = quadratic()
    ours = MetaSGD(Linear(5), inner_lr=0.05, inner_steps=3)
    theirs = MAML(ours.model, inner_lr=0.05, inner_steps=3)
    meta = ours.init()
    assert torch.equal(meta["rate.theta"], torch.full((5, 1), 0.05, dtype=torch.float64))
    got = Engine().meta_gradient(ours, meta, task)
    expected = Engine().meta_gradient(theirs, theirs.init(), task)
    torch.testing.assert_close(got.grads["learner.theta"], expected.grads["theta"], rtol=1e-12, atol=1e-12)
    one = MetaSGD(ours.model, inner_lr=0.05, inner_steps=1)
    alpha = torch.tensor([0.1, -0.05, 0.2, 0.0, 0.3], dtype=torch.float64)[:, None]
    meta["rate.theta"] = alpha
    g = a @ (meta["learner.theta"] - c)
    outer = b @ (meta["learner.theta"] - alpha * g - d)
    got = Engine().meta_gradient(one, meta, task).grads
    torch.testing.assert_close(got["rate.theta"], -outer * g, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(got["learner.theta"], (EYE - alpha * a).T @ outer, rtol=1e-10, atol=1e-12)


def test_learned_rates_are_those_of_the_test_too():
    task = quadratic()[0].select(0)
    algorithm = MetaSGD(Linear(5), inner_lr=0.05, inner_steps=3, eval_inner_steps=3)
    meta = algorithm.init()
    meta["rate.theta"] = torch.tensor([0.1, -0.05, 0.2, 0.0, 0.3], dtype=torch.float64)[:, None]
    rates = [meta["rate.theta"]] * 3
    steps = [(lambda theta, g, rate=rate: theta - rate * g, None) for rate in rates]
    expected = torch.stack(list(tune_by_hand(meta["learner.theta"], task, steps)))
    curve = Engine().adaptation_curves(algorithm, meta, task.map(lambda t: t[None]))[0]
    torch.testing.assert_close(curve, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"inner_lr": -1.0}, {"inner_steps": 0},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError):
        MetaSGD(Linear(2), **settings)
