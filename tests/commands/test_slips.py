"""Slips of the keyboard, and what other programs take: each gets the line that mends it, or is understood."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from metarun.config.through_hydra import forget_composed


def _own(monkeypatch, finished):
    """A run, a sweep of two, folders of other people's, and a package that is not here."""
    shutil.copytree(finished, "run")
    for name in ("sweep/seed=0", "sweep/seed=1"):
        shutil.copytree(finished, name)
    for name in ("full", "mine/cat", "mine/dog"):
        Path(name).mkdir(parents=True)
        Path(name, "1.png").write_text("x")
    monkeypatch.setenv("METARUN_TRUST", "far")


REFUSED = [  # words, exit code, what the line has to say
    ("inner_lr=0.1", 2, ["'inner_lr'", "did you mean algo.inner_lr?"]),
    ("shots=3", 2, ["did you mean data.shots?"]),
    ("lr=0.1", 2, ["algo.inner_lr", "algo.meta_lr?"]),
    ("epochs=3", 2, ["did you mean meta_steps?"]),
    ("algo.lr=0.1", 2, ["algo has", "did you mean meta_lr or inner_lr?"]),
    ("run.dir=foo", 2, ["did you mean hydra.run.dir?"]),
    ("out=foo", 2, ["did you mean hydra.run.dir?"]),
    ("dir=foo", 2, ["did you mean hydra.run.dir or hydra.sweep.dir?"]),
    ("--meta_steps 100", 2, ["'--meta_steps 100'", "write meta_steps=100"]),
    ("algo = maml", 2, ["'algo = maml'", "no blanks", "write algo=maml"]),
    ("algo= maml", 2, ["no blanks", "write algo=maml"]),
    ("algo =maml", 2, ["no blanks", "write algo=maml"]),
    ("-m seed=0, 1", 2, ["'seed=0, 1'", "write seed=0,1"]),
    ("-m seed=[0,1]", 2, ["[0, 1] (seed)", "an integer", "-m seed=0,1"]),
    ("seed=range(2)", 2, ["'seed=range(2)'", "add -m"]),
    ("algo=MAML", 2, ["did you mean maml?"]),
    ("device=gpu", 2, ["did you mean cuda?"]),
    ("meta_steps=1.5", 2, ["1.5 (meta_steps)", "an integer"]),
    ("list", 2, ["did you mean metarun ls?"]),
    ("status", 2, ["did you mean metarun ls?"]),
    ("predict", 2, ["did you mean metarun adapt?"]),
    ("train", 2, ["did you mean metarun key=value ..., which has no verb?"]),
    ("table . sort_by=mse", 2, ["'sort_by=mse'", "no such setting", "format="]),
    ("resume run -cd mine", 2, ["-cd", "metarun resume has no such option", "eval"]),
    ("--shell-completion", 2, ["metarun completion bash"]),
    ("resume run/checkpoints", 4, ["run/checkpoints: no run there", "which is run"]),
    ("resume sweep", 4, ["sweep: no run there", "sweep/seed=0"]),
    ("-cp run/.hydra model=resnet", 2, ["'resnet' (model)", "a saved config has no choices by name", "overrides.yaml"]),
    ("model._target_=far.Net", 2, ["No module named 'far'", "looked in the working directory", "PYTHONPATH=FOLDER"]),
    ("data=omniglot data.root=mine", 3, ["mine: holds images", "data=images data.root="]),
    ("data=torchvision data.dataset=KMNIST data.root=mine", 3, ["mine: holds images", "data=images"]),
]


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row[0])
def test_a_slip_is_refused_in_the_line_that_mends_it(metarun, monkeypatch, finished, row):
    words, code, says = row
    _own(monkeypatch, finished)
    before = sorted(Path().rglob("*"))
    got, out, err = metarun(*words.split())
    assert (got, out, err.count("\n")) == (code, "", 1), err
    assert all(part in err for part in says), err
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("--seed=3", "seed", 3),
        ("--algo.inner_lr=0.02", "algo.inner_lr", 0.02),
        ("meta_steps=1e3", "meta_steps", 1000),
        ("algo.inner_steps=2.0", "algo.inner_steps", 2),
        ("data.eval_shots=1e1", "data.eval_shots", 10),
        ("algo.inner_lr=1e0", "algo.inner_lr", 1.0),
    ],
)
def test_what_is_meant_is_taken(metarun, words, key, value):
    code, out, err = metarun(*words.split(), "--cfg", "job")
    assert code == 0, err
    node = yaml.safe_load(out)
    for part in key.split("."):
        node = node[part]
    assert node == value
    assert type(node) is type(value)


@pytest.mark.parametrize(
    "word", ["hydra.run.dir=~/x", 'hydra.run.dir="~/x"', "hydra.run.dir='~/x'", "hydra.sweep.dir='~/x'"]
)
def test_the_home_folder_is_meant_with_quotes_too(metarun, monkeypatch, tmp_path, word):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    code, out, err = metarun(word, "--cfg", "hydra")
    assert code == 0, err
    assert f"dir: {tmp_path}/home/x" in out


def test_a_folder_of_other_peoples_files_is_no_run_directory(metarun, monkeypatch, finished):
    _own(monkeypatch, finished)
    code, _, err = metarun("hydra.run.dir=full")
    assert code == 4
    assert "full: holds 1.png but no run" in err
    assert os.listdir("full") == ["1.png"]


def test_a_saved_run_takes_whole_numbers_and_options_like_a_new_one(finished):
    from metarun.commands import resume
    from metarun.commands.parser import Parser
    from metarun.config.edit import with_changes
    from metarun.config.saved import saved_config

    forget_composed()
    plain = saved_config(finished / ".hydra" / "config.yaml").plain()
    words = Parser("resume", resume).read([str(finished), "--test_tasks=1e3"]).words
    assert with_changes(plain, words).test_tasks == 1000
