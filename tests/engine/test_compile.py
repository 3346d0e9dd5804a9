"""Units run compiled, recomputed, mapped and in threads as they run alone."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.oracles import assert_same, image_tasks, maml, run_engine

from metarun.algos.averaging import Averaging
from metarun.algos.maml_pp import MAMLpp
from metarun.algos.meta_lstm import MetaLSTM
from metarun.algos.meta_sgd import MetaSGD
from metarun.algos.reptile import Reptile
from metarun.data.sinusoid import Sinusoid
from metarun.engine import compile as compile_
from metarun.engine.chunking import peak_bytes
from metarun.engine.compile import Runner
from metarun.engine.engine import Engine
from metarun.errors import SettingError, UsageError
from metarun.models import MLP, Conv4
from metarun.models.convolution import Conv
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


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("maml", {}),
        *(pytest.param(name, {}, marks=pytest.mark.slow) for name in ("maml++, all steps", "meta-lstm")),
        pytest.param("reptile", {"checkpoint_inner": True}, marks=pytest.mark.slow),
        pytest.param("averaging", {"compiled": "task"}, marks=pytest.mark.slow),
    ],
)
def test_compiled_is_the_loop(name, settings):
    """Chunks of two and of one, so in threads, and each for the second time too, when nothing is compiled any more."""
    algorithm, tasks = ALGORITHMS[name](), _sinusoids()
    loop = run_engine(Engine("loop"), algorithm, tasks)
    engine = Engine("compile", chunk=2, **settings)
    for _ in range(2):
        assert_same(run_engine(engine, algorithm, tasks), loop, 1e-12)


@pytest.mark.slow
def test_what_is_met_later_is_compiled_in_threads():
    """MAML++ goes from first to second order, when all chunks are already under way."""
    start = MAMLpp(_learner(), inner_steps=2, multi_step_until=0)
    engine, tasks = Engine("compile", chunk=1, eval_chunk=1), _sinusoids(4)
    engine.adaptation_curves(start, start.init(), tasks)
    for progress in (0.1, 0.9):
        algorithm = start.at(progress)
        assert_same(run_engine(engine, algorithm, tasks), run_engine(Engine("loop"), algorithm, tasks), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("downsampling", "settings", "dtype"),
    [
        ("stride", {}, torch.float64),
        ("max_pool", {"compiled": "task"}, torch.float32),
    ],
)
def test_compiled_convolutions_are_the_loop(downsampling, settings, dtype):
    model = Conv4((1, 16, 16), 3, filters=4, downsampling=downsampling, norm_scale=True).to(dtype)
    tasks = image_tasks(torch.Generator().manual_seed(0)).to(dtype)
    algorithm = maml(model, inner_steps=2)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert_same(
        run_engine(Engine("compile", chunk=2, **settings), algorithm, tasks),
        run_engine(Engine("loop"), algorithm, tasks),
        10 * tolerance,  # products in another order, and 14 layers of them in two inner steps
    )


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_through_a_unit(compiled, recompute):
    """Against finite differences; a constant argument, an integer result, and one that depends on nothing."""

    def function(x: Params, power: int, y):
        return {"product": (x["a"] ** power * y).sin().sum(), "count": torch.tensor(3), "zero": torch.zeros(2)}, power

    a, y = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def through(a, y):
        with running(Runner(compiles=compiled, recomputes=recompute)):
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


def test_programs_are_told_apart_by_all_that_they_were_compiled_for(monkeypatch):
    """One that was made for five points and took three would be wrong, or read beyond the end."""
    monkeypatch.setattr(compile_, "_Compiled", lambda run: run)

    class Five:
        def add(self, x, y, factor):
            return x + factor * y

    runner, owner, ones = Runner(compiles=True, recomputes=False), Five(), torch.ones
    calls = [
        (ones(5), ones(5), 1), (ones(3), ones(3), 1), (ones(1, 3), ones(1, 3), 1), (ones(5), ones(1), 1),
        (ones(2, 3), ones(2, 3), 1), (ones(3, 2).T, ones(2, 3), 1), (ones(5).double(), ones(5), 1),
        (ones(5).requires_grad_(), ones(5), 1), (ones(5), ones(5), 2), (ones(5), ones(5), True),
    ]  # fmt: skip
    for _ in range(2):
        for x, y, factor in calls:
            assert torch.equal(runner(owner.add, x, y, factor), x + factor * y)
    runner(Five().add, *calls[0])
    torch.func.vmap(lambda x: runner(owner.add, x, x, 1))(ones(4, 5))
    assert len(runner._programs) == len(calls) + 2


def test_an_engine_keeps_algorithms_apart():
    engine, tasks = Engine(chunk=2, checkpoint_inner=True), _sinusoids()
    model = _learner()
    for rate in (0.01, 0.2):
        algorithm = maml(model, inner_lr=rate)
        assert_same(run_engine(engine, algorithm, tasks), run_engine(Engine("loop"), algorithm, tasks), 1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"checkpoint_inner": 1}, {"autocast": "float16"}, {"compiled": "task"}, {"compile_from": 3},
        {"mode": "compile", "compiled": "all"}, {"mode": "compile", "compile_from": -1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError):
        Engine(**settings)


def test_what_cannot_be_compiled_is_refused(monkeypatch):
    algorithm = ALGORITHMS["maml++, all steps"]()
    with pytest.raises(UsageError, match="changes during meta-training"):
        Engine("compile", compiled="task").for_run(algorithm, 100)
    assert Engine("compile", compiled="task", compile_from=101).for_run(algorithm, 100) == Engine("vmap")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"no-such-compiler.*engine=vmap"):
        Engine("compile").for_run(algorithm, 100)
    assert Engine("vmap").for_run(algorithm, 100) == Engine("vmap")


def test_a_short_run_is_not_compiled(metarun):
    """And is then bitwise what engine=vmap makes of it."""
    words = ["meta_steps=4", "val_tasks=2", "test_tasks=2", "device.threads=1"]
    metarun("hydra.run.dir=a", *words)
    code, _, err = metarun("hydra.run.dir=b", "engine=compile", *words)
    assert code == 0
    assert "not compiled: 4 outer steps, fewer than engine.compile_from=2000" in err
    assert Path("a/metrics.jsonl").read_bytes() == Path("b/metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_compiled_run_resumes_to_the_bit(metarun):
    words = ["engine=compile", "engine.compile_from=0", "val_tasks=2", "val_every=3", "test_tasks=2"]
    code, _, err = metarun("hydra.run.dir=a", "meta_steps=6", *words)
    assert (code, "compiling each inner step" in err) == (0, True), err
    assert metarun("hydra.run.dir=b", "meta_steps=3", *words)[0] == 0
    assert metarun("resume", "b", "meta_steps=6")[0] == 0
    last = [Path(run, "metrics.jsonl").read_text().splitlines()[-1] for run in "ab"]
    assert last[0] == last[1]


@pytest.mark.parametrize(
    ("size", "stride", "window"),
    [((7, 6), 2, 3), ((6, 7), 2, 3), ((5, 4), 1, 3), ((2, 2), 2, 3), ((1, 1), 2, 3), ((5, 4), 1, 1)],
)
def test_a_compiled_convolution_is_torchs(size, stride, window, monkeypatch):
    """Values, and first and second derivatives against finite differences."""
    monkeypatch.setattr("metarun.models.convolution.compiling", lambda: True)
    conv = Conv(2, 3, stride, window).double()
    x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)

    def ours(x, weight):
        return torch.func.functional_call(conv, {"weight": weight}, (x,))

    weight = conv.weight.detach().requires_grad_()
    torch.testing.assert_close(ours(x, weight), F.conv2d(x, weight, None, stride, window // 2), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(ours, (x, weight))
    assert torch.autograd.gradgradcheck(ours, (x, weight))
