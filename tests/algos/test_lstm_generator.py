"""The LSTM generator against torch's LSTM, MAML and finite differences."""

import pytest
import torch
import torch.nn.functional as F
from helpers.oracles import assert_central_differences, image_tasks
from torch.func import functional_call

from metarun import seeds
from metarun.algos.lstm_generator import LSTMGenerator
from metarun.algos.maml import MAML
from metarun.data.sequences import Sequences
from metarun.data.sinusoid import Sinusoid
from metarun.engine.engine import Engine
from metarun.errors import SettingError
from metarun.models import LSTM, MLP, Conv4

CPU = torch.device("cpu")


def _source(**settings):
    source = Sequences(**settings)
    source.prepare(CPU)
    return source


@pytest.fixture(params=["mlp", "conv4 head", "lstm"])
def generated(request):
    """(generator, four float64 tasks)."""
    generator = torch.Generator().manual_seed(0)
    with seeds.forked("test", request.param):
        if request.param == "mlp":
            source = Sinusoid(shots=5, queries=4)
            source.prepare(CPU)
            model, tasks = MLP((1,), 1, hidden=[6, 6]), source.sample(0, "train", torch.arange(4)).to(torch.float64)
        elif request.param == "lstm":
            source = _source(length=6, symbols=3, shots=2, queries=2)
            model, tasks = LSTM((6, 3), 3, hidden=5), source.sample(0, "train", torch.arange(4)).to(torch.float64)
        else:
            model, tasks = Conv4((1, 16, 16), 3, filters=4), image_tasks(generator)
            for name in model.norm_parameters:
                torch.nn.init.uniform_(model.get_parameter(name), 0.5, 1.5)
        which = "head" if "head" in request.param else "all"
        made = LSTMGenerator(model.double(), generate=which, hidden=7, inner_lr=0.1, inner_steps=1, eval_inner_steps=2)
    return made, tasks


def test_what_is_generated_is_what_torchs_lstm_reads(generated):
    """The state of torch.nn.LSTM after the support pairs, times W, on top of the shared weights."""
    algorithm, tasks = generated
    meta, task = algorithm.init(), tasks.select(1)
    learner = {name.removeprefix("learner."): value for name, value in meta.items() if name.startswith("learner.")}
    seen = []
    handle = algorithm.model.head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    functional_call(algorithm.model, learner, (task.support_x,))
    handle.remove()
    y = task.support_y if task.support_y.is_floating_point() else F.one_hot(task.support_y, 3).double()
    pairs = torch.cat([seen[0], y], dim=1)
    reader = torch.nn.LSTM(pairs.shape[1], 7).double()
    with torch.no_grad():
        for name, value in (("weight", meta["reader.weight"]), ("bias", meta["reader.bias"])):
            i, f, o, g = value.chunk(4)
            value = torch.cat([i, f, g, o])
            if name == "weight":
                reader.weight_ih_l0.copy_(value[:, : pairs.shape[1]])
                reader.weight_hh_l0.copy_(value[:, pairs.shape[1] :])
            else:
                reader.bias_ih_l0.copy_(value)
                reader.bias_hh_l0.zero_()
    shift = meta["writer"] @ reader(pairs)[0][-1]
    params = next(iter(algorithm.adapt(meta, task, 0)))
    assert list(params) == list(learner)
    moved = {name for name in params if not torch.equal(params[name], learner[name])}
    assert moved == set(algorithm.shapes), "all of the learner, or its head"
    flat = torch.cat([(params[name] - learner[name]).flatten() for name in algorithm.shapes])
    torch.testing.assert_close(flat, shift, rtol=1e-9, atol=1e-11)


def test_its_meta_gradient_agrees_with_central_differences(generated):
    algorithm, tasks = generated
    meta = algorithm.init()
    meta["writer"] = meta["writer"] * 20
    assert_central_differences(algorithm, tasks, meta)


def test_first_order_leaves_the_reading_in_and_the_second_derivatives_out():
    """With the inner loop cut off from autograd, ∂θ_1/∂θ_0 = 1: every meta-gradient is that of the query loss at θ_1."""
    source = Sinusoid(shots=5, queries=4)
    source.prepare(CPU)
    tasks = source.sample(0, "train", torch.arange(1)).to(torch.float64)
    with seeds.forked("test", "first order"):
        algorithm = LSTMGenerator(MLP((1,), 1, hidden=[6]).double(), inner_lr=0.1, first_order=True)
    meta, task = algorithm.init(), tasks.select(0)
    leaves = {name: value.requires_grad_() for name, value in algorithm.init().items()}
    start = algorithm.start(leaves, task)
    step = torch.autograd.grad(
        F.mse_loss(algorithm.predict(start, task.support_x), task.support_y), list(start.values()), retain_graph=True
    )
    moved = {name: value - 0.1 * g for (name, value), g in zip(start.items(), step, strict=True)}
    expected = torch.autograd.grad(
        F.mse_loss(algorithm.predict(moved, task.query_x), task.query_y), list(leaves.values())
    )
    got = Engine().meta_gradient(algorithm, meta, tasks).grads
    for name, value in zip(leaves, expected, strict=True):
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-12)


def test_with_nothing_to_write_it_is_maml(generated):
    algorithm, tasks = generated
    meta = algorithm.init()
    meta["writer"] = torch.zeros_like(meta["writer"])
    which = "head" if algorithm.generate == "head" else "weights"
    theirs = MAML(algorithm.model, inner_lr=0.1, inner_steps=1, eval_inner_steps=2, inner_parameters=which)
    got, expected = (Engine().meta_gradient(a, m, tasks) for a, m in ((algorithm, meta), (theirs, theirs.init())))
    torch.testing.assert_close(got.losses, expected.losses, rtol=1e-12, atol=1e-12)
    assert not torch.equal(got.grads["writer"], torch.zeros_like(meta["writer"])), "and it learns to write"


def test_without_inner_steps_the_support_set_is_only_read():
    with seeds.forked("test", "read"):
        algorithm = LSTMGenerator(MLP((1,), 1), inner_steps=0, eval_inner_steps=0)
    source = Sinusoid()
    source.prepare(CPU)
    task = source.sample(0, "test", torch.arange(1)).select(0)
    assert algorithm.adaptation_curve(algorithm.init(), task).shape == (1,)
    other = task._replace(support_y=-task.support_y)
    a, b = (algorithm.meta_loss(algorithm.init(), some)[0] for some in (task, other))
    assert a != b, "what it reads matters"


@pytest.mark.parametrize(
    "bad", [{"generate": "body"}, {"hidden": 0}, {"inner_steps": -1}, {"eval_inner_steps": -1}, {"first_order": 1}]
)
def test_generator_settings_out_of_range_are_refused(bad):
    with pytest.raises(SettingError):
        LSTMGenerator(MLP((1,), 1), **bad)
