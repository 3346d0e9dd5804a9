"""loop, vmap and every chunk are the same meta-gradient; a task's result does not depend on its company."""

import threading
from collections import defaultdict
from dataclasses import FrozenInstanceError
from typing import ClassVar
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from helpers.oracles import Linear, assert_same, image_tasks, maml, quadratic, run_engine
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from metarun import seeds
from metarun.algos.maml_pp import MAMLpp
from metarun.algos.protonet import ProtoNet
from metarun.engine import chunking
from metarun.engine.chunking import peak_bytes
from metarun.engine.engine import Engine
from metarun.errors import SettingError
from metarun.models import Conv4
from metarun.models.adopt import adopt


@pytest.mark.parametrize(
    ("dtype", "settings"),
    [
        (torch.float64, {}),
        (torch.float64, {"first_order": True, "inner_parameters": "all"}),
        (torch.float32, {}),
    ],
    ids=["float64", "float64, first order, all parameters", "float32"],
)
def test_loop_and_vmap_and_all_chunks_agree(learner, dtype, settings):
    model, tasks = learner
    model, tasks = model.to(dtype), tasks.to(dtype)
    algorithm = maml(model, inner_lr=0.1, **settings)
    loop = run_engine(Engine("loop"), algorithm, tasks)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for chunk in ("auto", 1, 3):  # of four tasks
        assert_same(run_engine(Engine("vmap", chunk, chunk), algorithm, tasks), loop, tolerance)


def test_a_task_alone_reordered_or_twice_gives_the_same(learner):
    model, tasks = learner
    algorithm = maml(model)
    whole = Engine().meta_gradient(algorithm, algorithm.init(), tasks)
    for order in ([2], [3, 1, 0, 2], [1, 1, 2]):
        some = Engine().meta_gradient(algorithm, algorithm.init(), tasks.select(order))
        assert_same([some.losses, some.scores], [whole.losses[order], whole.scores[order]], 1e-12)
    reordered = Engine().meta_gradient(algorithm, algorithm.init(), tasks.select([3, 1, 0, 2]))
    assert_same(reordered.grads.values(), whole.grads.values(), 1e-12)


def test_evaluation_changes_nothing(learner):
    model, tasks = learner
    algorithm = maml(model)
    meta = algorithm.init()
    before = {name: value.clone() for name, value in meta.items()}
    model_before = {name: value.clone() for name, value in model.state_dict().items()}
    curves = Engine().adaptation_curves(algorithm, meta, tasks)
    assert curves.shape == (4, 4)
    assert not curves.requires_grad
    assert all(torch.equal(meta[name], before[name]) and not meta[name].requires_grad for name in meta)
    assert all(torch.equal(value, model_before[name]) for name, value in model.state_dict().items())


def test_the_curve_starts_at_the_unadapted_learner_and_moves(learner):
    model, tasks = learner
    algorithm = maml(model, inner_lr=0.05)
    curves = Engine().adaptation_curves(algorithm, algorithm.init(), tasks)
    for t in range(4):
        task = tasks.select(t)
        outputs = model(task.query_x, task.support_x)
        expected = (
            ((outputs - task.query_y) ** 2).mean()
            if task.query_y.is_floating_point()
            else (outputs.argmax(-1) == task.query_y).double().mean()
        )
        torch.testing.assert_close(curves[t, 0], expected.detach(), rtol=1e-12, atol=1e-12)


def test_support_norm_judges_each_query_point_alone():
    """Under norm=support a query point's answer must not depend on its company; under transductive it does."""
    from metarun.models import Conv4

    x = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    support = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    for norm, alone in (("support", True), ("transductive", False)):
        torch.manual_seed(0)
        model = Conv4((1, 16, 16), 3, filters=4, norm=norm)
        together, single = model(x, support)[:1], model(x[:1], support)
        assert torch.allclose(together, single, atol=1e-5) == alone
    model = Conv4((1, 16, 16), 3, filters=4, norm="support")
    torch.testing.assert_close(model(support, support), model(support), rtol=1e-4, atol=1e-5)


