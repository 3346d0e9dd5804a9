"""Reptile against the closed form of gradient descent on quadratics and against torch's Adam."""

import pytest
import torch
from helpers.oracles import EYE, Linear, quadratic, tune_by_hand

from metarun.algos.reptile import Reptile
from metarun.engine.engine import Engine
from metarun.errors import SettingError
from metarun.tasks import Task, minibatches

CPU = torch.device("cpu")


@pytest.mark.parametrize("mode", ["vmap", "loop"])
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_reptiles_direction_on_quadratics_is_the_closed_form(mode, steps):
    """θ - θ_K = (I - P)(θ - c) for gradient descent on ½(θ-c)ᵀA(θ-c) of all the task's points."""
    task, *_ = quadratic()
    x, y = (torch.cat(pair, dim=1)[0] for pair in ((task.support_x, task.query_x), (task.support_y, task.query_y)))
    a, c = 2 * x.T @ x / 10, torch.linalg.lstsq(x, y).solution
    algorithm = Reptile(
        Linear(5),
        inner_lr=0.05,
        inner_steps=steps,
        inner_optimizer="sgd",
        inner_betas=None,
        inner_moments=None,
        inner_batch=None,
    )
    meta = algorithm.init()
    got = Engine(mode).meta_gradient(algorithm, meta, task)
    p = torch.linalg.matrix_power(EYE - 0.05 * a, steps)
    torch.testing.assert_close(got.grads["theta"], (EYE - p) @ (meta["theta"] - c), rtol=1e-10, atol=1e-12)
    end = c + p @ (meta["theta"] - c)
    loss = (task.query_x[0] @ end - task.query_y[0]).square().mean()
    torch.testing.assert_close(got.losses[0], loss, rtol=1e-10, atol=1e-12)


def test_reptile_with_rate_one_moves_to_where_the_tasks_end():
    """Two tasks, plain torch Adam with β1 = 0 on minibatches, then the mean of where both ended."""
    tasks = [quadratic(seed=s)[0] for s in (1, 2)]
    both = Task(
        *(torch.cat(pair) for pair in zip(*(task[:4] for task in tasks), strict=True)), key=torch.tensor([7, 8])
    )
    model = Linear(5)
    algorithm = Reptile(model, inner_lr=0.01, inner_steps=4, inner_batch=3, inner_moments="fresh")
    state_meta = algorithm.init()
    grads = Engine().meta_gradient(algorithm, state_meta, both).grads["theta"]
    ends = []
    for t in range(2):
        task = both.select(t)
        theta = model.theta.detach().clone().requires_grad_()
        adam = torch.optim.Adam([theta], lr=0.01, betas=(0.0, 0.999))
        x, y = task.points()
        for places in minibatches(task.key, 10, 3, 4):
            adam.zero_grad()
            (x[places] @ theta - y[places]).square().mean().backward()
            adam.step()
        ends.append(theta.detach())
    torch.testing.assert_close(state_meta["theta"] - grads, sum(ends) / 2, rtol=1e-9, atol=1e-10)


