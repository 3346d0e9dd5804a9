"""The shared head against UNICORN-MAML written out with torch's autograd, symmetries, and chance."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metarun import seeds
from metarun.algos.maml import MAML
from metarun.algos.maml_pp import MAMLpp
from metarun.algos.meta_sgd import MetaSGD
from metarun.algos.reptile import Reptile
from metarun.data.sinusoid import Sinusoid
from metarun.engine.engine import Engine
from metarun.errors import SettingError
from metarun.models import MLP
from metarun.models.adopt import adopt
from metarun.tasks import Task

SHARED = {"head": "shared", "inner_lr": 0.3, "eval_inner_steps": 2}
ALGORITHMS = {
    "maml": (MAML, {**SHARED, "inner_steps": 2}),
    "fomaml": (MAML, {**SHARED, "inner_steps": 2, "first_order": True}),
    "anil": (MAML, {**SHARED, "inner_steps": 2, "inner_parameters": "head", "inner_loss_reduction": "per_shot"}),
    "adam": (MAML, {**SHARED, "inner_lr": 0.02, "inner_steps": 2, "inner_optimizer": "adam"}),
    "meta_sgd": (MetaSGD, {**SHARED, "inner_steps": 2}),
    "maml_pp": (MAMLpp, {**SHARED, "inner_steps": 2}),
    "reptile": (Reptile, {**SHARED, "inner_lr": 0.02, "inner_steps": 3, "inner_batch": 5}),
}


def _learner(outputs, bias=True):
    with seeds.forked("test", "head"):
        body = [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh()]
        return adopt(nn.Sequential(*body, nn.Linear(5, outputs, bias=bias)), [4]).double()


def _tasks(ways, shots=2, queries=3, number=2):
    g = torch.Generator().manual_seed(ways)

    def part(each):
        x = torch.randn(number, ways * each, 4, generator=g, dtype=torch.float64)
        return x, torch.arange(ways).repeat_interleave(each).expand(number, -1)

    return Task(*part(shots), *part(queries), torch.arange(number) + 1000)


def _algorithm(name, outputs, bias=True, **more):
    make, settings = ALGORITHMS[name]
    return make(_learner(outputs, bias), **settings, **more)


def _unicorn(module, row, task, ways, *, rate, steps, first_order, factor=1.0):
    """Yields {name: tensor} after 0, 1, ... steps of SGD from `ways` copies of a row of the head (its weight, its bias)."""
    copies = {f"4.{name}": value.expand(ways, *value.shape[1:]) for name, value in row.items()}
    params = {**{n: v for n, v in module.items() if n[:2] != "4."}, **copies}
    yield params
    for _ in range(steps):
        loss = factor * F.cross_entropy(_outputs(params, task.support_x), task.support_y)
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=not first_order)
        params = {name: value - rate * grad for (name, value), grad in zip(params.items(), grads, strict=True)}
        yield params


def _outputs(params, x):
    for layer in ("0", "2"):
        x = torch.tanh(x @ params[f"{layer}.weight"].T + params[f"{layer}.bias"])
    return x @ params["4.weight"].T + params.get("4.bias", 0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("ways", [3, 5])
def test_it_is_unicorn_maml_whatever_their_row_is(ways, first_order, bias):
    """With as many ways as outputs, and with fewer. Theirs has a row that is learned: its gradient is 0, ours has none."""
    name = "fomaml" if first_order else "maml"
    algorithm, task = _algorithm(name, 5, bias, inner_loss_reduction="per_shot"), _tasks(ways).select(0)
    meta = algorithm.init()
    assert not [name for name in meta if name.startswith("4.")]
    leaves = {name: value.requires_grad_() for name, value in meta.items()}
    draw = torch.Generator().manual_seed(0)
    row = {"weight": torch.randn(1, 5, generator=draw, dtype=torch.float64).requires_grad_()}
    row |= {"bias": torch.randn(1, generator=draw, dtype=torch.float64).requires_grad_()} if bias else {}
    steps = _unicorn(leaves, row, task, ways, rate=0.3, steps=2, first_order=first_order, factor=ways)
    answers = [_outputs(params, task.query_x) for params in steps]
    predicted = algorithm.predictions(meta, task)
    assert predicted.shape == (3, ways * 3, 5)
    for ours, theirs in zip(predicted, answers, strict=True):
        torch.testing.assert_close(ours.softmax(-1)[:, :ways], theirs.softmax(-1), rtol=1e-9, atol=1e-12)
        assert (ours.softmax(-1)[:, ways:] == 0).all()
    theirs = F.cross_entropy(answers[-1], task.query_y)
    loss, accuracy = algorithm.meta_loss(leaves, task)
    torch.testing.assert_close(loss, theirs, rtol=1e-9, atol=1e-12)
    assert accuracy == (answers[-1].argmax(-1) == task.query_y).double().mean()
    expected = torch.autograd.grad(theirs, [*leaves.values(), *row.values()])
    for ours, grad in zip(torch.autograd.grad(loss, list(leaves.values())), expected, strict=False):
        torch.testing.assert_close(ours, grad, rtol=1e-9, atol=1e-12)
    for grad in expected[len(leaves) :]:
        assert grad.abs().max() < 1e-14


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_order_of_the_classes_plays_no_part_and_step_0_is_chance(name, bias):
    algorithm, task = _algorithm(name, 4, bias), _tasks(4).select(0)
    meta, order = algorithm.init(), torch.tensor([2, 0, 3, 1])
    predicted = algorithm.predictions(meta, task)
    assert (predicted[0] == predicted[0, 0, 0]).all()
    assert algorithm.adaptation_curve(meta, task)[0] == 0.25
    renamed = task._replace(support_y=order[task.support_y], query_y=order[task.query_y])
    torch.testing.assert_close(algorithm.predictions(meta, renamed)[:, :, order], predicted, rtol=1e-12, atol=1e-12)
    assert predicted[-1].std(dim=-1).min() > 1e-3, "it has adapted"
    losses, grads = [], []
    for some in (task, renamed):
        leaves = {key: value.clone().requires_grad_() for key, value in meta.items()}
        loss, _ = algorithm.meta_loss(leaves, some)
        losses.append(loss)
        grads.append(torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True))
    torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-12)


def test_the_first_inner_step_moves_the_head_alone():
    algorithm, task = _algorithm("maml", 4), _tasks(4).select(0)
    start, first, second = algorithm.adapt(algorithm.init(), task, 2)
    moved = {name for name in start if not torch.equal(start[name], first[name])}
    assert moved == {"4.weight"}, "the bias stays too, with as many shots of every class"
    assert {name for name in start if not torch.equal(first[name], second[name])} >= {"0.weight", "2.weight"}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_tasks_of_fewer_classes_are_answered_as_with_as_many_outputs(name):
    """As a task is with a learner of its own number of outputs: also the meta-gradient, also mapped over tasks."""
    tasks = _tasks(3)
    three, seven = (_algorithm(name, outputs) for outputs in (3, 7))
    meta = three.init()
    assert {key: value.shape for key, value in seven.init().items()} == {k: v.shape for k, v in meta.items()}
    predicted = Engine().map_tasks(seven.predictions, meta, tasks)
    assert predicted.isfinite().all()
    assert (predicted.softmax(-1)[..., 3:] == 0).all()
    for t in range(2):
        alone = three.predictions(meta, tasks.select(t))
        torch.testing.assert_close(predicted[t, ..., :3], alone, rtol=1e-9, atol=1e-12)
    few, many = (Engine().meta_gradient(algorithm, meta, tasks) for algorithm in (three, seven))
    torch.testing.assert_close(many.losses, few.losses, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(many.grads, few.grads, rtol=1e-9, atol=1e-12)
    assert all(grad.isfinite().all() for grad in many.grads.values())


def test_rates_of_the_heads_weights_are_one_row_that_all_classes_use():
    """Meta-SGD by hand: the rates are expanded, so that the gradient of a rate is the sum over the classes."""
    algorithm, task = _algorithm("meta_sgd", 4), _tasks(4).select(0)
    meta = {name: value.requires_grad_() for name, value in algorithm.init().items()}
    assert meta["rate.4.weight"].shape == (1, 5)
    params = {name: meta[f"learner.{name}"] for name in ("0.weight", "0.bias", "2.weight", "2.bias")}
    params |= {
        "4.weight": torch.zeros(4, 5).double().requires_grad_(),
        "4.bias": torch.zeros(4).double().requires_grad_(),
    }
    for _ in range(2):
        loss = F.cross_entropy(_outputs(params, task.support_x), task.support_y)
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        rates = [meta[f"rate.{name}"].expand_as(value) for name, value in params.items()]
        params = {n: v - rate * grad for (n, v), rate, grad in zip(params.items(), rates, grads, strict=True)}
    expected = torch.autograd.grad(F.cross_entropy(_outputs(params, task.query_x), task.query_y), list(meta.values()))
    got = torch.autograd.grad(algorithm.meta_loss(meta, task)[0], list(meta.values()))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_reptiles_second_moment_moves_to_the_mean_of_the_classes():
    """One minibatch of all points from v = 0: v_1 = (1 - β2) g², with g = (p - y)·f / S of a zero head."""
    algorithm = Reptile(_learner(5), head="shared", inner_lr=0.02, inner_steps=1, inner_batch=None)
    task, meta = _tasks(3).select(0), algorithm.init()
    leaves = {name: value.requires_grad_() for name, value in meta.items()}
    loss, _ = algorithm.meta_loss(leaves, task)
    (grad,) = torch.autograd.grad(loss, [leaves["second.4.weight"]])
    x, y = task.points()
    with torch.no_grad():
        features = torch.tanh(torch.tanh(x @ meta["0.weight"].T + meta["0.bias"]) @ meta["2.weight"].T + meta["2.bias"])
        slope = (1 / 3 - F.one_hot(y, 3).double()).T @ features / len(x)  # [3, 5]
    torch.testing.assert_close(-grad, 0.001 * slope.square().mean(dim=0, keepdim=True), rtol=1e-9, atol=1e-14)


def test_what_cannot_share_a_head_is_refused_in_a_line():
    with pytest.raises(SettingError, match=r"'shared' \(algo.head\): expected own in regression"):
        _algorithm("maml", 1).check(Sinusoid(), 4)
    with pytest.raises(SettingError, match=r"'body' \(inner_parameters\): expected weights, head or all"):
        MAML(_learner(3), head="shared", inner_parameters="body")
    with pytest.raises(SettingError, match=r"'shared' \(head\): expected own where nothing but the last layer"):
        MAML(MLP((4,), 3, hidden=[]), head="shared")
    with pytest.raises(SettingError, match=r"expected own where the last layer has other weights"):
        MAML(
            adopt(nn.Sequential(nn.Linear(4, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))), [4]),
            head="shared",
        )
    with pytest.raises(SettingError, match=r"'share' \(head\): expected one of own, shared"):
        MAML(_learner(3), head="share")
