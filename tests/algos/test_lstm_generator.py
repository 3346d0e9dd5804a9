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
from metarun.models.slow_and_fast import SlowAndFast

CPU = torch.device("cpu")


def _source(**settings):
    source = Sequences(**settings)
    source.prepare(CPU)
    return source


FORMS = ["mlp", "mlp state", "mlp fast", "conv4 head", "conv4 fast", "lstm fast", "lstm"]


@pytest.fixture(params=FORMS)
def generated(request):
    """(generator, four float64 tasks)."""
    generator = torch.Generator().manual_seed(0)
    with seeds.forked("test", request.param):
        if request.param.startswith("mlp"):
            source = Sinusoid(shots=5, queries=4)
            source.prepare(CPU)
            model, tasks = MLP((1,), 1, hidden=[6, 6]), source.sample(0, "train", torch.arange(4)).to(torch.float64)
        elif request.param.startswith("lstm"):
            source = _source(length=6, symbols=3, shots=2, queries=2)
            model, tasks = LSTM((6, 3), 3, hidden=5), source.sample(0, "train", torch.arange(4)).to(torch.float64)
        else:
            model, tasks = Conv4((1, 16, 16), 3, filters=4), image_tasks(generator)
            for name in model.norm_parameters:
                torch.nn.init.uniform_(model.get_parameter(name), 0.5, 1.5)
        which = "head" if "head" in request.param else "all"
        form = {"write": "state" if "state" in request.param else "outer", "fast_layers": "fast" in request.param}
        steps = {"inner_lr": 0.1, "inner_steps": 1, "eval_inner_steps": 2}
        made = LSTMGenerator(model.double(), generate=which, hidden=7, **form, **steps)
    return made, tasks


def test_what_is_generated_is_what_torchs_lstm_reads(generated):
    """Of the states of torch.nn.LSTM at the support pairs: W times the last, or the mean of outer products."""
    algorithm, tasks = generated
    meta, task = algorithm.init(), tasks.select(1)
    prefix = "learner.slow." if algorithm.fast_layers else "learner."
    shared = {name.removeprefix(prefix): value for name, value in meta.items() if name.startswith(prefix)}
    model = algorithm.model.slow if algorithm.fast_layers else algorithm.model
    seen = []
    handle = model.head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    functional_call(model, shared, (task.support_x,))
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
    states = reader(pairs)[0]
    params = next(iter(algorithm.adapt(meta, task, 0)))
    before = {name.removeprefix("learner."): value for name, value in meta.items() if name.startswith("learner.")}
    assert set(params) == set(before)
    moved = {name for name in params if not torch.equal(params[name], before[name])}
    which = "fast." if algorithm.fast_layers else "head." if algorithm.generate == "head" else ""
    assert moved == {name for name in before if name.startswith(which)}, "all of the learner, its head, or a part"
    writer = iter(meta["writer"])
    for name in (name for name in before if name in moved):
        shape = before[name].shape

        def take(number):
            return torch.stack([next(writer) for _ in range(number)])

        if algorithm.write == "state":
            shift = take(shape.numel()) @ states[-1]
        elif len(shape) == 1:
            shift = take(shape[0]) @ states.mean(dim=0)
        else:
            rows, columns = take(shape[0]), take(shape[1:].numel())
            shift = torch.stack([torch.outer(rows @ h, columns @ h) for h in states]).mean(dim=0)
        torch.testing.assert_close(params[name] - before[name], shift.view(shape), rtol=1e-9, atol=1e-11)
    assert next(writer, None) is None


@pytest.mark.parametrize("hidden", [[4, 5], []])
def test_fast_layers_are_added_to_the_shared_ones(hidden):
    """By hand: ReLU(W x) + ReLU(W* x), and a sum of two heads."""
    with seeds.forked("test", "fast"):
        both = SlowAndFast(MLP((3,), 2, hidden=hidden).double())
    params = dict(both.named_parameters())
    for name, value in params.items():
        if name.startswith("fast."):
            torch.nn.init.normal_(value, generator=torch.Generator().manual_seed(len(name)))
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = x
    for layer in (*(f"layers.{n}" for n in range(len(hidden))), "head"):
        parts = [expected @ params[f"{p}.{layer}.weight"].T + params[f"{p}.{layer}.bias"] for p in ("slow", "fast")]
        expected = sum(parts if layer == "head" else [part.clamp(min=0) for part in parts])
    torch.testing.assert_close(both(x), expected, rtol=1e-12, atol=1e-12)


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


@pytest.mark.parametrize("generated", [form for form in FORMS if "fast" not in form], indirect=True)
def test_with_nothing_to_write_it_is_maml(generated):
    algorithm, tasks = generated
    meta = algorithm.init()
    for rows, *_ in algorithm.split(meta["writer"]):
        rows.zero_()
    which = "head" if algorithm.generate == "head" else "weights"
    theirs = MAML(algorithm.model, inner_lr=0.1, inner_steps=1, eval_inner_steps=2, inner_parameters=which)
    got, expected = (Engine().meta_gradient(a, m, tasks) for a, m in ((algorithm, meta), (theirs, theirs.init())))
    torch.testing.assert_close(got.losses, expected.losses, rtol=1e-12, atol=1e-12)
    assert got.grads["writer"].count_nonzero(), "and it learns to write"


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
    "bad",
    [
        {"generate": "body"},
        {"hidden": 0},
        {"inner_steps": -1},
        {"eval_inner_steps": -1},
        {"first_order": 1},
        {"write": "sum"},
        {"generate": "head", "fast_layers": True},
    ],
)
def test_generator_settings_out_of_range_are_refused(bad):
    with pytest.raises(SettingError):
        LSTMGenerator(MLP((1,), 1), **bad)
