"""MAML's meta-gradient against closed forms, finite differences and two other libraries."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.oracles import (
    Linear,
    assert_central_differences,
    image_tasks,
    maml,
    norm_model,
    quadratic,
)

from metarun.algos.maml import MAML
from metarun.engine.engine import Engine
from metarun.errors import SettingError

CPU = torch.device("cpu")


@pytest.mark.parametrize("mode", ["vmap", "loop"])
@pytest.mark.parametrize("steps", [1, 5, 20])
@pytest.mark.parametrize("first_order", [False, True])
def test_meta_gradient_on_quadratics_is_the_closed_form(mode, steps, first_order):
    task, a, c, b, d = quadratic()
    rate = 0.05
    algorithm = MAML(Linear(5), inner_lr=rate, inner_steps=steps, first_order=first_order)
    meta = algorithm.init()
    p = torch.linalg.matrix_power(torch.eye(5, dtype=torch.float64) - rate * a, steps)
    adapted = c + p @ (meta["theta"] - c)
    expected = b @ (adapted - d)
    if not first_order:
        expected = p.T @ expected
    got = Engine(mode).meta_gradient(algorithm, meta, task)
    torch.testing.assert_close(got.grads["theta"], expected, rtol=1e-10, atol=1e-12)
    loss = 0.5 * (adapted - d).T @ b @ (adapted - d)
    torch.testing.assert_close(got.losses, loss[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "settings", [{}, {"inner_parameters": "all"}, {"inner_parameters": "head"}, {"inner_loss_reduction": "per_shot"}]
)
def test_meta_gradient_agrees_with_central_differences(learner, settings):
    model, tasks = learner
    algorithm = maml(model, inner_lr=0.1, **settings)  # a larger rate bends the loss too much for differences
    assert_central_differences(algorithm, tasks.select(slice(0, 2)), algorithm.init())


def test_first_order_gradient_differs_from_the_second_order_one(learner):
    model, tasks = learner
    one, two = (
        Engine().meta_gradient(maml(model, first_order=first), maml(model).init(), tasks).grads
        for first in (True, False)
    )
    assert any((one[name] - two[name]).norm() > 0.01 * two[name].norm() for name in one)


def _outer_adam(meta):
    # A bias before batch norm has a gradient of rounding alone; a large eps keeps Adam from making steps of it.
    return torch.optim.Adam(meta.values(), lr=1e-2, eps=1e-4)


def _ours(algorithm, batches):
    meta = algorithm.init()
    optimizer = _outer_adam(meta)
    for tasks in batches:
        grads = Engine("vmap", chunk=2).meta_gradient(algorithm, meta, tasks).grads
        for name, value in meta.items():
            value.grad = grads[name]
        optimizer.step()
    return meta


def _loss(outputs, y):
    return F.mse_loss(outputs, y) if y.is_floating_point() else F.cross_entropy(outputs, y)


def _batches(tasks):
    return [tasks.map(lambda tensor, k=k: tensor.roll(k, dims=0)[: 3 + k % 2]) for k in range(5)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first_order", [False, True])
def test_five_outer_steps_agree_with_higher(learner, first_order):
    import higher

    model, tasks = learner
    if model.norm == "support":
        pytest.skip("higher has no such batch norm")
    mine = _ours(maml(model, inner_parameters="all", first_order=first_order), _batches(tasks))
    theirs = copy.deepcopy(model)
    optimizer = _outer_adam(dict(theirs.named_parameters()))
    for batch in _batches(tasks):
        optimizer.zero_grad()
        for sx, sy, qx, qy in zip(*batch.examples(), strict=True):
            inner = torch.optim.SGD(theirs.parameters(), lr=0.3)
            with higher.innerloop_ctx(
                theirs, inner, copy_initial_weights=False, track_higher_grads=not first_order
            ) as (net, opt):
                for _ in range(2):
                    opt.step(_loss(net(sx), sy))
                loss = _loss(net(qx), qy) / len(batch.support_x)
                if first_order:
                    grads = torch.autograd.grad(loss, list(net.parameters(time=-1)))
                    for parameter, grad in zip(theirs.parameters(), grads, strict=True):
                        parameter.grad = grad if parameter.grad is None else parameter.grad + grad
                else:
                    loss.backward()
        optimizer.step()
    for name, value in theirs.named_parameters():
        torch.testing.assert_close(mine[name], value.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_five_outer_steps_agree_with_torchopt(learner):
    import torchopt

    model, tasks = learner
    if model.norm == "support":
        pytest.skip("torchopt has no such batch norm")
    mine = _ours(maml(model, inner_parameters="all"), _batches(tasks))
    theirs = copy.deepcopy(model)
    optimizer = _outer_adam(dict(theirs.named_parameters()))
    inner = torchopt.MetaSGD(theirs, lr=0.3)
    for batch in _batches(tasks):
        optimizer.zero_grad()
        start, start_inner = (
            torchopt.extract_state_dict(theirs, by="reference"),
            torchopt.extract_state_dict(inner, by="reference"),
        )
        for sx, sy, qx, qy in zip(*batch.examples(), strict=True):
            for _ in range(2):
                inner.step(_loss(theirs(sx), sy))
            (_loss(theirs(qx), qy) / len(batch.support_x)).backward()
            torchopt.recover_state_dict(theirs, start)
            torchopt.recover_state_dict(inner, start_inner)
        optimizer.step()
    for name, value in theirs.named_parameters():
        torch.testing.assert_close(mine[name], value.detach(), rtol=1e-9, atol=1e-9)


def test_anil_adapts_the_head_alone_and_learns_the_rest():
    model, tasks = norm_model(), image_tasks(torch.Generator().manual_seed(0))
    algorithm = maml(model, inner_parameters="head", inner_lr=0.5)
    meta = algorithm.init()
    *_, adapted = algorithm.adapt(meta, tasks.select(0), 3)
    assert {name for name in meta if not torch.equal(meta[name], adapted[name])} == {"head.weight", "head.bias"}
    # By hand: gradient steps of a linear classifier on features that stay.
    features = torch.nn.Sequential(*[model.get_submodule("head")])
    outputs = []
    handle = model.head.register_forward_hook(lambda _, inputs, __: outputs.append(inputs[0].detach()))
    model(tasks.select(0).support_x)
    handle.remove()
    weight, bias = (p.detach().clone() for p in features.parameters())
    labels = torch.nn.functional.one_hot(tasks.select(0).support_y, 3).double()
    for _ in range(3):
        error = ((outputs[0] @ weight.T + bias).softmax(-1) - labels) / len(labels)
        weight, bias = weight - 0.5 * error.T @ outputs[0], bias - 0.5 * error.sum(0)
    torch.testing.assert_close(adapted["head.weight"], weight, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(adapted["head.bias"], bias, rtol=1e-10, atol=1e-12)
    grads = Engine().meta_gradient(algorithm, meta, tasks).grads
    assert all(grads[name].norm() > 1e-6 for name in meta if name.endswith("weight")), "and all layers are meta-learned"


def test_boil_adapts_all_but_the_head_and_learns_that_too():
    """By hand: gradient steps of torch's own on a copy whose head is no parameter; batch norm's shift moves too."""
    model, task = norm_model(), image_tasks(torch.Generator().manual_seed(0)).select(0)
    algorithm = maml(model, inner_parameters="body", inner_lr=0.5)
    meta = algorithm.init()
    *_, adapted = algorithm.adapt(meta, task, 3)
    by_hand = copy.deepcopy(model)
    body = [value for name, value in by_hand.named_parameters() if not name.startswith("head.")]
    for _ in range(3):
        grads = torch.autograd.grad(F.cross_entropy(by_hand(task.support_x), task.support_y), body)
        for value, grad in zip(body, grads, strict=True):
            value.data = value.data - 0.5 * grad
    for name, value in by_hand.named_parameters():
        torch.testing.assert_close(adapted[name], value.detach(), rtol=1e-9, atol=1e-12)
        assert torch.equal(adapted[name], meta[name]) == name.startswith("head.")
    leaves = {name: value.requires_grad_() for name, value in meta.items()}
    grads = torch.autograd.grad(algorithm.meta_loss(leaves, task)[0], [leaves["head.weight"]])
    assert grads[0].norm() > 1e-6
    assert maml(model, inner_parameters="body", first_order=True).name == "first-order BOIL"


@pytest.mark.parametrize(
    "settings",
    [
        {"inner_steps": 0}, {"eval_inner_steps": 0}, {"inner_parameters": "body"}, {"inner_parameters": "head"}, {"first_order": 1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError):
        MAML(Linear(2), **settings)
