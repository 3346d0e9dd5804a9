"""The LSTM generator, the LSTM learner, prototypical networks and the sequences that they tell apart."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.oracles import Linear, image_tasks
from torch.func import functional_call

from metarun import seeds
from metarun.algos.lstm_generator import LSTMGenerator
from metarun.algos.maml import MAML
from metarun.algos.protonet import ProtoNet
from metarun.data.sequences import Sequences
from metarun.data.sinusoid import Sinusoid
from metarun.engine.engine import Engine
from metarun.errors import SettingError
from metarun.models import LSTM, MLP, Conv4
from metarun.tasks import Task

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
    _finite_differences_agree(algorithm, tasks, meta)


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


def test_an_lstm_learner_is_torchs_lstm_and_the_mean_of_its_states():
    with seeds.forked("test", "lstm"):
        model, theirs = LSTM((9, 4), 3, hidden=6).double(), torch.nn.LSTM(4, 6, batch_first=True).double()
    x = torch.randn(5, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        i, f, o, g = model.cell.weight.chunk(4)
        weight = torch.cat([i, f, g, o])
        theirs.weight_ih_l0.copy_(weight[:, :4])
        theirs.weight_hh_l0.copy_(weight[:, 4:])
        i, f, o, g = model.cell.bias.chunk(4)
        theirs.bias_ih_l0.copy_(torch.cat([i, f, g, o]))
        theirs.bias_hh_l0.zero_()
    expected = F.linear(theirs(x)[0].mean(dim=1), model.head.weight, model.head.bias)
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-12)
    with pytest.raises(SettingError, match="sequences: length, symbols"):
        LSTM((1, 28, 28), 5)


def test_prototypes_are_class_means_in_a_learned_space():
    """On an identity body minus the squared distances to the class means, in whatever order the support set is."""
    tasks = image_tasks(torch.Generator().manual_seed(0), shots=3, queries=2)
    flat = Task(tasks.support_x.flatten(2), tasks.support_y, tasks.query_x.flatten(2), tasks.query_y, tasks.key)
    with seeds.forked("test", "proto"):
        algorithm = ProtoNet(MLP((256,), 3, hidden=[]).double())
    task = flat.select(0)
    means = torch.stack([task.support_x[task.support_y == n].mean(0) for n in range(3)])
    expected = -(torch.cdist(task.query_x, means) ** 2)
    torch.testing.assert_close(algorithm.logits({}, task), expected, rtol=1e-9, atol=1e-9)
    with seeds.forked("test", "proto"):
        algorithm = ProtoNet(Conv4((1, 16, 16), 3, filters=4).double())
    meta = algorithm.init()
    assert not [name for name in meta if name.startswith("head")]
    shuffled = torch.tensor([5, 0, 8, 3, 1, 7, 2, 6, 4])
    other = tasks.select(0)._replace(support_x=tasks.support_x[0][shuffled], support_y=tasks.support_y[0][shuffled])
    torch.testing.assert_close(algorithm.logits(meta, tasks.select(0)), algorithm.logits(meta, other))


def _finite_differences_agree(algorithm, tasks, meta):
    grads = Engine().meta_gradient(algorithm, meta, tasks).grads
    generator = torch.Generator().manual_seed(2)
    for name in meta:
        direction = torch.randn(meta[name].shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()

        def loss(h, name=name, direction=direction):
            return Engine().meta_gradient(algorithm, {**meta, name: meta[name] + h * direction}, tasks).losses.mean()

        analytic = (grads[name] * direction).sum()
        allowed = 1e-6 * max(1e-3, abs(analytic))
        differences = [(8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h) for h in (1e-5, 1e-4, 1e-6)]
        assert any(abs(difference - analytic) < allowed for difference in differences), name


@pytest.mark.parametrize("norm", ["transductive", "support"])
def test_prototypes_are_learned_through_support_and_query(norm):
    tasks = image_tasks(torch.Generator().manual_seed(0), shots=2, queries=2)
    with seeds.forked("test", "proto"):
        model = Conv4((1, 16, 16), 3, filters=4, norm=norm).double()
        for name in model.norm_parameters:
            torch.nn.init.uniform_(model.get_parameter(name), 0.5, 1.5)
    algorithm = ProtoNet(model)
    meta = algorithm.init()
    _finite_differences_agree(algorithm, tasks, meta)
    task = tasks.select(0)
    alone = torch.cat([algorithm.logits(meta, task._replace(query_x=x[None])) for x in task.query_x])
    together = algorithm.logits(meta, task)
    assert torch.allclose(alone, together) == (norm == "support"), "with the support set's statistics each stands alone"
    same = task._replace(query_x=task.support_x[::2])  # with one shot a class, a query that is its prototype
    first = same._replace(support_x=task.support_x[::2], support_y=task.support_y[::2])
    assert algorithm.logits(meta, first).diagonal().abs().max() < 1e-9, "a drawing is at no distance from itself"


def test_prototypes_refuse_regression_and_headless_learners():
    with pytest.raises(SettingError, match="no meaning in regression"):
        ProtoNet(MLP((1,), 1)).check(Sinusoid(), 25)
    for make in (ProtoNet, LSTMGenerator):
        with pytest.raises(SettingError, match="named head"):
            make(Linear(3))


def test_sequences_follow_their_chains():
    """The share of each step a -> b over many long sequences is the chain's probability; the first symbol is uniform."""
    source = _source(ways=2, shots=100, queries=100, length=60, symbols=4)
    tasks = source.sample(0, "train", torch.arange(3))
    chains = source.chains(0, "train", torch.arange(3))
    torch.testing.assert_close(chains.sum(-1), torch.ones(3, 2, 4, dtype=torch.float64))
    assert tasks.support_x.shape == (3, 200, 60, 4)
    assert (tasks.support_x.sum(-1) == 1).all()
    for t in range(3):
        x, y = tasks.select(t).points()
        for n in range(2):
            symbols = x[y == n].argmax(-1)  # [200, 60]
            steps = F.one_hot(symbols[:, :-1] * 4 + symbols[:, 1:], 16).sum((0, 1)).view(4, 4).double()
            visits = steps.sum(1, keepdim=True)
            deviation = (chains[t, n] * (1 - chains[t, n]) / visits).sqrt()
            assert ((steps / visits - chains[t, n]).abs() < 4.5 * deviation + 1e-9).all()
            first = torch.bincount(symbols[:, 0], minlength=4)
            assert ((first - 50).abs() < 4.5 * math.sqrt(200 * 0.25 * 0.75)).all()


