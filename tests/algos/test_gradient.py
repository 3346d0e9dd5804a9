"""Reptile, ANIL, Meta-SGD, MAML++, pretraining and the oracle against closed forms and against MAML."""

import math

import pytest
import torch
from helpers.oracles import Linear, image_tasks, maml, quadratic

from metarun import seeds
from metarun.algos.maml import MAML
from metarun.algos.maml_pp import MAMLpp
from metarun.algos.meta_sgd import MetaSGD
from metarun.algos.pretrain import Oracle, Pretrain
from metarun.algos.reptile import Reptile
from metarun.data.sinusoid import Sinusoid
from metarun.data.tabular import Tabular
from metarun.engine import loop
from metarun.engine.engine import Engine
from metarun.errors import SettingError
from metarun.models import MLP, Conv4
from metarun.tasks import Task, minibatches

EYE = torch.eye(5, dtype=torch.float64)


def _norm_model(seed="norms"):
    with seeds.forked("test", seed):
        model = Conv4((1, 16, 16), 3, filters=4).double()
        for name in model.norm_parameters:
            torch.nn.init.uniform_(model.get_parameter(name), 0.5, 1.5)
    return model


def _flat(params):
    return torch.cat([value.flatten() for value in params.values()])


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
    both = Task(*(torch.cat(pair) for pair in zip(*tasks, strict=True)))._replace(key=torch.tensor([7, 8]))
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


def test_carried_moments_are_averaged_as_the_learner_is():
    """Two tasks and ε = 0.5: v and β2^t move half of the way to the mean of where both ended; the learner does too."""
    both = Task(*(torch.cat(pair) for pair in zip(*[quadratic(seed=s)[0] for s in (1, 2)], strict=True)))
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


def test_reptiles_outer_rate_falls_linearly_to_zero():
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
            before = _flat(state.meta).clone()
            grads = Engine().meta_gradient(
                algorithm, state.meta, source.sample(0, "train", torch.arange(4 * step, 4 * step + 4))
            )
            next(loop.meta_train(experiment, state, 4, 4))
            gradient = _flat(grads.grads)
            assert gradient.norm() > 0.01, "so that the clip has something to do"
            gradient = gradient if clip is None else gradient * clip / gradient.norm()
            torch.testing.assert_close(
                _flat(state.meta), before - 0.01 * (1 - step / 4) * gradient, rtol=1e-4, atol=1e-7
            )


def test_anil_adapts_the_head_alone_and_learns_the_rest():
    model, tasks = _norm_model(), image_tasks(torch.Generator().manual_seed(0))
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


