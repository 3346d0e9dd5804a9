"""Units that are computed again for their gradients do what they do when all is kept."""

import pytest
import torch
from helpers.oracles import assert_same, maml, run_engine

from metarun.algos.averaging import Averaging
from metarun.algos.maml_pp import MAMLpp
from metarun.algos.meta_lstm import MetaLSTM
from metarun.algos.meta_sgd import MetaSGD
from metarun.algos.reptile import Reptile
from metarun.data.sinusoid import Sinusoid
from metarun.engine.chunking import peak_bytes
from metarun.engine.engine import Engine
from metarun.engine.recompute import recompute
from metarun.models import MLP
from metarun.models.functional import Params
from metarun.models.unit import running, unit


def _sinusoids(number=5, shots=6):
    source = Sinusoid(shots=shots, queries=4)
    source.prepare(torch.device("cpu"))
    return source.sample(0, "train", torch.arange(number)).to(torch.float64)


def _learner():
    torch.manual_seed(3)
    return MLP((1,), 1, hidden=(8,)).double()


ALGORITHMS = {
    "maml": lambda: maml(_learner(), inner_steps=3),
    "fomaml": lambda: maml(_learner(), inner_steps=2, first_order=True),
    "inner adam": lambda: maml(_learner(), inner_steps=3, inner_optimizer="adam"),
    "maml++, all steps": lambda: MAMLpp(_learner(), inner_steps=3, first_order_until=0).at(0.0),
    "maml++, first order": lambda: MAMLpp(_learner(), inner_steps=3, multi_step_until=0).at(0.1),
    "meta-sgd": lambda: MetaSGD(_learner(), inner_steps=2),
    "reptile": lambda: Reptile(_learner(), inner_steps=3, inner_batch=4),
    "meta-lstm": lambda: MetaLSTM(_learner(), inner_steps=3, hidden=4, second_order=True),
    "averaging": lambda: Averaging(_learner(), learners=3),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_recomputing_changes_nothing(name):
    """But the order in which a gradient of several parts is added up."""
    algorithm, tasks = ALGORITHMS[name](), _sinusoids()
    loop = run_engine(Engine("loop"), algorithm, tasks)
    assert_same(run_engine(Engine("loop", checkpoint_inner=True), algorithm, tasks), loop, 1e-14)
    assert_same(run_engine(Engine(chunk=2, checkpoint_inner=True), algorithm, tasks), loop, 1e-12)


@pytest.mark.parametrize("runner", [None, recompute])
def test_gradients_through_a_unit(runner):
    """Against finite differences; a constant argument, an integer result, and one that depends on nothing."""

    def function(x: Params, power: int, y):
        return {"product": (x["a"] ** power * y).sin().sum(), "count": torch.tensor(3), "zero": torch.zeros(2)}, power

    a, y = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def through(a, y):
        with running(runner):
            found, power = unit(function, {"a": a}, 3, y)
        assert power == 3
        assert found["count"] == 3
        return found["product"] + found["zero"].sum()

    assert torch.autograd.gradcheck(through, (a, y))


def test_recomputing_keeps_only_where_steps_began():
    """With K steps one step's insides and K learners, instead of K steps' insides."""
    tasks = _sinusoids(2, shots=200)

    def peak(steps, recompute):
        algorithm = maml(MLP((1,), 1, hidden=(64, 64)).double(), inner_steps=steps)
        engine = Engine(chunk=2, checkpoint_inner=recompute)
        return peak_bytes(lambda: engine.meta_gradient(algorithm, algorithm.init(), tasks))

    learners = 2 * 8 * sum(p.numel() for p in MLP((1,), 1, hidden=(64, 64)).parameters())
    grown = {recompute: (peak(16, recompute) - peak(4, recompute)) / 12 for recompute in (False, True)}
    assert grown[True] < 1.5 * learners
    assert grown[False] > 3 * learners


def test_an_engine_keeps_algorithms_apart():
    engine, tasks = Engine(chunk=2, checkpoint_inner=True), _sinusoids()
    model = _learner()
    for rate in (0.01, 0.2):
        algorithm = maml(model, inner_lr=rate)
        assert_same(run_engine(engine, algorithm, tasks), run_engine(Engine("loop"), algorithm, tasks), 1e-12)
