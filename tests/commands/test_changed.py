"""Data and code of the user's that change beneath a run: said, refused, and kept apart in tables."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from helpers.runs import QUICK

OWN = """
from pathlib import Path

from metarun.algos.maml import MAML
from metarun.data.sinusoid import Sinusoid


class Mine(MAML):
    pass


class Read(Sinusoid):
    def __init__(self, root):
        super().__init__(shots=5)
        self.path = Path(root, "scale.txt")

    def prepare(self, device):
        super().prepare(device)
        self.scale = float(self.path.read_text())

    def sample(self, seed, split, index):
        task = super().sample(seed, split, index)
        return task._replace(support_y=task.support_y * self.scale, query_y=task.query_y * self.scale)
"""
FILE = Path("own_of_a_test.py")


@pytest.fixture
def own(metarun, monkeypatch):
    """A command line that finds the user's module; each call imports it anew, as a process of its own would."""
    monkeypatch.setenv("METARUN_TRUST", FILE.stem)
    FILE.write_text(OWN)

    def run(*words):
        sys.modules.pop(FILE.stem, None)
        return metarun(*words)

    yield run
    sys.modules.pop(FILE.stem, None)


def _tree():
    return {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}


def test_code_that_has_changed(own, monkeypatch):
    words = (*QUICK, f"algo._target_={FILE.stem}.Mine")
    assert own(*words, "hydra.run.dir=run")[0] == 0
    before = hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert json.loads(Path("run/environment.json").read_text())["code"] == {FILE.stem: before}
    FILE.write_text(f"{OWN}\n# changed\n")
    now = hashlib.sha256(FILE.read_bytes()).hexdigest()
    said, tree = f"{FILE} was {before[:12]}, is {now[:12]}", _tree()

    code, _, err = own("resume", "run", "meta_steps=6")
    assert code == 4, err
    assert err.startswith(f"metarun: error: run: {said}: expected what the run began with")
    assert err.count("\n") == 1
    assert _tree() == tree
    code, _, err = own(*words, "hydra.run.dir=run")
    assert code == 0
    assert f"{said}: this is the result of the former" in err
    code, _, err = own("eval", "run")
    assert code == 0
    assert f"{said}: the run began with another" in err
    (evaluated,) = Path("run/eval").glob("*/*/environment.json")
    assert json.loads(evaluated.read_text())["code"] == {FILE.stem: now}
    code, out, _ = own("reproduce", "run")
    assert code == 0
    assert f"{said}: the repetition is of another" in out

    assert own(*words, "hydra.run.dir=other")[0] == 0
    monkeypatch.delenv("METARUN_TRUST")
    code, out, err = own("table", "run", "other", "format=json")
    assert code == 0, err
    content = json.loads(out)
    assert [row["keys"]["code"] for row in content["rows"]] == [f"{FILE.stem} {h[:12]}" for h in (before, now)]
    assert not content["left_out"], "no repetition of one another"
    for verb in ("resume", "eval", "reproduce"):
        code, _, err = own(verb, "run")
        assert code == 2
        assert "METARUN_TRUST=package" in err
        assert err.count("\n") == 1


def test_a_run_without_a_checkpoint_begins_anew_with_the_code_of_today(own):
    assert own(*QUICK, f"algo._target_={FILE.stem}.Mine", "hydra.run.dir=run")[0] == 0
    shutil.rmtree("run/checkpoints")
    Path("run/summary.json").unlink()
    Path("run/status.json").write_text('{"status": "failed"}')
    FILE.write_text(f"{OWN}\n# mended\n")
    code, _, err = own("resume", "run")
    assert code == 0, err
    mended = hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert json.loads(Path("run/environment.json").read_text())["code"] == {FILE.stem: mended}
    assert own("resume", "run", "meta_steps=6")[0] == 0


def test_data_that_has_changed(own):
    for folder, scale in (("a", 1), ("same", 1), ("b", 2)):
        Path(folder).mkdir()
        Path(folder, "scale.txt").write_text(str(scale))
    Path("choices/data").mkdir(parents=True)
    Path("choices/data/read.yaml").write_text(
        "# @package _global_\ndefaults: [{/model: mlp}, _self_]\ndata: {_target_: own_of_a_test.Read, root: null}\n"
    )
    words = ("-cd", "choices", "data=read", *QUICK[1:])
    assert own(*words, "data.root=a", "meta_steps=4", "hydra.run.dir=run")[0] == 0
    assert own("resume", "run", "data.root=same", "meta_steps=6")[0] == 0, "the folder is free to move"
    code, _, err = own("eval", "run", "data.root=same", "seed=3")
    assert (code, "began with" in err) == (0, False)
    code, _, err = own("eval", "run", "data.root=b")
    assert code == 0
    roots = [Path(name).absolute() for name in ("b", "same")]
    assert f"the test tasks of the data (data.root={roots[0]}, was {roots[1]}) was" in err
    Path("same/scale.txt").write_text("2")
    code, _, err = own("resume", "run", "meta_steps=8")
    assert code == 4
    assert f"metarun: error: run: the train tasks of the data (data.root={roots[1]}) was" in err

    assert own(*words, "data.root=b", "seed=1", "meta_steps=6", "hydra.run.dir=other")[0] == 0
    code, out, err = own("table", "run", "other", "format=json")
    assert code == 0, err
    assert [row["keys"].get("data.root") for row in json.loads(out)["rows"]] == [str(root) for root in reversed(roots)]