def test_every_task_of_every_split_and_seed_has_chains_of_its_own():
    source = _source()
    some = [
        source.chains(*address, torch.arange(3)) for address in ((0, "train"), (0, "val"), (0, "test"), (1, "train"))
    ]
    first = torch.cat(some)[:, 0, 0, 0]
    assert len(first.unique()) == 12


def test_chains_are_uniform_on_the_simplex():
    """A coordinate of a flat Dirichlet over V numbers has mean 1/V and variance (V-1) / (V²(V+1))."""
    p = _source(symbols=5).chains(0, "train", torch.arange(3000))[..., 0].flatten()
    assert abs(p.mean() - 0.2) < 0.003
    assert abs(p.var() - 4 / (25 * 6)) < 0.001


def test_support_sequences_tell_the_chains_apart():
    """Bayes with step counts from the support set: what there is to learn is far above chance, and below certainty."""
    source = _source()
    tasks = source.sample(0, "test", torch.arange(300))
    right = 0.0
    for t in range(300):
        task = tasks.select(t)
        steps = [x[:, :-1].transpose(1, 2) @ x[:, 1:] for x in (task.support_x, task.query_x)]  # [n, V, V] counts
        counts = torch.stack([steps[0][task.support_y == n].sum(0) for n in range(3)]) + 1
        log = (counts / counts.sum(-1, keepdim=True)).log()
        right += ((steps[1][:, None] * log).sum((2, 3)).argmax(-1) == task.query_y).double().mean()
    assert 0.85 < right / 300 < 0.99


@pytest.mark.parametrize(
    "bad", [{"ways": 1}, {"shots": 0}, {"queries": 0}, {"length": 1}, {"symbols": 1}, {"length": 2.5}]
)
def test_sequence_settings_out_of_range_are_refused(bad):
    with pytest.raises(SettingError):
        Sequences(**bad)


@pytest.mark.parametrize(
    "bad", [{"generate": "body"}, {"hidden": 0}, {"inner_steps": -1}, {"eval_inner_steps": -1}, {"first_order": 1}]
)
def test_generator_settings_out_of_range_are_refused(bad):
    with pytest.raises(SettingError):
        LSTMGenerator(MLP((1,), 1), **bad)