def test_peak_bytes_counts_what_lives_at_once():
    def work():
        a = torch.zeros(1000)  # 4000 bytes
        b = a + 1  # 8000 live
        del a
        c = b * 2  # 8000 live
        return c[:10]

    assert peak_bytes(work) == 8000


@pytest.mark.parametrize(
    "settings",
    [("map",), ("vmap", 0), ("vmap", -1), ("vmap", "many"), ("vmap", True), ("loop", 4), ("vmap", "auto", 2.5)],
)
def test_bad_engines_are_refused(settings):
    with pytest.raises(SettingError):
        Engine(*settings)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_short_memory_names_a_chunk_to_try(error):
    from metarun.errors import MemoryShortError

    def fail(*_):
        raise error

    algorithm = Mock(meta_loss=fail, adaptation_curve=fail)
    tasks = image_tasks(torch.Generator(), tasks=13)
    meta = {"w": torch.zeros(1)}
    engine = Engine(mode="vmap", chunk=6, eval_chunk=13)
    with pytest.raises(MemoryShortError, match=r"with 6 tasks at once \(engine.chunk\).*try engine.chunk=3"):
        engine.meta_gradient(algorithm, meta, tasks)
    with pytest.raises(MemoryShortError, match=r"with 13 tasks at once.*try engine.eval_chunk=6"):
        engine.adaptation_curves(algorithm, meta, tasks)
    with pytest.raises(MemoryShortError, match="a smaller learner"):
        Engine(mode="loop").meta_gradient(algorithm, meta, tasks)


