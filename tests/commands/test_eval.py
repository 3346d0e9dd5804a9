"""metarun eval: the same checkpoint under other settings, into a folder of its own."""

import json
import re
import shutil
import sys
from pathlib import Path

from helpers.own_data import write_own_data
from helpers.tables import cities

from metarun.storage.rundir import RunDir

QUICK = ("meta_steps=12", "val_every=4", "val_tasks=6", "test_tasks=20", "log_every=3", "checkpoint_every=5")


def test_eval_under_other_settings(metarun):
    metarun(*QUICK, "data=tabular", "hydra.run.dir=run")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    code, out, err = metarun("eval", "run", "data.shots=9", "algo.eval_inner_steps=3", "test_tasks=30", "engine=loop")
    assert code == 0, err
    assert "2-way 9-shot" in out
    assert re.search(r"trained on +tabular 2-way 5-shot", out)
    assert not RunDir(next(Path("run/eval").glob("*/*"))).holds_run, "an evaluation cannot be resumed into a run"
    summary = json.loads(next(Path("run/eval").glob("*/*/summary.json")).read_text())
    assert len(summary["test"]["accuracy"]["by_step"]) == 4
    assert summary["test"]["accuracy"]["tasks"] == 30
    assert {path: path.read_bytes() for path in before} == before, "the run stays as it was"
    (evaluated,) = Path("run/eval").glob("*/*")
    trained = json.loads((evaluated / "summary.json").read_text())["trained"]
    assert trained["source"]["shots"] == 5, "facts of training that differ from those of the test"
    assert trained["inner"]["eval_steps"] == 10
    code, _, err = metarun("eval", "run")
    assert "trained" not in json.loads(sorted(Path("run/eval").glob("*/*/summary.json"))[-1].read_text())
    same = json.loads(sorted(Path("run/eval").glob("*/*/summary.json"))[-1].read_text())
    assert same["test"] == json.loads(Path("run/summary.json").read_text())["test"]
    for words, said in (
        (["algo.inner_steps=3"], "no effect"), (["algo.meta_lr=0.1"], "no effect"), (["algo.meta_optimizer._target_=torch.optim.SGD"], "no effect"),
        (["algo.first_order=true"], "no effect"), (["data.ways=3"], "algo.head=shared"), (["meta_steps=3"], "no effect"), (["data.way=3"], "did you mean ways?"),
        (["algo=fomaml"], "settings of its own"), (["seed=1,2"], "key=value"), (["data.shots=x"], "an integer"), (["seed=${oc.env:HOME}"], "seed"),
    ):  # fmt: skip
        code, _, err = metarun("eval", "run", *words)
        assert code in (2, 4)
        assert said in err
        assert err.count("\n") == 1


def test_words_of_eval_mean_the_same_in_any_order(metarun):
    metarun(*QUICK, "hydra.run.dir=run")
    for words in (["device.threads=1", "device=cpu"], ["device=cpu", "device.threads=1"]):
        assert metarun("eval", "run", *words)[0] == 0
    for config in Path("run/eval").glob("*/*/config.yaml"):
        assert "threads: 1" in config.read_text()


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
    for word in ("data.train_tasks=3", "data.ways=4"):
        code, _, err = metarun("eval", "run", word)
        assert code == 2
        assert "has no effect on meta-testing" in err


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
