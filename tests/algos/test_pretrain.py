"""Pretraining and the oracle against closed forms."""

import pytest
import torch
from helpers.oracles import Linear, quadratic

from metarun.algos.pretrain import Oracle, Pretrain
from metarun.data.sinusoid import Sinusoid
from metarun.data.tabular import Tabular
from metarun.engine.engine import Engine
from metarun.errors import SettingError
from metarun.models import MLP
from metarun.run.trained import Form

CPU = torch.device("cpu")


def test_pretraining_descends_the_loss_of_all_points():
    task, *_ = quadratic()
    algorithm = Pretrain(Linear(5))
    meta = algorithm.init()
    x, y = task.select(0).points()
    expected = 2 / 10 * x.T @ (x @ meta["theta"] - y)
    got = Engine().meta_gradient(algorithm, meta, task)
    torch.testing.assert_close(got.grads["theta"], expected, rtol=1e-10, atol=1e-12)


def test_pretraining_reports_the_query_metric():
    task = quadratic()[0].select(0)
    algorithm = Pretrain(Linear(5))
    meta = algorithm.init()
    expected = (task.query_x @ meta["theta"] - task.query_y).square().mean()
    torch.testing.assert_close(algorithm.meta_loss(meta, task)[1], expected)


def test_the_oracle_refuses_sources_that_do_not_tell():
    Oracle(MLP((3,), 1)).check(Sinusoid(tell=True), 25)
    for other in (Sinusoid(), Tabular()):
        with pytest.raises(SettingError, match="expected a source that can tell"):
            Oracle(MLP((1,), 1)).check(other, 25)
    Oracle(MLP((3,), 1)).check(Form({"kind": "numbers", "shape": [3]}, 1, "mse"), 25)  # of a run that is taken out


@pytest.mark.parametrize(
    "settings",
    [
        {"eval_inner_steps": -1}, {"inner_lr": 0.0},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError):
        Pretrain(Linear(2), **settings)
