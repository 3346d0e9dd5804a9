"""metarun eval: the same checkpoint under other settings, into a folder of its own."""

import itertools
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers.own_data import write_own_data
from helpers.results import edit
from helpers.tables import cities

from metarun.commands.eval import combine
from metarun.config.folders import ConfigFolders
from metarun.engine import loop
from metarun.errors import DivergedError
from metarun.results.evaluations import Evaluations
from metarun.storage.rundir import RunDir

QUICK = ("meta_steps=12", "val_every=4", "val_tasks=6", "test_tasks=20", "log_every=3", "checkpoint_every=5")


def test_eval_under_other_settings(metarun):
    metarun(*QUICK, "data=tabular", "hydra.run.dir=run")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    code, out, err = metarun("eval", "run", "data.shots=9", "algo.eval_inner_steps=3", "test_tasks=30", "engine=loop")
    assert code == 0, err
    assert "2-way 9-shot" in out
    assert "2-way 9-shot (queries: 15, trained with shots: 5, queries: 15, " in out
    assert not RunDir(next(Path("run/eval").glob("*/*"))).holds_run, "an evaluation cannot be resumed into a run"
    summary = json.loads(next(Path("run/eval").glob("*/*/summary.json")).read_text())
    assert len(summary["test"]["accuracy"]["by_step"]) == 4
    assert summary["test"]["accuracy"]["tasks"] == 30
    assert {path: path.read_bytes() for path in before} == before, "the run stays as it was"
    (evaluated,) = Path("run/eval").glob("*/*")
    summary = json.loads((evaluated / "summary.json").read_text())
    assert summary["source"]["train_shots"] == 5, "facts of training that differ from those of the test"
    assert summary["trained"]["inner"]["eval_steps"] == 10
    for words in ([], ["data.shots=5"]):
        code, out, _ = metarun("eval", "run", *words)
        assert (code, "again=true tests again" in out, "files         run\n" in out) == (0, True, True)
    metarun("eval", "run", "data.shots=5", "again=true")
    assert "trained" not in json.loads(sorted(Path("run/eval").glob("*/*/summary.json"))[-1].read_text())
    same = json.loads(sorted(Path("run/eval").glob("*/*/summary.json"))[-1].read_text())
    assert same["test"] == json.loads(Path("run/summary.json").read_text())["test"]
    for words, said in (
        (["algo.inner_steps=3"], "no effect on meta-testing; set algo.eval_inner_steps"), (["algo.meta_lr=0.1"], "no effect"), (["algo={inner_steps:3}"], "set algo.eval_inner_steps"), (["data={eval_shots:2,train_tasks:3}"], "no effect"), (["algo.meta_optimizer._target_=torch.optim.SGD"], "no effect"),
        (["algo.first_order=true"], "no effect"), (["data.ways=3"], "algo.head=shared"), (["meta_steps=3"], "no effect"), (["data.way=3"], "did you mean ways?"),
        (["algo=fomaml"], "settings of its own"), (["data.shots=interval(1,3)"], "give values, data.shots=A,B"),
        (["data.shots=1,x,0"], "(in run data.shots=x, and 1 more of 3)"), (["data.shots=1", "data.eval_shots=2"], "given twice"), (["data.shots=x"], "an integer"), (["seed=${oc.env:HOME}"], "seed"),
    ):  # fmt: skip
        code, _, err = metarun("eval", "run", *words)
        assert code in (2, 4)
        assert said in err
        assert err.count("\n") == 1


DRAWN = """
import torch
from torch import nn


class Drawn(nn.Module):
    built = []

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(1, 8), nn.Linear(8, 1)
        self.register_buffer("mix", torch.randn(8, 8))
        self.shift = torch.randn(8)
        self.built.append(self.shift)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)) @ self.mix + self.shift)
"""


