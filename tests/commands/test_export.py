"""metarun export: a run in one file, with the run's own answers, that needs neither its data nor its directory."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import QUICK

import metarun as package
from metarun.errors import UsageError

NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, input_shape, outputs):
        super().__init__(nn.Linear(*input_shape, 5), nn.ReLU(), nn.Linear(5, outputs))
"""
X = np.linspace(-5, 5, 7)[:, None]


def _answers(path):
    return package.load(path).fit(X, np.sin(X[:, 0])).predict(X)


def test_a_file_gives_the_answers_of_the_run_where_the_run_is_gone(metarun, finished):
    shutil.copytree(finished, "run")
    expected = _answers("run")
    code, out, err = metarun("export", "run", "mine.safetensors")
    assert code == 0, err
    assert "MAML on sinusoid" in out
    assert "files         mine.safetensors" in out
    first = Path("mine.safetensors").read_bytes()
    assert metarun("export", "run", "mine.safetensors")[0] == 0, "an exported learner is replaced"
    assert Path("mine.safetensors").read_bytes() == first, "by the same bytes"
    assert str(Path.cwd()).encode() not in first
    shutil.rmtree("run")
    assert np.array_equal(_answers("mine.safetensors"), expected)


def test_what_cannot_be_exported_is_refused_in_a_line_and_leaves_nothing(metarun, finished):
    shutil.copytree(finished, "run")
    Path("mine.safetensors").write_bytes(b"weights of mine")
    status = Path("run/status.json").read_text()
    for words, expected, said in (
        (["run", "mine.safetensors"], 4, "no exported learner"),
        (["run", "x.pt"], 2, "ends in .safetensors"),
        (["run", "mine.safetensors/x.safetensors"], 4, "mine.safetensors is a file"),
        (["nowhere", "x.safetensors"], 4, "no run there"),
        (["run"], 2, "FILE"),
    ):
        code, out, err = metarun("export", *words)
        assert (code, out, err.count("\n")) == (expected, "", 1), err
        assert said in err
    Path("run/status.json").write_text(status.replace("done", "stopped"))
    code, _, err = metarun("export", "run", "x.safetensors")
    assert code == 4
    assert "not finished (outer step 4 of 4)" in err
    assert "metarun resume run" in err
    assert {path.name for path in Path().iterdir()} == {"run", "mine.safetensors"}
    assert Path("mine.safetensors").read_bytes() == b"weights of mine"


def test_a_learner_of_the_users_own_needs_trust_and_its_code(metarun, monkeypatch, caplog):
    monkeypatch.setenv("METARUN_TRUST", "net_of_export")
    Path("net_of_export.py").write_text(NET)
    Path("choices/model").mkdir(parents=True)
    Path("choices/model/net.yaml").write_text("_target_: net_of_export.Net")
    quick = [word for word in QUICK if "hidden" not in word]
    code, out, err = metarun(*quick, "-cd", "choices", "model=net", "hydra.run.dir=run")
    assert code == 0, err
    code, out, err = metarun("export", "run", "mine.safetensors")
    assert code == 0, err
    assert "METARUN_TRUST=net_of_export" in out
    expected = _answers("mine.safetensors")
    assert np.array_equal(_answers("run"), expected)
    sys.modules.pop("net_of_export")
    Path("net_of_export.py").write_text(f"{NET}# changed")
    caplog.clear()
    assert np.array_equal(_answers("mine.safetensors"), expected)
    assert "net_of_export.py was" in caplog.text
    monkeypatch.delenv("METARUN_TRUST")
    sys.modules.pop("net_of_export")
    with pytest.raises(UsageError, match=r"net_of_export.Net.*METARUN_TRUST"):
        package.load("mine.safetensors")
    assert "net_of_export" not in sys.modules
