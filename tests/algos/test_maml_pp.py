"""MAML++ against MAML, its rates and schedules against closed forms and the authors' numbers."""

import math

import pytest
import torch
from helpers.oracles import (
    EYE,
    Linear,
    image_tasks,
    norm_model,
    quadratic,
    tune_by_hand,
)

from metarun.algos.maml import MAML
from metarun.algos.maml_pp import MAMLpp
from metarun.engine.engine import Engine
from metarun.errors import SettingError

CPU = torch.device("cpu")


def _pp(model, **settings):
    return MAMLpp(model, **{"inner_lr": 0.05, "inner_steps": 3, "eval_inner_steps": 3, **settings})


def test_maml_pp_at_the_end_of_training_is_maml():
    """With equal rates and norms, past the annealing, only the last step counts, in second order."""
    model, tasks = norm_model(), image_tasks(torch.Generator().manual_seed(0))
    ours, theirs = _pp(model), MAML(model, inner_lr=0.05, inner_steps=3, eval_inner_steps=3)
    got = Engine().meta_gradient(ours.at(0.99), ours.init(), tasks)
    expected = Engine().meta_gradient(theirs, theirs.init(), tasks)
    torch.testing.assert_close(got.losses, expected.losses, rtol=1e-12, atol=1e-12)
    for name, value in expected.grads.items():
        mine = got.grads[f"norm.{name}"].sum(dim=0) if name in model.norm_parameters else got.grads[f"learner.{name}"]
        torch.testing.assert_close(mine, value, rtol=1e-9, atol=1e-12)
    curves = [Engine().adaptation_curves(one, one.init(), tasks) for one in (ours, theirs)]
    torch.testing.assert_close(*curves)


def test_maml_pp_has_a_batch_norm_for_every_step():
    model, tasks = norm_model(), image_tasks(torch.Generator().manual_seed(0))
    algorithm = _pp(model)
    meta = algorithm.init()
    names = {f"norm.{name}" for name in model.norm_parameters}
    assert all(meta[name].shape[0] == 4 for name in names)
    grads = Engine().meta_gradient(algorithm, meta, tasks).grads
    for name in names:
        assert (grads[name].flatten(1).norm(dim=1) > 0).all(), (
            "each takes part: K in the support losses, one in the query's"
        )
    changed = {**meta, "norm.blocks.0.norm.shift": meta["norm.blocks.0.norm.shift"].clone()}
    changed["norm.blocks.0.norm.shift"][3] += 1  # of the last step, which no inner step has
    ends = [list(algorithm.adapt(m, tasks.select(0), 3))[-1] for m in (meta, changed)]
    same = {name for name in ends[0] if torch.equal(ends[0][name], ends[1][name])}
    assert set(ends[0]) - same == {"blocks.0.norm.shift"}


def test_maml_pp_rates_belong_to_a_tensor_and_a_step():
    """On a quadratic θ_{k+1} = θ_k - α_k g_k; ∂/∂α_k of the last query loss in closed form."""
    task, a, c, b, d = quadratic()
    algorithm = _pp(Linear(5)).at(1.0)
    meta = algorithm.init()
    rates = torch.tensor([0.02, 0.05, 0.1], dtype=torch.float64)
    meta["rate.theta"] = rates
    path = [meta["learner.theta"]]
    for rate in rates:
        path.append(path[-1] - rate * a @ (path[-1] - c))
    outer = b @ (path[-1] - d)
    expected = []
    for k in range(3):
        carried = outer
        for rate in rates[k + 1 :].flip(0):
            carried = (EYE - rate * a) @ carried
        expected.append(-(carried * (a @ (path[k] - c))).sum())
    got = Engine().meta_gradient(algorithm, meta, task).grads["rate.theta"]
    torch.testing.assert_close(got, torch.stack(expected), rtol=1e-10, atol=1e-12)


def test_maml_pp_weighs_its_steps_as_the_authors_do():
    """K = 5 and 10 epochs: 1/K each at first, 1/K - epoch/(10 K) but at least 0.03/K later, then the last alone."""
    algorithm = _pp(Linear(2), inner_steps=5, eval_inner_steps=5, multi_step_until=0.1)
    for epoch in range(10):
        early = max(0.2 - epoch * 0.02, 0.03 / 5)
        last = min(0.2 + epoch * 4 * 0.02, 1 - 4 * 0.03 / 5)
        got = algorithm.at(epoch / 100).weights()
        assert all(math.isclose(g, e, abs_tol=1e-12) for g, e in zip(got, [early] * 4 + [last], strict=True))
    assert algorithm.at(0.1).weights() == [0, 0, 0, 0, 1]
    assert _pp(Linear(2), multi_step_until=0).at(0).weights() == [0, 0, 1]


def test_maml_pp_counts_every_step_first_and_takes_first_order_first():
    task, a, c, b, d = quadratic()
    algorithm = _pp(Linear(5), multi_step_until=0.5, first_order_until=0.25)
    meta = algorithm.init()
    path = [meta["learner.theta"]]
    for _ in range(3):
        path.append(path[-1] - 0.05 * a @ (path[-1] - c))
    p = EYE - 0.05 * a
    for progress, second in ((0.0, False), (0.2, False), (0.25, True), (0.4, True), (0.5, True)):
        then = algorithm.at(progress)
        expected = sum(
            v * (torch.linalg.matrix_power(p, k) if second else EYE) @ b @ (path[k] - d)
            for k, v in enumerate(then.weights(), start=1)
        )
        got = Engine().meta_gradient(then, meta, task)
        torch.testing.assert_close(got.grads["learner.theta"], expected, rtol=1e-10, atol=1e-12)
        loss = sum(v * 0.5 * (path[k] - d).T @ b @ (path[k] - d) for k, v in enumerate(then.weights(), start=1))
        torch.testing.assert_close(got.losses, loss[0], rtol=1e-10, atol=1e-12)


def test_learned_rates_are_those_of_the_test_too():
    task = quadratic()[0].select(0)
    algorithm = MAMLpp(Linear(5), inner_lr=0.05, inner_steps=3, eval_inner_steps=3)
    meta = algorithm.init()
    rates = torch.tensor([0.02, 0.05, 0.1], dtype=torch.float64)
    meta["rate.theta"] = rates
    steps = [(lambda theta, g, rate=rate: theta - rate * g, None) for rate in rates]
    expected = torch.stack(list(tune_by_hand(meta["learner.theta"], task, steps)))
    curve = Engine().adaptation_curves(algorithm, meta, task.map(lambda t: t[None]))[0]
    torch.testing.assert_close(curve, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"inner_steps": 4, "eval_inner_steps": 3}, {"multi_step_until": 1.5}, {"first_order_until": -0.1}, {"first_order_until": True},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError):
        MAMLpp(Linear(2), **settings)
