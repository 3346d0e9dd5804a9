"""The outer loop's settings of every algorithm, and the parts of learners."""

import math
from functools import partial

import pytest
import torch
from helpers.oracles import (
    Linear,
    flat,
    maml,
)

from metarun import seeds
from metarun.algos.lstm_generator import LSTMGenerator
from metarun.algos.maml import MAML
from metarun.algos.pretrain import Pretrain
from metarun.algos.protonet import ProtoNet
from metarun.algos.reptile import Reptile
from metarun.data.sinusoid import Sinusoid
from metarun.engine import loop
from metarun.engine.engine import Engine
from metarun.errors import SettingError
from metarun.models import MLP

CPU = torch.device("cpu")


def test_the_outer_rate_falls_as_scheduled():
    algorithm = Reptile(Linear(2), meta_lr=1.0, meta_lr_schedule="linear")
    assert [algorithm.meta_lr_at(p) for p in (0, 0.25, 0.5, 1)] == [1, 0.75, 0.5, 0]
    cosine = Reptile(Linear(2), meta_lr=0.01, meta_lr_schedule="cosine")
    for p in (0, 0.2, 0.5, 0.9, 1):
        assert math.isclose(cosine.meta_lr_at(p), 0.01 * math.cos(math.pi * p / 2) ** 2, abs_tol=1e-17)
    assert Reptile(Linear(2), meta_lr=0.3).meta_lr_at(0.99) == 0.3


def test_the_schedule_and_the_clip_reach_the_outer_step():
    """Plain SGD outside: step n moves by rate_n times the gradient, or by rate_n times the clip if it is longer."""
    source = Sinusoid()
    source.prepare(torch.device("cpu"))
    for clip in (None, 1e-3):
        with seeds.forked("test", "schedule"):
            algorithm = maml(
                MLP((1,), 1),
                inner_lr=0.01,
                meta_lr=0.01,
                meta_lr_schedule="linear",
                meta_clip=clip,
                meta_optimizer=torch.optim.SGD,
            )
        experiment = loop.Experiment(algorithm, source, Engine(), torch.device("cpu"), 0)
        state = loop.start(experiment)
        for step in range(4):
            before = flat(state.meta).clone()
            grads = Engine().meta_gradient(
                algorithm, state.meta, source.sample(0, "train", torch.arange(4 * step, 4 * step + 4))
            )
            next(loop.meta_train(experiment, state, 4, 4))
            gradient = flat(grads.grads)
            assert gradient.norm() > 0.01, "so that the clip has something to do"
            gradient = gradient if clip is None else gradient * clip / gradient.norm()
            torch.testing.assert_close(
                flat(state.meta), before - 0.01 * (1 - step / 4) * gradient, rtol=1e-4, atol=1e-7
            )


def test_meta_training_tells_the_algorithm_how_far_it_is():
    told = []

    class Listening(MAML):
        def at(self, progress):
            told.append(progress)
            return self

    source = Sinusoid()
    source.prepare(torch.device("cpu"))
    experiment = loop.Experiment(Listening(MLP((1,), 1)), source, Engine(replay=False), torch.device("cpu"), 0)
    list(loop.meta_train(experiment, loop.start(experiment), 4, 2))
    assert told == [0, 0.25, 0.5, 0.75]


def test_a_second_outer_rate_is_refused():
    with pytest.raises(SettingError, match=r"set algo\.meta_lr"):
        Pretrain(Linear(2), meta_optimizer=partial(torch.optim.Adam, lr=0.5))
    Pretrain(Linear(2), meta_optimizer=partial(torch.optim.Adam, eps=1e-4))


def test_regression_and_headless_learners_are_refused_where_they_make_no_sense():
    with pytest.raises(SettingError, match="no meaning in regression"):
        ProtoNet(MLP((1,), 1)).check(Sinusoid(), 25)
    for make in (ProtoNet, LSTMGenerator):
        with pytest.raises(SettingError, match=r"Linear.*outputs are those of a linear layer"):
            make(Linear(3))


@pytest.mark.parametrize(
    "settings",
    [
        {"meta_lr": 0}, {"meta_lr": float("inf")}, {"meta_lr_schedule": "step"}, {"meta_clip": 0},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError):
        MAML(Linear(2), **settings)
