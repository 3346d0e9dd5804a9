"""Averaging predictions and averaging parameters, against plain torch training of each learner."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.oracles import Linear, image_tasks
from torch import nn

from metarun import seeds
from metarun.algos.averaging import Averaging, average_outputs, with_new_weights
from metarun.data.sinusoid import Sinusoid
from metarun.data.tabular import Tabular
from metarun.engine import loop
from metarun.engine.engine import Engine
from metarun.errors import SettingError
from metarun.models import MLP, Conv4

CPU = torch.device("cpu")


def _experiment(source, **settings):
    source.prepare(CPU)
    with seeds.forked("test", "averaging"):
        model = MLP(source.input_shape, source.outputs, hidden=[8]).double()
        algorithm = Averaging(model, **{"learners": 3, "meta_lr": 0.01, **settings})

    class Double:
        """The source in float64."""

        def __getattr__(self, name):
            return getattr(source, name)

        def sample(self, *address):
            return source.sample(*address).to(torch.float64)

    return loop.Experiment(algorithm, Double(), Engine(), CPU, 0)


def _networks(algorithm, meta):
    """Each learner as a torch module of its own."""
    networks = []
    for m in range(algorithm.learners):
        network = copy.deepcopy(algorithm.model)
        network.load_state_dict({name: value[m] for name, value in meta.items()})
        networks.append(network)
    return networks


@pytest.mark.parametrize(("regularize", "strength"), [("none", 0.0), ("l2", 0.05), ("mean", 0.05)])
def test_with_parameters_every_learner_is_trained_on_its_own_task_as_if_alone(regularize, strength):
    """Five outer steps, against an Adam per network, each on one task (and for `mean` with the others' mean)."""
    experiment = _experiment(
        Sinusoid(shots=4, queries=3), average="parameters", regularize=regularize, strength=strength
    )
    algorithm, state = experiment.algorithm, loop.start(experiment)
    networks = _networks(algorithm, state.meta)
    optimizers = [torch.optim.Adam(network.parameters(), lr=0.01) for network in networks]
    tasks = experiment.source.sample(0, "train", torch.arange(3))
    places = [int(key % 3) for key in tasks.key]
    assert sorted(places) == [0, 1, 2], "each learner has one of the tasks"
    for _ in range(5):
        mean = [torch.stack(some).mean(0).detach() for some in zip(*(n.parameters() for n in networks), strict=True)]
        for t, place in enumerate(places):
            x, y = tasks.select(t).points()
            optimizers[place].zero_grad()
            loss = F.mse_loss(networks[place](x), y)
            towards = mean if regularize == "mean" else [0.0] * 4
            penalty = sum((p - c).square().sum() for p, c in zip(networks[place].parameters(), towards, strict=True))
            (loss + strength * penalty).backward()
        for optimizer in optimizers:
            optimizer.step()
    list(loop.meta_train(experiment, state, 5, 3))
    for m, network in enumerate(networks):
        for name, value in network.named_parameters():
            torch.testing.assert_close(state.meta[name][m], value.detach(), rtol=1e-9, atol=1e-10)


def test_with_parameters_the_mean_learner_is_tuned_on_a_new_task():
    experiment = _experiment(Sinusoid(shots=4, queries=3), average="parameters", inner_lr=0.02, eval_inner_steps=3)
    algorithm = experiment.algorithm
    meta = algorithm.init()
    task = experiment.source.sample(0, "test", torch.arange(1)).select(0)
    network = copy.deepcopy(algorithm.model)
    network.load_state_dict({name: value.mean(0) for name, value in meta.items()})
    sgd = torch.optim.SGD(network.parameters(), lr=0.02)
    for value in algorithm.adaptation_curve(meta, task):
        torch.testing.assert_close(value, F.mse_loss(network(task.query_x), task.query_y).detach())
        sgd.zero_grad()
        F.mse_loss(network(task.support_x), task.support_y).backward()
        sgd.step()


@pytest.mark.parametrize("source", [Sinusoid(shots=4, queries=3), Tabular(shots=3, queries=4)])
@pytest.mark.parametrize("inner_steps", [0, 2])
def test_with_predictions_every_learner_is_trained_as_if_alone(source, inner_steps):
    experiment = _experiment(source, inner_lr=0.1, inner_steps=inner_steps)
    algorithm, state = experiment.algorithm, loop.start(experiment)
    networks = _networks(algorithm, state.meta)
    tasks = experiment.source.sample(0, "train", torch.arange(2))
    loss_of = F.mse_loss if source.metric == "mse" else F.cross_entropy
    got = Engine().meta_gradient(algorithm, state.meta, tasks)
    for m, network in enumerate(networks):
        total = [torch.zeros_like(p) for p in network.parameters()]
        for t in range(2):
            task, tuned = tasks.select(t), copy.deepcopy(network)
            for _ in range(inner_steps):
                grads = torch.autograd.grad(loss_of(tuned(task.support_x), task.support_y), list(tuned.parameters()))
                with torch.no_grad():
                    for p, g in zip(tuned.parameters(), grads, strict=True):
                        p -= 0.1 * g
            x, y = (task.query_x, task.query_y) if inner_steps else task.points()
            grads = torch.autograd.grad(loss_of(tuned(x), y), list(tuned.parameters()))
            total = [a + g / 2 for a, g in zip(total, grads, strict=True)]
        for (name, _), value in zip(network.named_parameters(), total, strict=True):
            torch.testing.assert_close(got.grads[name][m], value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("source", [Sinusoid(shots=4, queries=6), Tabular(shots=3, queries=10, ways=3)])
def test_with_predictions_answers_are_averaged_after_each_inner_step(source):
    """Class probabilities, or numbers; the metric that is reported in training is the average's too."""
    experiment = _experiment(source, inner_lr=0.1, inner_steps=2, eval_inner_steps=2)
    algorithm = experiment.algorithm
    meta = algorithm.init()
    task = experiment.source.sample(0, "test", torch.arange(1)).select(0)
    networks = _networks(algorithm, meta)
    regression = source.metric == "mse"
    for value in algorithm.adaptation_curve(meta, task):
        outputs = [network(task.query_x).detach() for network in networks]
        mean = sum(o if regression else o.softmax(-1) for o in outputs) / 3
        expected = F.mse_loss(mean, task.query_y) if regression else (mean.argmax(-1) == task.query_y).double().mean()
        torch.testing.assert_close(value, expected)
        for network in networks:
            sgd = torch.optim.SGD(network.parameters(), lr=0.1)
            sgd.zero_grad()
            (F.mse_loss if regression else F.cross_entropy)(network(task.support_x), task.support_y).backward()
            sgd.step()
    torch.testing.assert_close(algorithm.meta_loss(meta, task)[1], expected)


def test_the_average_is_of_probabilities_not_of_logits():
    """Two learners are a little for class 0, one is very sure of class 1: the mean probability decides."""
    task = image_tasks(torch.Generator().manual_seed(0), ways=2, shots=1, queries=1).select(0)
    logits = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 50.0]]], dtype=torch.float64)
    expected = (2 * torch.tensor([[1.0, 0.0]], dtype=torch.float64).softmax(-1) + torch.tensor([[0.0, 1.0]])) / 3
    torch.testing.assert_close(average_outputs(logits, task).exp(), expected.double(), rtol=1e-9, atol=1e-9)


