"""What several tests share."""

import logging
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as cli.py does, and for the same reason; before torch is imported
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores; inherited by the processes that tests start
    os.environ["OMP_NUM_THREADS"] = "1"
REAL_DATA = os.environ.get("METARUN_DATA")

import pytest
import torch
from helpers.drawings import SPLIT_SIZES, RealOmniglot, draw
from helpers.oracles import image_tasks
from helpers.runs import QUICK, ROOT, leave_out_pictures, train

from metarun import cli, seeds
from metarun.data import packing
from metarun.data.omniglot import Omniglot
from metarun.data.sinusoid import Sinusoid
from metarun.models import MLP, Conv4

CACHE = packing.cache


@pytest.fixture(scope="session", autouse=True)
def _a_terminal_that_can_be_closed():
    """Whoever runs the tests under nohup has SIGHUP ignored, by metarun too; the tests want to see it handled."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _a_disk_that_is_not_waited_for():
    """No test cuts the power, and a short run waits for the disk fifty times; tests/helpers/disk.py sees the calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _small_omniglot(tmp_path_factory):
    """In this process Omniglot is the small one of helpers/drawings.py; in those that tests start it is the real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARUN_DATA", str(tmp_path_factory.mktemp("data") / "small"))
        patch.setattr(Omniglot, "split_sizes", SPLIT_SIZES)
        patch.setattr(Omniglot, "digest", "")  # data_root draws them
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(packing, "cache", lambda: folder)
        yield


@pytest.fixture(scope="session")
def data_root(_small_omniglot) -> Path:
    """The folder with the small Omniglot, which is also $METARUN_DATA."""
    root = Path(os.environ["METARUN_DATA"])
    Omniglot.digest = draw(root)
    return root


@pytest.fixture(scope="session")
def real_data_root() -> Path:
    """The folder with the real Omniglot: $METARUN_DATA, or the one beside the checkout."""
    root = Path(REAL_DATA or ROOT.parent / "shared" / "data")
    if not (root / "omniglot-py").is_dir():
        pytest.skip("no Omniglot: set METARUN_DATA")
    return root


def _make_prepared(cls, root):
    def make(**settings):
        source = cls(root=str(root), download=False, **settings)
        source.prepare(torch.device("cpu"))
        return source

    return make


@pytest.fixture(scope="session")
def omniglot(data_root):
    """Makes 5-way sources from the small Omniglot."""
    return _make_prepared(Omniglot, data_root)


@pytest.fixture
def real_omniglot(real_data_root):
    """Makes 5-way sources from the real Omniglot, which is packed in the user's cache, once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "cache", CACHE)
        yield _make_prepared(RealOmniglot, real_data_root)


@pytest.fixture
def metarun(monkeypatch, tmp_path, capsys):
    """Runs a command line in an empty directory, in this process; gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for name in ("run.progress", "data.packing"):  # what is refused gets one line, also on a busy machine
        monkeypatch.setattr(f"metarun.{name}.PATIENCE", 100.0)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["metarun", *words])
        capsys.readouterr()
        try:
            code = cli.main()
        except SystemExit as exit_:
            code = exit_.code
        return code, *capsys.readouterr()

    yield run
    logging.getLogger("metarun").handlers.clear()  # they write to this test's stderr


@pytest.fixture
def pictures():
    """Asks for real pictures of the runs in this process."""


@pytest.fixture(autouse=True)
def _pictures_where_they_are_asked_for(request, monkeypatch):
    if "pictures" not in request.fixturenames:
        leave_out_pictures(monkeypatch)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run, to be copied and spoiled."""
    return train(tmp_path_factory.mktemp("finished") / "run", *QUICK, draw=True)


@pytest.fixture(params=["mlp", "conv4 strided", "conv4 pooled", "conv4 support norm", "mlp support norm, scale"])
def learner(request):
    """(model, a batch of four float64 tasks): small versions of all learners."""
    generator = torch.Generator().manual_seed(5)
    with seeds.forked("test", request.param):
        if request.param == "mlp":
            model = MLP((1,), 1, hidden=[8, 8])
            source = Sinusoid(shots=5, queries=7)
            source.prepare(torch.device("cpu"))
            return model.double(), source.sample(3, "train", torch.arange(4)).to(torch.float64)
        if request.param.startswith("mlp"):
            model = MLP((1, 16, 16), 3, hidden=[12, 8], norm="support", norm_scale=True)
        else:
            pooled = request.param.endswith("pooled")
            norm = "support" if "support" in request.param else "transductive"
            model = Conv4((1, 16, 16), 3, filters=4, downsampling="max_pool" if pooled else "stride", norm=norm)
    for name in model.norm_parameters:  # a shift of zero puts channels that are constant right on a ReLU's kink
        torch.nn.init.uniform_(model.get_parameter(name), 0.5, 1.5, generator)
    return model.double(), image_tasks(generator)