def test_carried_moments_are_those_of_one_adam_over_all_tasks():
    """With one task in an outer step and ε = 1 nothing is ever averaged, and Reptile is torch's Adam, task after task."""
    model, tasks = Linear(5), [quadratic(seed=s)[0]._replace(key=torch.tensor([s])) for s in range(6)]
    algorithm = Reptile(model, inner_lr=0.01, inner_steps=4, inner_batch=3, meta_lr=1.0)
    meta = algorithm.init()
    theta = model.theta.detach().clone().requires_grad_()
    adam = torch.optim.Adam([theta], lr=0.01, betas=(0.0, 0.999))
    for some in tasks:
        for name, grad in Engine().meta_gradient(algorithm, meta, some).grads.items():
            meta[name] = meta[name] - grad
        task = some.select(0)
        x, y = task.points()
        for places in minibatches(task.key, 10, 3, 4):
            adam.zero_grad()
            (x[places] @ theta - y[places]).square().mean().backward()
            adam.step()
        torch.testing.assert_close(meta["theta"], theta.detach(), rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(meta["second.theta"], adam.state[theta]["exp_avg_sq"], rtol=1e-9, atol=1e-12)
    task = tasks[0].select(0)
    curve = algorithm.adaptation_curve(meta, task)
    for k, places in enumerate(minibatches(task.key, 5, 5, 3)):
        assert places is None
        x, y = task.support_x, task.support_y
        torch.testing.assert_close(curve[k], (task.query_x @ theta - task.query_y).square().mean().detach())
        adam.zero_grad()
        (x @ theta - y).square().mean().backward()
        adam.step()


def test_fresh_moments_begin_at_zero_in_every_task():
    """Adam's first step is then the rate long for every weight, whatever was trained on before."""
    tasks = [quadratic(seed=s)[0]._replace(key=torch.tensor([s])) for s in (0, 1)]
    algorithm = Reptile(Linear(5), inner_lr=0.01, inner_steps=4, inner_batch=None, inner_moments="fresh", meta_lr=1.0)
    meta = algorithm.init()
    for name, grad in Engine().meta_gradient(algorithm, meta, tasks[0]).grads.items():
        meta[name] = meta[name] - grad
    task = tasks[1].select(0)
    for loop in (algorithm.inner_loop(meta, task), algorithm.adapt(meta, task, 1)):
        first, second, *_ = loop
        step = (second["theta"] - first["theta"]).abs()
        torch.testing.assert_close(step, torch.full_like(step, 0.01), rtol=1e-5, atol=0)
    assert meta.keys() == {"theta"}, "nothing is carried"


def test_carried_moments_are_averaged_as_the_learner_is():
    """Two tasks and ε = 0.5: v and β2^t move half of the way to the mean of where both ended; the learner does too."""
    both = Task(*(torch.cat(pair) for pair in zip(*[quadratic(seed=s)[0][:5] for s in (1, 2)], strict=True)))
    algorithm = Reptile(Linear(5), inner_lr=0.01, inner_steps=3, inner_batch=None, meta_lr=0.5)
    meta = algorithm.init()
    grads = Engine().meta_gradient(algorithm, meta, both).grads
    assert float(meta["power"] - 0.5 * grads["power"]) == pytest.approx(0.5 + 0.5 * 0.999**3, rel=1e-12)
    ends = []
    for t in range(2):
        theta = meta["theta"].clone().requires_grad_()
        adam = torch.optim.Adam([theta], lr=0.01, betas=(0.0, 0.999))
        x, y = both.select(t).points()
        for _ in range(3):
            adam.zero_grad()
            (x @ theta - y).square().mean().backward()
            adam.step()
        ends.append(adam.state[theta]["exp_avg_sq"])
    torch.testing.assert_close(meta["second.theta"] - grads["second.theta"], sum(ends) / 2, rtol=1e-9, atol=1e-12)


def test_reptile_is_tested_on_minibatches_of_the_support_set_alone():
    task = quadratic()[0].select(0)._replace(key=torch.tensor(5))
    settings = {"inner_batch": 4, "eval_inner_batch": 2, "eval_inner_steps": 6, "inner_moments": "fresh"}
    algorithm = Reptile(Linear(5), inner_lr=0.02, **settings)
    theta = algorithm.init()["theta"].requires_grad_()
    adam = torch.optim.Adam([theta], lr=0.02, betas=(0.0, 0.999))

    def update(theta, gradient):
        theta.grad = gradient.detach()
        adam.step()
        return theta

    steps = [(update, places) for places in minibatches(task.key, 5, 2, 6)]
    expected = torch.stack([loss.detach().clone() for loss in tune_by_hand(theta, task, steps)])
    torch.testing.assert_close(algorithm.adaptation_curve(algorithm.init(), task), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"inner_steps": 0}, {"inner_batch": 0}, {"eval_inner_batch": -1}, {"inner_optimizer": "sgd"}, {"inner_betas": (0.0, 1.0)},
        {"inner_optimizer": "sgd", "inner_betas": None}, {"inner_betas": (0.1, 0.999)}, {"inner_moments": "kept"},
        {"meta_optimizer": torch.optim.Adam},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError):
        Reptile(Linear(2), **settings)