def test_auto_takes_tasks_one_by_one_where_three_do_not_fit():
    from metarun.engine.chunking import choose_size

    def work(tasks):
        if len(tasks.support_x) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    tasks = image_tasks(torch.Generator(), tasks=3)
    assert choose_size(work, tasks, 8, torch.device("cpu")) == 1
    with pytest.raises(ZeroDivisionError):
        choose_size(lambda tasks: 1 // 0, tasks, 8, torch.device("cpu"))


def test_other_errors_stay_what_they_are():
    def fail(*_):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        Engine().meta_gradient(Mock(meta_loss=fail), {"w": torch.zeros(1)}, image_tasks(torch.Generator()))


@pytest.mark.slow
def test_memory_that_is_really_short_is_said_in_a_line(tmp_path):
    """The process may take 3 GiB; 300 tasks at once need twice as much, and 10 need little."""
    import subprocess
    import sys

    words = ["algo.inner_steps=20", "data.shots=1000", "meta_batch=300", "meta_steps=1", "hydra.run.dir=run"]
    code = "import resource,sys\nfrom metarun.cli import main\nimport metarun.run\n"
    code += "resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))\nsys.exit(main())"

    def run(chunk):
        command = [sys.executable, "-c", code, *words, f"engine.chunk={chunk}", "val_tasks=2", "test_tasks=2"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    short = run(300)
    assert short.returncode == 1, short.stderr
    assert "out of memory with 300 tasks at once (engine.chunk)" in short.stderr.splitlines()[-1]
    assert "try engine.chunk=150" in short.stderr
    assert "Traceback" not in short.stderr
    enough = run(10)
    assert enough.returncode == 0, "the same directory, with a smaller chunk: " + enough.stderr


def test_chunks_in_threads_are_chunks_one_after_the_other():
    """To the bit, where an operation has one thread in both."""
    tasks = image_tasks(torch.Generator().manual_seed(0), tasks=6).to(torch.float32)
    algorithm = maml(Conv4((1, 16, 16), 3, filters=8), inner_steps=2)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            engine = Engine(chunk=1, eval_chunk=1)
            results.append([run_engine(engine, algorithm, tasks) for _ in range(3)][-1])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(a.equal(b) for a, b in zip(*results, strict=True))


def test_bfloat16_rounds_in_training_and_not_in_validation():
    tasks = image_tasks(torch.Generator().manual_seed(0)).to(torch.float32)
    with seeds.forked("test", "bfloat16"):
        algorithm = maml(Conv4((1, 16, 16), 3, filters=8))
    exact, rounded = (
        run_engine(Engine(chunk=2, autocast=autocast), algorithm, tasks) for autocast in (None, "bfloat16")
    )
    assert not exact[1].equal(rounded[1])
    assert (exact[1] - rounded[1]).abs().max() < 0.1, "8 bits of mantissa, in a loss of about 1.1"
    cosine = F.cosine_similarity(exact[0], rounded[0], dim=0)
    assert 0.5 < cosine < 1 - 1e-6
    assert exact[3].equal(rounded[3])


class Convolutions(TorchDispatchMode):
    """Notes in which types convolutions and their slopes are computed."""

    def __init__(self):
        super().__init__()
        self.dtypes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
            self.dtypes.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


class Plain(nn.Module):
    """Somebody's own."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, bias=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.conv(x).mean(dim=(2, 3)))


@pytest.mark.parametrize("mode", ["vmap", "loop"])
@pytest.mark.parametrize("make", [maml, ProtoNet], ids=["inner steps", "one pass"])
@pytest.mark.parametrize("model", ["conv4", "own"])
def test_bfloat16_rounds_all_convolutions(mode, make, model):
    """Mapped over tasks, and outside of inner steps, autocast itself sees none of them."""
    tasks = image_tasks(torch.Generator().manual_seed(0)).to(torch.float32)
    algorithm = make(Conv4((1, 16, 16), 3, filters=4) if model == "conv4" else adopt(Plain(), (1, 16, 16)))
    with Convolutions() as seen:
        gradient = Engine(mode, autocast="bfloat16").meta_gradient(algorithm, algorithm.init(), tasks)
    assert set(seen.dtypes) == {torch.bfloat16}
    assert gradient.losses.dtype == gradient.scores.dtype == torch.float32


class Watched(Linear):
    """Notes the threads in which each copy of it is called."""

    calls: ClassVar = defaultdict(set)

    def forward(self, x):
        self.calls[id(self)].add(threading.get_ident())
        return super().forward(x)


def test_each_thread_has_one_copy_of_the_algorithm(monkeypatch):
    """torch.func puts parameters into a module while it runs, so that two threads must not share one."""
    monkeypatch.setattr(Watched, "calls", defaultdict(set))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        learner = Watched(5)
        algorithm = MAMLpp(learner, inner_steps=2)
        tasks = quadratic()[0].map(lambda tensor: tensor.repeat(6, *[1] * (tensor.ndim - 1)))
        engine = Engine(chunk=1)
        for progress in (0.0, 0.3, 0.6, 0.9):
            engine.meta_gradient(algorithm.at(progress), algorithm.init(), tasks)
    finally:
        torch.set_num_threads(threads)
    assert id(learner) not in Watched.calls
    assert 1 <= len(Watched.calls) <= 2
    assert all(len(found) == 1 for found in Watched.calls.values())


def test_a_run_cannot_change_an_engine():
    with pytest.raises(FrozenInstanceError):
        Engine().chunk = 3


@pytest.mark.parametrize("learner", ["mlp", "conv4 pooled"], indirect=True)
def test_auto_chunk_fits_the_memory_and_is_even(learner, monkeypatch):
    model, tasks = learner
    algorithm = maml(model)
    needed = {
        n: peak_bytes(lambda n=n: Engine().meta_gradient(algorithm, algorithm.init(), tasks.select(slice(0, n))))
        for n in (1, 2, 3, 4)
    }

    def planned(engine):
        return engine.plan(algorithm, algorithm.init(), tasks, tasks, meta_batch=6, eval_batch=6)

    monkeypatch.setattr(chunking, "bytes_for_a_chunk", lambda device: needed[4])
    engine = Engine()
    assert planned(engine).train == 3, "four tasks fit, so six go in two chunks of three"
    assert engine == Engine()
    monkeypatch.setattr(chunking, "bytes_for_a_chunk", lambda device: 1)
    assert planned(Engine()) == (1, 1), "a task at a time is the least there is"
    assert planned(Engine(chunk=5, eval_chunk=2)) == (5, 2), "what was asked for is not changed"
    assert planned(Engine("loop")) == (1, 1)