def test_learners_have_initial_weights_of_their_own():
    with seeds.forked("test", "initial"):
        for model in (MLP((4,), 2, norm="support", norm_scale=True), Conv4((1, 16, 16), 2, filters=3)):
            algorithm = Averaging(model, learners=4)
            for name, value in algorithm.init().items():
                assert value.shape == (4, *model.get_parameter(name).shape)
                torch.testing.assert_close(value[0], model.get_parameter(name).detach(), rtol=0, atol=0)
                different = len({tuple(one.flatten().tolist()) for one in value})
                assert different == (1 if name in model.norm_parameters else 4)
    with pytest.raises(SettingError, match="reset_parameters"):
        with_new_weights(Linear(3))


def test_shared_initial_weights_are_the_model_s_and_part_ways_in_training():
    experiment = _experiment(Sinusoid(shots=4, queries=3), average="parameters", initial_weights="shared")
    state = loop.start(experiment)
    for name, value in experiment.algorithm.model.named_parameters():
        torch.testing.assert_close(state.meta[name], value.detach().expand(3, *value.shape), rtol=0, atol=0)
    list(loop.meta_train(experiment, state, 1, 3))
    for value in state.meta.values():
        assert len({tuple(one.flatten().tolist()) for one in value}) == 3, "each has a task of its own"


def test_an_untrained_module_draws_as_it_was_built():
    """Every redrawn weight has the deviation of the first, here of a wide layer."""
    with seeds.forked("test", "redraw"):
        first = nn.Sequential(nn.Linear(400, 300))
        again = with_new_weights(first)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert not torch.equal(a, b)
        assert abs(a.std() / b.std() - 1) < 0.1


def test_with_parameters_a_meta_batch_is_the_learners_tasks():
    algorithm = _experiment(Sinusoid(), average="parameters").algorithm
    algorithm.check(Sinusoid(), 3)
    with pytest.raises(SettingError, match=r"expected 3, as algo\.learners"):
        algorithm.check(Sinusoid(), 25)


@pytest.mark.parametrize(
    "settings",
    [
        {"learners": 0}, {"average": "weights"}, {"initial_weights": "shared"},
        {"average": "parameters", "initial_weights": "equal"}, {"inner_steps": -1}, {"regularize": "l1"}, {"strength": 0.1},
        {"regularize": "l2", "strength": 0.1}, {"average": "parameters", "regularize": "l2"},
        {"average": "parameters", "inner_steps": 1}, {"average": "parameters", "regularize": "mean", "strength": -1.0},
        {"average": "parameters", "regularize": "l2", "strength": float("inf")},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(SettingError):
        Averaging(MLP((1,), 1), **settings)