def test_other_tasks_are_given_to_the_learner_that_was_trained(metarun, monkeypatch):
    """What its class draws for itself depends on the seed of the run; no checkpoint has it."""
    Path("drawn_of_eval.py").write_text(DRAWN)
    Path("choices/model").mkdir(parents=True)
    Path("choices/model/drawn.yaml").write_text("_target_: drawn_of_eval.Drawn")
    monkeypatch.setenv("METARUN_TRUST", "drawn_of_eval")
    monkeypatch.syspath_prepend(str(Path().resolve()))
    assert metarun(*QUICK, "-cd", "choices", "model=drawn", "hydra.run.dir=run")[0] == 0
    code, _, err = metarun("eval", "run", "seed=1")
    assert code == 0, err
    built = sys.modules["drawn_of_eval"].Drawn.built
    assert all(torch.equal(shift, built[0]) for shift in built)
    (evaluated,) = Path("run/eval").glob("*/*")
    assert yaml.safe_load((evaluated / "config.yaml").read_text())["seed"] == 1
    first, second = (json.loads(path.read_text())["digest"] for path in sorted(Path("run").rglob("test_tasks.json")))
    assert first != second, "other tasks"


def test_places_of_an_evaluation_may_begin_with_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home")
    assert combine(["data.root=~/a,~/b"], ConfigFolders()) == [['data.root="/home/a"'], ['data.root="/home/b"']]


def test_words_of_eval_mean_the_same_in_any_order(metarun):
    metarun(*QUICK, "hydra.run.dir=run")
    for words in (["device.threads=1", "device=cpu"], ["device=cpu", "device.threads=1"]):
        assert metarun("eval", "run", *words)[0] == 0
    for config in Path("run/eval").glob("*/*/config.yaml"):
        assert "threads: 1" in config.read_text()


@pytest.fixture
def tested(monkeypatch):
    """Numbers of test tasks, each of a test that was made; pictures are left out."""
    calls = []
    for name in ("draw_curves", "draw_examples"):
        monkeypatch.setattr(f"metarun.run.pictures.{name}", lambda *facts: None)
    real = loop.meta_test
    monkeypatch.setattr(loop, "meta_test", lambda *args: calls.append(args[3]) or real(*args))
    return calls


def test_folders_of_runs_and_lists_of_values(metarun, finished, tested):
    for name in ("runs/a", "runs/algo=maml", "runs/failed", "runs/again"):
        shutil.copytree(finished, name)
    edit("runs/failed", "status.json", lambda s: s.update(status="failed"))
    edit("runs/again", "environment.json", lambda e: e.update(reproduces=str(Path("runs/a").resolve())))
    code, out, err = metarun("eval", "runs", "data.shots=2,7", "test_tasks=3,4", "format=json")
    assert code == 0, err
    assert "left out: runs/failed: failed at outer step 4\n" in err
    assert re.search("left out: runs/again: a reproduction of runs/a\n", err)
    found = Evaluations.from_json(out).evaluations
    made = [(e.run, e.settings["data.shots"], e.settings["test_tasks"]) for e in found]
    assert made == list(itertools.product(("runs/a", "runs/algo=maml"), (2, 7), (3, 4)))
    for evaluated in found:
        summary = RunDir(Path(evaluated.folder)).summary()
        assert (evaluated.status, evaluated.test) == ("done", summary.test)
        assert (evaluated.source.shots, evaluated.source.train_shots) == (evaluated.settings["data.shots"], 10)
    tested.clear()
    code, out, err = metarun("eval", "runs/a", "runs/algo=maml", "data.eval_shots=2", "test_tasks=3,5")
    assert code == 0, err
    assert tested == [5, 5], "data.shots=2 was the same test, made before"
    assert (out.count("(made before)"), out.count("mse ")) == (2, 4)
    assert "metarun table runs/a runs/algo=maml evaluations=true" in out
    shutil.copytree("runs", "outputs/runs")
    out = metarun("eval", "outputs/runs/algo=maml", "runs/a", "test_tasks=3,5")[1]
    assert "metarun table outputs/runs/algo=maml runs/a evaluations=true" in out
    Path("runs/a").rename("runs/b")
    out = metarun("eval", "outputs/runs/algo=maml", "runs/a", "test_tasks=3,5")[1]
    assert "metarun table outputs/runs/algo=maml outputs/runs/a evaluations=true" in out
    Path("runs/b").rename("runs/a")
    tested.clear()
    assert metarun("eval", "runs/a", "data.shots=2", "test_tasks=3", "again=true")[0] == 0
    assert tested == [3]
    for evaluated in found:
        edit(evaluated.folder, "summary.json", lambda s: s["checkpoint"].update(sha256="0"))
    tested.clear()
    assert metarun("eval", "runs/algo=maml", "data.shots=7", "test_tasks=3")[0] == 0
    assert tested == [3], "that was another checkpoint of the same step"
    for name in ("runs/a/checkpoints", "runs/a/eval"):
        code, _, err = metarun("eval", name)
        assert (code, f"{name}: is a part of a run; expected the run: metarun eval runs/a\n" in err) == (4, True)