def test_meta_sgd_with_equal_rates_is_maml_and_its_rates_have_the_closed_form():
    task, a, c, b, d = quadratic()
    ours = MetaSGD(Linear(5), inner_lr=0.05, inner_steps=3)
    theirs = MAML(ours.model, inner_lr=0.05, inner_steps=3)
    meta = ours.init()
    assert torch.equal(meta["rate.theta"], torch.full((5, 1), 0.05, dtype=torch.float64))
    got = Engine().meta_gradient(ours, meta, task)
    expected = Engine().meta_gradient(theirs, theirs.init(), task)
    torch.testing.assert_close(got.grads["learner.theta"], expected.grads["theta"], rtol=1e-12, atol=1e-12)
    one = MetaSGD(ours.model, inner_lr=0.05, inner_steps=1)
    alpha = torch.tensor([0.1, -0.05, 0.2, 0.0, 0.3], dtype=torch.float64)[:, None]
    meta["rate.theta"] = alpha
    g = a @ (meta["learner.theta"] - c)
    outer = b @ (meta["learner.theta"] - alpha * g - d)
    got = Engine().meta_gradient(one, meta, task).grads
    torch.testing.assert_close(got["rate.theta"], -outer * g, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(got["learner.theta"], (EYE - alpha * a).T @ outer, rtol=1e-10, atol=1e-12)


def _pp(model, **settings):
    return MAMLpp(model, **{"inner_lr": 0.05, "inner_steps": 3, "eval_inner_steps": 3, **settings})


def test_maml_pp_at_the_end_of_training_is_maml():
    """With equal rates and norms, past the annealing, only the last step counts, in second order."""
    model, tasks = _norm_model(), image_tasks(torch.Generator().manual_seed(0))
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
    model, tasks = _norm_model(), image_tasks(torch.Generator().manual_seed(0))
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


def test_meta_training_tells_the_algorithm_how_far_it_is():
    told = []

    class Listening(MAML):
        def at(self, progress):
            told.append(progress)
            return self

    source = Sinusoid()
    source.prepare(torch.device("cpu"))
    experiment = loop.Experiment(Listening(MLP((1,), 1)), source, Engine(), torch.device("cpu"), 0)
    list(loop.meta_train(experiment, loop.start(experiment), 4, 2))
    assert told == [0, 0.25, 0.5, 0.75]


def test_pretraining_descends_the_loss_of_all_points():
    task, *_ = quadratic()
    algorithm = Pretrain(Linear(5))
    meta = algorithm.init()
    x, y = task.select(0).points()
    expected = 2 / 10 * x.T @ (x @ meta["theta"] - y)
    got = Engine().meta_gradient(algorithm, meta, task)
    torch.testing.assert_close(got.grads["theta"], expected, rtol=1e-10, atol=1e-12)


def test_the_oracle_is_told_the_wave_and_refuses_sources_that_do_not_tell():
    source = Sinusoid(tell=True)
    source.prepare(torch.device("cpu"))
    tasks = source.sample(0, "test", torch.arange(50))
    for x, y in ((tasks.support_x, tasks.support_y), (tasks.query_x, tasks.query_y)):
        place, amplitude, phase = x.double().unbind(-1)
        torch.testing.assert_close(amplitude * torch.sin(place - phase), y[..., 0].double(), rtol=1e-4, atol=1e-5)
    untold = Sinusoid()
    untold.prepare(torch.device("cpu"))
    torch.testing.assert_close(tasks.query_x[..., :1], untold.sample(0, "test", torch.arange(50)).query_x)
    Oracle(MLP((3,), 1)).check(source, 25)
    for other in (untold, Tabular()):
        with pytest.raises(SettingError, match="expected a source that can tell"):
            Oracle(MLP((1,), 1)).check(other, 25)


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (Reptile, {"inner_steps": 0}), (Reptile, {"inner_batch": 0}), (Reptile, {"eval_inner_batch": -1}),
        (Reptile, {"inner_optimizer": "sgd"}), (Reptile, {"inner_betas": (0.0, 1.0)}),
        (Reptile, {"inner_optimizer": "sgd", "inner_betas": None}), (Reptile, {"inner_betas": (0.1, 0.999)}),
        (Reptile, {"inner_moments": "kept"}), (Reptile, {"meta_optimizer": torch.optim.Adam}), (Reptile, {"meta_clip": 0}),
        (Reptile, {"meta_lr_schedule": "step"}), (MetaSGD, {"inner_lr": -1.0}), (MetaSGD, {"inner_steps": 0}),
        (MAMLpp, {"inner_steps": 4, "eval_inner_steps": 3}), (MAMLpp, {"multi_step_until": 1.5}), (MAMLpp, {"first_order_until": -0.1}),
        (MAMLpp, {"first_order_until": True}), (Pretrain, {"eval_inner_steps": -1}), (Pretrain, {"inner_lr": 0.0}),
        (MAML, {"inner_parameters": "body"}), (MAML, {"inner_parameters": "head"}),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(cls, settings):
    with pytest.raises(SettingError):
        cls(Linear(2), **settings)


def _tuned_by_hand(theta, task, steps):
    """Query losses before and after each of some updates of one vector; `steps` gives update and its support points."""
    yield (task.query_x @ theta - task.query_y).square().mean()
    for update, places in steps:
        x, y = (t if places is None else t[places] for t in (task.support_x, task.support_y))
        theta = update(theta, 2 / len(x) * x.T @ (x @ theta - y))
        yield (task.query_x @ theta - task.query_y).square().mean()


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
    expected = torch.stack([loss.detach().clone() for loss in _tuned_by_hand(theta, task, steps)])
    torch.testing.assert_close(algorithm.adaptation_curve(algorithm.init(), task), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cls", [MetaSGD, MAMLpp])
def test_learned_rates_are_those_of_the_test_too(cls):
    task = quadratic()[0].select(0)
    algorithm = cls(Linear(5), inner_lr=0.05, inner_steps=3, eval_inner_steps=3)
    meta = algorithm.init()
    if cls is MetaSGD:
        rates = torch.tensor([0.1, -0.05, 0.2, 0.0, 0.3], dtype=torch.float64)[:, None]
        each = [rates] * 3
    else:
        rates = torch.tensor([0.02, 0.05, 0.1], dtype=torch.float64)
        each = list(rates)
    meta["rate.theta"] = rates
    steps = [(lambda theta, g, rate=rate: theta - rate * g, None) for rate in each]
    expected = torch.stack(list(_tuned_by_hand(meta["learner.theta"], task, steps)))
    curve = Engine().adaptation_curves(algorithm, meta, Task(*(t[None] for t in task)))[0]
    torch.testing.assert_close(curve, expected, rtol=1e-10, atol=1e-12)


def test_pretraining_reports_the_query_metric():
    task = quadratic()[0].select(0)
    algorithm = Pretrain(Linear(5))
    meta = algorithm.init()
    expected = (task.query_x @ meta["theta"] - task.query_y).square().mean()
    torch.testing.assert_close(algorithm.meta_loss(meta, task)[1], expected)


def test_a_second_outer_rate_is_refused():
    from functools import partial

    with pytest.raises(SettingError, match=r"set algo\.meta_lr"):
        Pretrain(Linear(2), meta_optimizer=partial(torch.optim.Adam, lr=0.5))
    Pretrain(Linear(2), meta_optimizer=partial(torch.optim.Adam, eps=1e-4))
