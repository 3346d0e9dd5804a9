"""The support loss, its reduction, the parameters that the inner loop leaves alone, and the rule that settings name."""

import pytest
import torch
from helpers.oracles import Linear, maml
from torch import nn

from metarun.algos.gradient import make_rule
from metarun.algos.maml import MAML
from metarun.data.sequences import Sequences
from metarun.data.sinusoid import Sinusoid
from metarun.data.tabular import Tabular
from metarun.engine.engine import Engine
from metarun.errors import SettingError, UsageError
from metarun.models.adopt import adopt

CPU = torch.device("cpu")


def test_per_shot_reduction_is_ways_times_the_mean(learner):
    """The authors' code sums N·K losses divided by K: under it, rate α acts like N·α on the mean."""
    model, tasks = learner
    ways = 1 if tasks.support_y.is_floating_point() else 3
    per_shot = Engine().meta_gradient(
        maml(model, inner_lr=0.1, inner_loss_reduction="per_shot"), maml(model).init(), tasks
    )
    mean = Engine().meta_gradient(maml(model, inner_lr=0.1 * ways), maml(model).init(), tasks)
    torch.testing.assert_close(per_shot.losses, mean.losses, rtol=1e-12, atol=1e-12)


def test_a_learner_of_which_batch_norm_alone_is_trained_is_told_what_to_set():
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    net[0].requires_grad_(False)
    net[2].requires_grad_(False)
    model = adopt(net, (4,))
    source = Tabular(features=4, ways=3)
    source.prepare(CPU)
    task = source.sample(0, "train", torch.arange(1)).select(0)
    algorithm = MAML(model, inner_steps=1)
    with pytest.raises(UsageError, match=r"of batch norm alone: .* set algo.inner_parameters=all"):
        algorithm.meta_loss(algorithm.init(), task)
    algorithm = MAML(model, inner_steps=1, inner_parameters="all")
    assert torch.isfinite(algorithm.meta_loss(algorithm.init(), task)[0])


def test_inner_loop_leaves_batch_norm_alone_unless_told_otherwise(learner):
    model, tasks = learner
    for which in ("weights", "all"):
        algorithm = maml(model, inner_parameters=which)
        meta = algorithm.init()
        *_, adapted = algorithm.adapt(meta, tasks.select(0), 2)
        moved = {name for name in meta if not torch.equal(meta[name], adapted[name])}
        # A bias before batch norm may stay too: the norm takes it away, so its gradient is zero or rounding.
        assert moved <= set(meta) - (set() if which == "all" else model.norm_parameters)
        assert {name for name in meta if "weight" in name} <= moved
        assert bool(moved & model.norm_parameters) == (which == "all" and bool(model.norm_parameters))


def test_the_facts_of_an_inner_loop_say_how_it_acts_on_the_mean_support_loss():
    omniglot, waves = Sequences(ways=5), Sinusoid()
    settings = {"inner_lr": 0.4, "inner_steps": 1, "eval_inner_steps": 3, "inner_loss_reduction": "per_shot"}
    algorithm, facts = MAML(Linear(2), **settings), {"rule": "SGD", "lr": 0.4, "steps": 1, "eval_steps": 3}
    assert algorithm.inner(omniglot) == {**facts, "reduction": "per_shot", "lr_on_mean": 2.0}
    assert algorithm.inner(waves) == {**facts, "reduction": "mean", "lr_on_mean": None}
    adam = MAML(Linear(2), **settings, inner_optimizer="adam").inner(omniglot)
    assert (adam["rule"], adam["lr_on_mean"]) == ("Adam", None), "Adam's steps do not grow with the loss"
    assert algorithm.inner(Sequences(ways=3, eval_ways=5))["lr_on_mean"] is None, "it is 1.2 in training, 2 in test"


@pytest.mark.parametrize(
    ("optimizer", "betas"),
    [("rmsprop", None), ("sgd", (0.9, 0.99)), ("adam", (0.9, 1.0)), ("adam", (0.9,)), ("adam", (-0.1, 0.9))],
)
def test_rules_that_make_no_sense_are_refused(optimizer, betas):
    make_rule("adam", 0.1, (0.0, 0.99))
    with pytest.raises(SettingError):
        make_rule(optimizer, 0.1, betas)


@pytest.mark.parametrize(
    "settings",
    [
        {"inner_lr": 0.0}, {"inner_lr": -0.1}, {"inner_lr": float("nan")}, {"inner_lr": float("inf")}, {"inner_loss_reduction": "sum"},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError):
        MAML(Linear(2), **settings)