def test_an_evaluation_that_fails_does_not_lose_the_others(metarun, finished, tested, monkeypatch):
    shutil.copytree(finished, "run")
    test = loop.meta_test

    def diverge(*args):
        if args[3] == 4:
            raise DivergedError("the metric is no longer finite")
        return test(*args)

    monkeypatch.setattr(loop, "meta_test", diverge)
    code, out, err = metarun("eval", "run", "test_tasks=3,4,5")
    assert (code, "1 evaluation of 3 failed (eval)" in err) == (1, True)
    assert re.search(r"\n4 +failed: the metric is no longer finite\n5 +mse ", out)
    assert metarun("eval", "run", "test_tasks=4")[0] == 5


NOISE = """
import torch
from metarun.data.tabular import Tabular

class Noise(Tabular):
    def __init__(self, size: int | None = None, channels: int | None = None, ways: int = 2, shots: int = 5):
        self.side, self.channels = size or 84, channels or 3
        super().__init__(self.channels * self.side**2, ways, shots)
        self.input_shape = self.channels, self.side, self.side

    def sample(self, seed, split, index):
        task = super().sample(seed, split, index)
        support, query = (x.unflatten(-1, self.input_shape) for x in (task.support_x, task.query_x))
        return task._replace(support_x=support, query_x=query)

    def facts(self):
        return super().facts() | {"name": "noise"}
"""


def test_eval_on_other_data(metarun, data_root, monkeypatch):
    """A test across domains, on a source of the user's own; other class splits of the run's own data stay refused."""
    monkeypatch.setenv("METARUN_DATA", str(data_root))
    monkeypatch.setenv("METARUN_TRUST", "noise_of_eval")
    Path("noise_of_eval.py").write_text(NOISE)
    Path("choices/data").mkdir(parents=True)
    Path("choices/data/noise.yaml").write_text("_target_: noise_of_eval.Noise\nsize: null\nways: 2")
    code, _, err = metarun(
        "data=omniglot",
        "model.filters=4",
        "meta_steps=2",
        "meta_batch=2",
        "val_tasks=2",
        "test_tasks=2",
        "hydra.run.dir=run",
    )
    assert code == 0, err
    assert metarun("eval", "run", "data.shots=5")[0] == 0
    code, _, err = metarun("eval", "run", "data.split_seed=1")
    assert code == 4
    assert "data.split_seed" in err
    code, _, err = metarun("eval", "run", "data=omniglot", "data.split_seed=1")
    assert (code, "data.split_seed" in err) == (4, True), "the data is the same"
    shutil.rmtree("run/eval")
    code, out, err = metarun("eval", "run", "-cd", "choices", "data=noise")
    assert code == 0, err
    assert "MAML on noise 5-way 1-shot (queries: 15, " in out
    assert ", trained on omniglot for 2 outer steps of 2 tasks" in out
    assert "\ntrained on    omniglot 5-way 1-shot (queries: 1, rotations: all)\n" in out
    (evaluated,) = Path("run/eval").glob("*/*")
    summary = json.loads((evaluated / "summary.json").read_text())
    assert (summary["choices"]["data"], summary["trained"]["other_data"]) == ("noise", True)
    digests = [json.loads((run / "test_tasks.json").read_text())["digest"] for run in (Path("run"), evaluated)]
    assert digests[0] != digests[1]
    content = json.loads(metarun("table", "run", "run/eval", "format=json")[1])
    assert [row["keys"].get("trained on") for row in content["rows"]] == [None, "omniglot"]
    assert [row["best_on_its_tasks"] for row in content["rows"]] == [None, None], "they were tested on other tasks"
    sys.modules.pop("noise_of_eval")


