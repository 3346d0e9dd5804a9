"""MAML's meta-gradient against closed forms, finite differences and two other libraries."""

import pytest
import torch
import torch.nn.functional as F
from helpers.oracles import Linear, maml, quadratic

from metarun.algos.inner import SGD, Adam, inner_step
from metarun.algos.maml import MAML
from metarun.engine.engine import Engine
from metarun.errors import SettingError
from metarun.tasks import Task


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


def trajectory(losses, params, rule, first_order=False):
    """The parameters after 0, 1, ... inner steps."""
    state = rule.init(params)
    yield params
    for loss in losses:
        params, state = inner_step(loss, params, rule, state, first_order=first_order)
        yield params


def test_each_second_order_factor_is_there():
    """With rates .1 .2 .3 .4 .5 on ½θ², MAML's gradient is 0.1512 of the first-order one; each lost factor shows."""

    class Rates(SGD):
        def init(self, params):
            return iter([0.1, 0.2, 0.3, 0.4, 0.5])

        def step(self, params, grads, state):
            rate = next(state)
            return {"x": params["x"] - rate * grads["x"]}, state

    def gradient(first_order):
        x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        *_, last = trajectory([lambda p: 0.5 * p["x"] ** 2] * 5, {"x": x}, Rates(0.0), first_order=first_order)
        return torch.autograd.grad(0.5 * last["x"] ** 2, x)[0]

    torch.testing.assert_close(
        gradient(False) / gradient(True), torch.tensor(0.1512, dtype=torch.float64), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(
    "settings", [{}, {"inner_parameters": "all"}, {"inner_parameters": "head"}, {"inner_loss_reduction": "per_shot"}]
)
def test_meta_gradient_agrees_with_central_differences(learner, settings):
    model, tasks = learner
    algorithm = maml(model, inner_lr=0.1, **settings)  # a larger rate bends the loss too much for differences
    meta = algorithm.init()
    engine = Engine("vmap")
    grads = engine.meta_gradient(algorithm, meta, tasks).grads
    generator = torch.Generator().manual_seed(1)
    for name in meta:  # a direction for each parameter, so that none can hide behind another
        direction = torch.randn(meta[name].shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()

        def loss(step, name=name, direction=direction):
            return engine.meta_gradient(algorithm, {**meta, name: meta[name] + step * direction}, tasks).losses.mean()

        def difference(h, loss=loss):
            """Fourth order: the error is h^4 and rounding."""
            return (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)

        # A ReLU may switch within h, where there is no derivative; within one of these steps none does.
        analytic = (grads[name] * direction).sum()
        allowed = 1e-6 * max(1e-3, abs(analytic))
        assert any(abs(difference(h) - analytic) < allowed for h in (1e-5, 3e-6, 3e-5, 1e-6, 1e-4, 3e-7, 1e-7)), name


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
    return [Task(*(tensor.roll(k, dims=0)[: 3 + k % 2] for tensor in tasks)) for k in range(5)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first_order", [False, True])
def test_five_outer_steps_agree_with_higher(learner, first_order):
    import copy

    import higher

    model, tasks = learner
    if model.norm == "support":
        pytest.skip("higher has no such batch norm")
    mine = _ours(maml(model, inner_parameters="all", first_order=first_order), _batches(tasks))
    theirs = copy.deepcopy(model)
    optimizer = _outer_adam(dict(theirs.named_parameters()))
    for batch in _batches(tasks):
        optimizer.zero_grad()
        for sx, sy, qx, qy, _ in zip(*batch, strict=True):
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
    import copy

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
        for sx, sy, qx, qy, _ in zip(*batch, strict=True):
            for _ in range(2):
                inner.step(_loss(theirs(sx), sy))
            (_loss(theirs(qx), qy) / len(batch.support_x)).backward()
            torchopt.recover_state_dict(theirs, start)
            torchopt.recover_state_dict(inner, start_inner)
        optimizer.step()
    for name, value in theirs.named_parameters():
        torch.testing.assert_close(mine[name], value.detach(), rtol=1e-9, atol=1e-9)


def test_inner_adam_is_torch_adam():
    target = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    reference = torch.optim.Adam([x], lr=0.1, betas=(0.0, 0.99))
    losses = [lambda p: ((p["x"] - target) ** 4).sum()] * 7
    steps = trajectory(losses, {"x": x.detach().clone()}, Adam(0.1, (0.0, 0.99)))
    for ours in steps:
        torch.testing.assert_close(ours["x"], x.detach(), rtol=1e-12, atol=1e-12)
        reference.zero_grad()
        ((x - target) ** 4).sum().backward()
        reference.step()


def test_gradients_pass_through_inner_adam():
    """Against finite differences, with an eps that keeps Adam's sign-like first step smooth; and finite at g = 0."""

    def last(x, eps):
        *_, params = trajectory([lambda p: ((p["x"] - 1) ** 4).sum()] * 3, {"x": x}, Adam(0.1, eps=eps))
        return params["x"].sum()

    x = torch.tensor([0.3, -0.4, 1.8], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: last(x, 0.1), x)
    at_rest = torch.tensor([0.5, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.isfinite(torch.autograd.grad(last(at_rest, 1e-8), at_rest)[0]).all()


def test_per_shot_reduction_is_ways_times_the_mean(learner):
    """The authors' code sums N·K losses divided by K: under it, rate α acts like N·α on the mean."""
    model, tasks = learner
    ways = 1 if tasks.support_y.is_floating_point() else 3
    per_shot = Engine().meta_gradient(
        maml(model, inner_lr=0.1, inner_loss_reduction="per_shot"), maml(model).init(), tasks
    )
    mean = Engine().meta_gradient(maml(model, inner_lr=0.1 * ways), maml(model).init(), tasks)
    torch.testing.assert_close(per_shot.losses, mean.losses, rtol=1e-12, atol=1e-12)


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


@pytest.mark.parametrize(
    "settings",
    [
        {"inner_lr": 0.0}, {"inner_lr": -0.1}, {"inner_lr": float("nan")}, {"inner_lr": float("inf")}, {"inner_steps": 0},
        {"eval_inner_steps": 0}, {"inner_optimizer": "rmsprop"}, {"inner_loss_reduction": "sum"}, {"meta_lr": 0},
        {"inner_betas": (0.9, 0.99)}, {"inner_optimizer": "adam", "inner_betas": (0.9, 1.0)},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError):
        MAML(Linear(2), **settings)
