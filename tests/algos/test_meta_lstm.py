"""Meta-LSTM against closed forms: its cell, its detach rule, its symmetry, and gradient descent as a special case."""

import math

import pytest
import torch
from helpers.oracles import Linear, central_differences, image_tasks, quadratic
from torch.func import functional_call

from metarun import seeds
from metarun.algos.maml import MAML
from metarun.algos.meta_lstm import MetaLSTM, preprocess
from metarun.engine.engine import Engine
from metarun.models import MLP, Conv4
from metarun.tasks import Task, minibatches

CPU = torch.device("cpu")


def _algorithm(model=None, **settings):
    with seeds.forked("test", "meta-lstm"):
        return MetaLSTM(Linear(5) if model is None else model, **settings)


def _without_weights(meta, forget, input_):
    """All weights of the optimiser zero; the two biases are left."""
    zeroed = {name: value if name.startswith("learner.") else torch.zeros_like(value) for name, value in meta.items()}
    biases = {"forget.bias": forget, "input.bias": input_}
    return {**zeroed, **{name: torch.tensor(value, dtype=torch.float64) for name, value in biases.items()}}


def test_preprocessing_is_the_papers():
    x = torch.tensor([1.0, -1.0, math.exp(-5), -math.exp(-9.99), 1e-6, -1e-6, 0.0], dtype=torch.float64)
    sizes = [0, 0, -0.5, -0.999, -1, -1, -1]
    signs = [1, -1, 1, -1, 1e-6 * math.exp(10), -1e-6 * math.exp(10), 0]
    torch.testing.assert_close(preprocess(x), torch.tensor([sizes, signs], dtype=torch.float64), rtol=1e-12, atol=1e-12)
    x = torch.tensor([0.0, 1e-6, 0.3], dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(preprocess(x).sum(), x)[0]
    torch.testing.assert_close(slope, torch.tensor([math.exp(10), math.exp(10), 1 / 3], dtype=torch.float64))


def test_initialisation_is_that_of_the_paper():
    algorithm = _algorithm()
    meta = algorithm.init()
    assert {name: tuple(value.shape) for name, value in meta.items()} == {
        "learner.theta": (5, 1), "lstm.weight": (80, 24), "lstm.bias": (80,),
        "forget.weight": (22,), "forget.bias": (), "input.weight": (22,), "input.bias": (),
    }  # fmt: skip
    for name in ("lstm.weight", "lstm.bias", "forget.weight", "input.weight"):
        assert meta[name].abs().max() <= 0.01
        assert meta[name].std() > 0.004, "uniform, whose deviation is 0.0058"
    assert 4 <= meta["forget.bias"] <= 5
    assert -5 <= meta["input.bias"] <= -4
    torch.testing.assert_close(meta["learner.theta"], algorithm.model.theta.detach(), rtol=0, atol=0)


def test_with_zero_weights_it_is_gradient_descent_with_decay():
    """c <- σ(b_F) c - σ(b_I) g, to the last digits: (σ_F I - σ_I A) on a quadratic with its minimum at 0."""
    task, a, c, *_ = quadratic()
    algorithm = _algorithm(inner_steps=3)
    meta = _without_weights(algorithm.init(), 1.3, -2.0)
    keep, rate = torch.tensor([1.3, -2.0], dtype=torch.float64).sigmoid()
    theta = meta["learner.theta"]
    for params in algorithm.adapt(meta, task.select(0), 3):
        torch.testing.assert_close(params["theta"], theta, rtol=1e-12, atol=1e-12)
        theta = keep * theta - rate * a @ (theta - c)


@pytest.mark.parametrize("mode", ["loop", "vmap"])
@pytest.mark.parametrize("second_order", [False, True])
def test_gradients_of_the_biases_and_of_c0_are_the_closed_form_of_the_detach_rule(mode, second_order):
    """On a quadratic with zero weights: J_t = ∂c_t/∂c_{t-1} is σ_F, or with second derivatives σ_F - σ_I A."""
    steps = 4
    task, a, c, b, d = quadratic()
    algorithm = _algorithm(inner_steps=steps, second_order=second_order)
    meta = _without_weights(algorithm.init(), 1.3, -2.0)
    keep, rate = (float(torch.tensor(x, dtype=torch.float64).sigmoid()) for x in (1.3, -2.0))
    path = [meta["learner.theta"]]
    for _ in range(steps):
        path.append(keep * path[-1] - rate * a @ (path[-1] - c))
    eye = torch.eye(5, dtype=torch.float64)
    jacobian = keep * eye - rate * a if second_order else keep * eye
    outer = b @ (path[-1] - d)
    by_forget = by_input = 0.0
    for t in range(steps):  # c_{t+1} = σ_F c_t - σ_I g_t, and then the remaining steps carry it on
        carried = torch.linalg.matrix_power(jacobian, steps - 1 - t).T @ outer
        by_forget = by_forget + keep * (1 - keep) * (carried * path[t]).sum()
        by_input = by_input - rate * (1 - rate) * (carried * (a @ (path[t] - c))).sum()
    got = Engine(mode).meta_gradient(algorithm, meta, task).grads
    torch.testing.assert_close(got["forget.bias"], by_forget, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(got["input.bias"], by_input, rtol=1e-10, atol=1e-12)
    start = torch.linalg.matrix_power(jacobian, steps).T @ outer
    torch.testing.assert_close(got["learner.theta"], start, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("second_order", [False, True])
def test_meta_gradient_agrees_with_central_differences_where_nothing_is_detached(second_order):
    """With second_order every direction agrees; without, differences of the whole function must not."""
    with seeds.forked("test", "mlp"):
        model = MLP((1, 16, 16), 3, hidden=[6]).double()
    tasks = image_tasks(torch.Generator().manual_seed(1))
    algorithm = _algorithm(model, inner_steps=2, second_order=second_order)
    meta = algorithm.init()
    generator = torch.Generator().manual_seed(2)
    meta = {  # larger weights, so that every path matters
        name: value + 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64) * (value.dim() == 1)
        for name, value in meta.items()
    }
    meta["input.bias"] = meta["input.bias"] + 3.0
    errors = {
        name: error / max(1e-3, abs(analytic))
        for name, error, analytic in central_differences(algorithm, tasks.select(slice(0, 2)), meta, second_order)
    }
    if second_order:
        assert max(errors.values()) < 1e-6, errors
    else:
        assert max(errors.values()) > 1e-2, "the detached paths carry something here"


def test_permuting_the_coordinates_permutes_the_result():
    task, *_ = quadratic()
    order = [3, 0, 4, 1, 2]
    permuted = Task(task.support_x[..., order], task.support_y, task.query_x[..., order], task.query_y, task.key)
    algorithm = _algorithm(inner_steps=4)
    meta = {name: value * 50 if value.dim() else value for name, value in algorithm.init().items()}
    *_, straight = algorithm.adapt(meta, task.select(0), 4)
    meta = {**meta, "learner.theta": meta["learner.theta"][order]}
    *_, other = algorithm.adapt(meta, permuted.select(0), 4)
    torch.testing.assert_close(other["theta"], straight["theta"][order], rtol=1e-12, atol=1e-12)


def test_with_the_forget_gate_open_it_is_mamls_inner_loop(learner):
    model, tasks = learner
    rate = 0.1
    algorithm = _algorithm(model, inner_steps=3)
    meta = _without_weights(algorithm.init(), 60.0, math.log(rate / (1 - rate)))  # σ(60) is 1 in float64
    theirs = MAML(model, inner_lr=rate, inner_steps=3, inner_parameters="all")
    for t in range(2):
        pairs = zip(
            algorithm.adapt(meta, tasks.select(t), 3), theirs.adapt(theirs.init(), tasks.select(t), 3), strict=True
        )
        for ours, maml in pairs:
            for name in maml:
                torch.testing.assert_close(ours[name], maml[name], rtol=1e-12, atol=1e-12)


def test_gates_are_fed_back_before_the_sigmoid_unless_told_otherwise():
    """Two steps of one coordinate by hand, with every weight but those of the fed-back gates zero."""
    task = Task(*(torch.ones(1, 1, 1, dtype=torch.float64) for _ in range(4)), torch.ones(1, dtype=torch.int64))
    for feedback in ("logits", "gates"):
        algorithm = _algorithm(Linear(1), inner_steps=2, feedback=feedback)
        meta = _without_weights(algorithm.init(), 0.7, -0.4)
        meta["forget.weight"][-1], meta["input.weight"][-1] = 0.5, -0.8
        meta["learner.theta"] = torch.zeros(1, 1, dtype=torch.float64)

        def s(x):
            return 1 / (1 + math.exp(-x))

        f1, i1 = 0.7, -0.4  # what is fed back starts at 0
        c1 = s(f1) * 0 - s(i1) * 2 * (0 - 1)
        f2 = 0.5 * (f1 if feedback == "logits" else s(f1)) + 0.7
        i2 = -0.8 * (i1 if feedback == "logits" else s(i1)) - 0.4
        c2 = s(f2) * c1 - s(i2) * 2 * (c1 - 1)
        *_, last = algorithm.adapt(meta, task.select(0), 2)
        assert abs(last["theta"].item() - c2) < 1e-12


def test_a_gradient_divided_by_its_minibatch():
    task, *_ = quadratic()
    meta = _without_weights(_algorithm().init(), 60.0, -2.0)
    whole = list(_algorithm().adapt(meta, task.select(0), 1))[1]["theta"]
    divided = list(_algorithm(divide_gradient=True).adapt(meta, task.select(0), 1))[1]["theta"]
    start = meta["learner.theta"]
    torch.testing.assert_close(divided - start, (whole - start) / 5, rtol=1e-10, atol=1e-14)


def test_minibatches_are_what_the_inner_loop_sees():
    task, *_ = quadratic()
    meta = _without_weights(_algorithm().init(), 60.0, -2.0)
    rate = float(torch.tensor(-2.0, dtype=torch.float64).sigmoid())
    theta = meta["learner.theta"]
    one = task.select(0)
    learners = _algorithm(inner_batch=2).adapt(meta, one, 4)
    torch.testing.assert_close(next(learners)["theta"], theta)
    for params, places in zip(learners, minibatches(one.key, 5, 2, 4), strict=True):
        x, y = one.support_x[places], one.support_y[places]
        theta = theta - rate * 2 / 2 * x.T @ (x @ theta - y)
        torch.testing.assert_close(params["theta"], theta, rtol=1e-12, atol=1e-12)


def test_training_queries_have_their_own_statistics_and_test_queries_the_support_sets():
    with seeds.forked("test", "conv"):
        model = Conv4((1, 16, 16), 3, filters=4, norm="support").double()
    tasks = image_tasks(torch.Generator().manual_seed(3), queries=4)
    one = tasks.select(0)
    algorithm = _algorithm(model, inner_steps=1, eval_inner_steps=1)
    meta = algorithm.init()
    *_, params = algorithm.adapt(meta, one, 1)
    own, supports = (functional_call(model, params, (one.query_x, s)) for s in (None, one.support_x))
    assert not torch.allclose(own, supports)
    loss = torch.nn.functional.cross_entropy(own, one.query_y)
    torch.testing.assert_close(algorithm.meta_loss(meta, one)[0], loss)
    accuracy = (supports.argmax(-1) == one.query_y).double().mean()
    torch.testing.assert_close(algorithm.adaptation_curve(meta, one)[1], accuracy)


def _by_hand(algorithm, meta, task):
    """Meta-LSTM once more, coordinate by coordinate and with detach() where the rule says so; gives c_K."""
    weights = torch.cat([meta["lstm.weight"], meta["lstm.bias"][:, None]], dim=1).split(20)  # rows of i, f, o, g
    c = meta["learner.theta"]
    columns = [
        {"h": torch.zeros(20).double(), "s": torch.zeros(20).double(), "f": 0.0, "i": 0.0} for _ in range(len(c))
    ]
    for places in minibatches(task.key, len(task.support_x), algorithm.inner_batch, algorithm.inner_steps):
        x, y = (t if places is None else t[places] for t in (task.support_x, task.support_y))
        residual = x @ c.detach() - y
        loss, g = residual.square().mean(), 2 * x.T @ residual / len(x)
        if algorithm.divide_gradient:
            g = g / len(x)
        new = []
        for p, column in enumerate(columns):
            pairs = []
            for number in (loss.item(), g[p].item()):
                if abs(number) > math.exp(-10):
                    pairs.append((math.log(abs(number)) / 10, math.copysign(1, number)))
                else:
                    pairs.append((-1.0, math.exp(10) * number))
            seen = torch.tensor([*pairs[0], *pairs[1]], dtype=torch.float64)
            i, f, o, a = (w @ torch.cat([seen, column["h"], torch.ones(1).double()]) for w in weights)
            column["s"] = f.sigmoid() * column["s"] + i.sigmoid() * a.tanh()
            column["h"] = o.sigmoid() * column["s"].tanh()
            for gate, name in (("f", "forget"), ("i", "input")):
                w = meta[f"{name}.weight"]
                column[gate] = w[:20] @ column["h"] + w[20] * c[p, 0] + w[21] * column[gate] + meta[f"{name}.bias"]
            new.append(column["f"].sigmoid() * c[p] - column["i"].sigmoid() * g[p])
            if algorithm.feedback == "gates":
                column["f"], column["i"] = column["f"].sigmoid(), column["i"].sigmoid()
        c = torch.stack(new)
    return c


@pytest.mark.parametrize(
    "settings", [{}, {"feedback": "gates"}, {"inner_batch": 2}, {"divide_gradient": True, "inner_batch": 3}]
)
def test_with_all_its_weights_it_is_the_rule_written_out_by_hand(settings):
    """Every meta-gradient, with random weights: the detach rule, both cells, their memory and their inputs."""
    task, *_ = quadratic()
    task = task._replace(support_x=task.support_x * torch.tensor([1, 1, 1, 1, 1e-6]))  # one gradient below e^-10
    algorithm = _algorithm(inner_steps=3, **settings)
    generator = torch.Generator().manual_seed(3)
    meta = {
        name: value + 0.5 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in algorithm.init().items()
    }
    meta["input.bias"] = meta["input.bias"] + 3  # so that the inner loop moves
    got = Engine().meta_gradient(algorithm, meta, task)
    leaves = {name: value.clone().requires_grad_() for name, value in meta.items()}
    one = task.select(0)
    loss = (one.query_x @ _by_hand(algorithm, leaves, one) - one.query_y).square().mean()
    torch.testing.assert_close(got.losses[0], loss.detach(), rtol=1e-10, atol=1e-12)
    for name, value in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
        torch.testing.assert_close(got.grads[name], value, rtol=1e-9, atol=1e-11)
