"""metarun check says what it saw, trains nothing, and leaves nothing behind."""

import json
import sys
from pathlib import Path

import pytest
from helpers.runs import QUICK

FLAT = """
from torch import nn


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        return self.layer(x).squeeze(-1)
"""


def test_it_says_what_it_saw_and_makes_no_folder(metarun):
    code, out, err = metarun("check", "data=tabular", "data.shots=2", "algo=protonet")
    assert code == 0, err
    for expected in (
        "Tabular: accuracy, inputs [10]",
        "4 support and 30 query points",
        "predictions [1, 30, 2]",
        "all as",
    ):
        assert expected in out
    assert not list(Path().iterdir())


def test_every_job_of_a_sweep_is_checked(metarun):
    code, out, err = metarun("check", "-m", "algo=maml,protonet", "data=tabular", "data.shots=2")
    assert code == 0, err
    assert out.count("all as expected") == 2


def test_a_part_of_ones_own_is_named_before_a_folder_is_made(metarun, monkeypatch):
    Path("flat_net.py").write_text(FLAT)
    Path("choices/model").mkdir(parents=True)
    Path("choices/model/flat.yaml").write_text("_target_: flat_net.Flat")
    monkeypatch.setenv("METARUN_TRUST", "flat_net")
    monkeypatch.syspath_prepend(str(Path().resolve()))
    for verb in (["check"], ["hydra.run.dir=run"], ["-m", "seed=0,1", "hydra.sweep.dir=run"]):
        code, _, err = metarun(*verb, "-cd", "choices", "model=flat")
        assert code == 2
        assert "flat_net.Flat: outputs of shape [10]: expected [10, 1]" in err
        assert err.count("\n") == 1, err
    assert not Path("run").exists()


PARTS = """
import numpy as np
from metarun.algos.maml import MAML
from metarun.data.sinusoid import Sinusoid


class Lines(Sinusoid):
    def sample(self, seed, split, index):
        if index.max() >= 100:
            raise KeyError("a table that is not there")
        return super().sample(seed, split, index)


class Failing(MAML):
    def meta_lr_at(self, progress):
        if progress > 0.5:
            raise ValueError("no rate left")
        return self.meta_lr


class Unseeded(Sinusoid):
    def prepare(self, device):
        super().prepare(device)
        self.shift = float(np.random.default_rng().normal())

    def sample(self, seed, split, index):
        task = super().sample(seed, split, index)
        return task._replace(query_y=task.query_y + self.shift)


class Stamped(Sinusoid):
    def identity(self):
        return super().identity() | {"data_digest": str(id(self))}


class NoMethods:
    input_shape, outputs, metric = (1,), 1, "mse"

    def prepare(self, device):
        pass


class NoAlgorithm:
    def __init__(self, model):
        pass


class Forgets(MAML):
    def __post_init__(self):
        pass
"""
SOURCE = "# @package _global_\ndefaults: [{/model: mlp}, _self_]\ndata: {_target_: own_parts_of_check.%s}"


@pytest.fixture
def own(metarun, monkeypatch):
    """Runs a command line where choices/ has parts of the user's."""
    Path("own_parts_of_check.py").write_text(PARTS)
    for group in ("data", "algo"):
        Path("choices", group).mkdir(parents=True)
    for name in ("Lines", "NoMethods", "Unseeded", "Stamped"):
        Path(f"choices/data/{name}.yaml").write_text(SOURCE % name)
    for name in ("Failing", "NoAlgorithm", "Forgets"):
        Path(f"choices/algo/{name}.yaml").write_text(f"_target_: own_parts_of_check.{name}")
    monkeypatch.setenv("METARUN_TRUST", "own_parts_of_check")

    def run(*words):
        verb = words[:1] if words[0] == "check" else ()
        return metarun(*verb, "-cd", "choices", *words[len(verb) :])

    yield run
    sys.modules.pop("own_parts_of_check", None)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data=NoMethods", "own_parts_of_check.NoMethods (data): has no sample, identity, facts: expected a task source"),
        ("algo=NoAlgorithm", "own_parts_of_check.NoAlgorithm (algo._target_): expected a subclass of metarun.algos"),
        ("algo=Forgets", "own_parts_of_check.Forgets (algo): has no origin: expected a dataclass"),
    ],
)  # fmt: skip
def test_a_class_of_another_kind_is_refused(own, word, said):
    code, _, err = own(word, "hydra.run.dir=run")
    assert (code, err.count("\n")) == (2, 1), err
    assert err.startswith(f"metarun: error: {said}")
    assert not Path("run").exists()


def test_data_that_is_other_each_time_is_refused_before_any_training(own):
    code, _, err = own("check", "data=Unseeded")
    assert code == 2
    assert "own_parts_of_check.Unseeded: query_y of train tasks differs when the source is built anew" in err
    code, _, err = own("check", "data=Stamped")
    assert code == 2
    assert "own_parts_of_check.Stamped: data_digest of identity() differs when the source is built anew" in err
    code, out, err = own("check", "data=Lines")
    assert (code, "all as expected, in" in out) == (0, True), err


def test_warnings_are_counted(metarun, monkeypatch):
    Path("spare_net.py").write_text(
        FLAT.replace(".squeeze(-1)", "")
        .replace("Flat", "Spare")
        .replace("self.layer =", "self.spare, self.layer = [nn.Linear(1, 1)],")
    )
    Path("choices/model").mkdir(parents=True)
    Path("choices/model/spare.yaml").write_text("_target_: spare_net.Spare")
    monkeypatch.setenv("METARUN_TRUST", "spare_net")
    monkeypatch.syspath_prepend(str(Path().resolve()))
    code, out, err = metarun("check", "-cd", "choices", "model=spare")
    assert code == 0, err
    assert err.count("spare_net.Spare.spare: holds weights in a list: expected nn.ModuleList") == 1, "said once"
    assert "all as expected but for 1 warning, see above" in out


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [
        ("data=Lines", 3, "own_parts_of_check.Lines.sample: KeyError: 'a table that is not there'"),
        ("algo=Failing", 2, "own_parts_of_check.Failing.meta_lr_at: ValueError: no rate left"),
    ],
)
def test_an_error_after_some_outer_steps_names_the_class_and_the_line(own, word, code, said):
    quick = [short for short in QUICK if not short.startswith(("meta_steps=", "val_every="))]
    given, _, err = own(*quick, word, "meta_steps=8", "val_every=8", "hydra.run.dir=run")
    assert given == code, err
    line = next(n for n, text in enumerate(PARTS.splitlines(), start=1) if said.split()[-1].strip("'") in text)
    said = f"{said} (own_parts_of_check.py:{line}): expected no error there"
    assert f"metarun: error: {said}" in err
    status = json.loads(Path("run/status.json").read_text())
    assert (status["status"], status["step"] > 0) == ("failed", True)
    assert said in status["error"]
    assert said in Path("run/metarun.log").read_text()


def test_a_choice_that_was_mended_is_read_anew(metarun):
    """As in a notebook, where one process has all commands."""
    file = Path("choices/algo/mine.yaml")
    file.parent.mkdir(parents=True)
    text = "_target_: metarun.algos.protonet.ProtoNet\n"
    file.write_text(f"{text}sharpnes: 2\n")
    words = ("check", "-cd", "choices", "algo=mine", "data=tabular", "data.shots=2")
    assert metarun(*words)[0] == 2
    file.write_text(text)
    code, _, err = metarun(*words)
    assert code == 0, err
