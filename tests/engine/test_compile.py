"""Compiled meta-gradients against the loop, and what is refused."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.oracles import assert_same, image_tasks, maml, run_engine

from metarun.algos.maml_pp import MAMLpp
from metarun.algos.meta_lstm import MetaLSTM
from metarun.algos.protonet import ProtoNet
from metarun.data.sinusoid import Sinusoid
from metarun.engine.engine import Engine
from metarun.errors import SettingError, UsageError
from metarun.models import MLP, Conv4
from metarun.models.convolution import Conv


def _sinusoids(number):
    source = Sinusoid(shots=6, queries=4)
    source.prepare(torch.device("cpu"))
    return source.sample(0, "train", torch.arange(number)).to(torch.float64)


def _learner():
    torch.manual_seed(3)
    return MLP((1,), 1, hidden=(8,)).double()


@pytest.mark.parametrize(
    ("make", "number", "programs"),
    [
        pytest.param(lambda: maml(_learner(), inner_steps=2), 4, 1, id="maml"),
        pytest.param(
            lambda: MetaLSTM(_learner(), inner_steps=2, hidden=4, second_order=True),
            *(5, 2),  # chunks of two and of one
            id="meta-lstm",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_compiled_is_the_loop(make, number, programs):
    """In chunks, so in threads, and for the second time too, when nothing is compiled any more."""
    algorithm, tasks, engine = make(), _sinusoids(number), Engine("compile", chunk=2)
    loop = run_engine(Engine("loop"), algorithm, tasks)
    for _ in range(2):
        assert_same(run_engine(engine, algorithm, tasks), loop, 1e-12)
    assert len(engine._programs.made) == programs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("downsampling", "make", "dtype"),
    [
        ("stride", lambda model: maml(model, inner_steps=2), torch.float64),
        ("stride", ProtoNet, torch.float64),
        ("max_pool", lambda model: maml(model, inner_steps=1), torch.float32),
    ],
)
def test_compiled_convolutions_are_the_loop(downsampling, make, dtype):
    model = Conv4((1, 16, 16), 3, filters=4, downsampling=downsampling, norm_scale=True).to(dtype)
    tasks = image_tasks(torch.Generator().manual_seed(0)).to(dtype)
    algorithm = make(model)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert_same(
        run_engine(Engine("compile", chunk=2), algorithm, tasks),
        run_engine(Engine("loop"), algorithm, tasks),
        10 * tolerance,  # products in another order, and 14 layers of them in two inner steps
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"checkpoint_inner": 1}, {"autocast": "float16"}, {"compile_from": 3}, {"replay": 1},
        {"mode": "compile", "checkpoint_inner": True}, {"mode": "compile", "compile_from": -1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError):
        Engine(**settings)


def test_what_cannot_be_compiled_is_refused(monkeypatch):
    changing = MAMLpp(_learner(), inner_steps=3)
    with pytest.raises(UsageError, match="changes during meta-training"):
        Engine("compile").for_run(changing, 100)
    assert Engine("compile", compile_from=101).for_run(changing, 100) == Engine("vmap", replay=False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"no-such-compiler.*engine=vmap"):
        Engine("compile").for_run(maml(_learner()), 100)


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
    assert (code, "compiling the meta-gradient" in err) == (0, True), err
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