@pytest.mark.slow
def test_prototypes_that_were_learned_with_many_ways_are_tested_with_few_and_with_more(metarun):
    words = ("algo=protonet", "data=tabular", "data.train_tasks=40", "data.ways=6", "data.eval_ways=3")
    assert metarun(*QUICK, *words, "hydra.run.dir=run")[0] == 0
    assert json.loads(Path("run/summary.json").read_text())["source"]["train_ways"] == 6
    for ways in (3, 9):
        code, out, err = metarun("eval", "run", f"data.eval_ways={ways}", "test_tasks=200")
        assert code == 0, err
        assert f"tabular {ways}-way 5-shot (queries: 15, trained with ways: 6, tasks: 40" in out
        summary = json.loads(max(Path("run/eval").glob("*/*/summary.json")).read_text())
        assert summary["test"]["accuracy"]["mean"] > 1.3 / ways, "it is better than chance"
    code, out, err = metarun("table", "run/eval")
    assert "data.eval_ways" in out
    code, out, _ = metarun("eval", "run", "data.ways=4", "test_tasks=2")
    assert (code, "tabular 4-way" in out) == (0, True), "data.eval_ways of the run does not hide it"
    code, _, err = metarun("eval", "run", "data.train_tasks=3")
    assert (code, "has no effect on meta-testing" in err) == (2, True)


def test_a_run_is_tested_where_its_logger_is_not_installed(metarun, finished):
    shutil.copytree(finished, "run")
    config = Path("run/.hydra/config.yaml")
    config.write_text(
        config.read_text().replace("logger: null", "logger: {_target_: metarun.run.loggers.WandB, mode: x}")
    )
    code, _, err = metarun("eval", "run", "test_tasks=2")
    assert code == 0, err
    code, _, err = metarun("eval", "run", "logger=tensorboard")
    assert "'logger=tensorboard' (command line): has no effect on meta-testing" in err


def test_a_table_may_have_moved(metarun):
    cities().to_csv("cities.csv")
    words = ("data=table", "data.file=cities.csv", "data.target=wage", "data.task=city", "data.drop=[name]")
    few = ("data.shots=2", "data.queries=2", "data.splits=[0.5,0.2,0.3]")
    assert metarun(*words, *few, *QUICK, "hydra.run.dir=run")[0] == 0
    Path("cities.csv").rename("moved.csv")
    code, _, err = metarun("eval", "run")
    assert code == 3
    assert "cities.csv (data.file): No such file" in err
    code, out, err = metarun("eval", "run", "data.file=moved.csv")
    assert code == 0, err
    assert "trained on" not in out


def test_the_data_of_training_need_not_be_here_for_a_test_on_other_data(metarun):
    write_own_data(Path())
    words = ("data=images", "data.root=letters", "data.ways=2", "data.queries=1", "data.size=28", "model.filters=4")
    assert metarun(*words, *QUICK, "meta_batch=2", "hydra.run.dir=run")[0] == 0
    shutil.rmtree("letters")
    code, out, err = metarun("eval", "run", "data=images", "data.root=query", "test_tasks=4")
    assert code == 0, err
    assert re.search(r"trained on +images 2-way 1-shot", out)
    code, _, err = metarun("eval", "run", "test_tasks=4")
    assert (code, "letters (data.root): expected a folder" in err) == (3, True)
