"""Searches: their direction, what they refuse, their seeds, their pruners, their studies, their closing words."""

import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.runs import QUICK

from metarun.commands.search_words import describe_search
from metarun.commands.study import open_study
from metarun.config.folders import ConfigFolders
from metarun.engine import loop
from metarun.errors import DivergedError

optuna = pytest.importorskip("optuna")
pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
QUICK = (*QUICK, "meta_batch=2")
RATE = "algo.inner_lr=choice(0.01,0.1)"
INSIDE = "hydra.sweep.dir=study"


def seeded(trials):
    return (f"hydra.sweeper.n_trials={trials}", "hydra.sweeper.sampler.seed=0", INSIDE)


def best():
    text = Path("study/optimization_results.yaml").read_text()
    return float(text.split("best_value:")[1].split()[0]), text


def study(name="metarun", path="study.db"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{path}")


SOURCE = """# @package _global_
defaults: [{/model: mlp}, _self_]
data:
  _target_: labels.Labels
suggested: {inner_lr: 0.1, inner_steps: 1, eval_inner_steps: 2}
"""
LABELS = """
from metarun.data.tabular import Tabular

class Labels(Tabular):
    def __init__(self):
        super().__init__(features=4, ways=2, shots=2, queries=3)
"""


@pytest.fixture
def own_source(tmp_path, monkeypatch):
    """A task source of the user's own, in classes, that says nothing of a direction: the words for it."""
    (tmp_path / "mine/data").mkdir(parents=True)
    (tmp_path / "mine/data/labels.yaml").write_text(SOURCE)
    (tmp_path / "labels.py").write_text(LABELS)
    monkeypatch.setenv("METARUN_TRUST", "labels")
    yield ["-cd", "mine"]
    sys.modules.pop("labels", None)


@pytest.mark.parametrize(
    ("words", "sign"),
    [
        ([], 1),
        (["data=choice(tabular,labels)"], -1),
        (["data=labels", "hydra.sweeper.direction=maximize", "hydra/sweeper=optuna"], -1),
    ],
)
def test_a_search_goes_the_way_of_the_metric_of_what_its_trials_run(metarun, own_source, words, sign):
    """The default source, whose error is minimised, is none of theirs."""
    sweep = [] if "hydra/sweeper=optuna" in words else ["sweep=optuna"]
    code, out, err = metarun("-m", *own_source, *sweep, "algo.inner_lr=interval(0.01,0.05)", *words, *QUICK, *seeded(3))
    assert code == 0, err
    values = [json.loads(path.read_text()) for path in Path("study").rglob("summary.json")]
    metric = "mse" if sign > 0 else "accuracy"
    values = [summary["val"][metric]["mean"] for summary in values]
    assert len(values) == 3
    assert best()[0] == sign * min(sign * value for value in values)
    assert ("largest first", "smallest first")[sign > 0] in out


def test_a_study_that_was_only_checked_has_no_direction(tmp_path):
    words = {"storage": f"sqlite:///{tmp_path / 'study.db'}", "name": "s", "settings": {}, "space": {}}
    open_study(metric="mse", direction="minimize", **words)
    assert open_study(metric="accuracy", direction="maximize", **words).direction.name == "MAXIMIZE"


def test_trials_have_the_words_that_were_checked(metarun, own_source):
    """1e0 is an integer of a key that takes them, null chooses no file, and letters may be foreign."""
    words = ["meta_steps=4e0", "algo.inner_steps=choice(1e0,2e0)", "experiment=null", "hydra.sweep.dir=étude"]
    code, out, err = metarun("-m", "sweep=optuna", *words, *(w for w in QUICK if "meta_steps" not in w), *seeded(2)[:2])
    assert code == 0, err
    assert "2 trials: 2 finished" in out
    assert len(list(Path("étude").rglob("summary.json"))) == 2


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["algo.inner_lr=0.1"], ["'sweep=optuna'", "nothing to choose", "interval(LESS,MORE)"]),
        (["++seed=interval(0,9)"], ["a search chooses no seed", "seed=0,1,2"]),
        (["seed=interval(0,9)"], ["a search chooses no seed", "seed=0,1,2"]),
        (["objective=test"], ["'test' (objective)", "expected val"]),
        (["data=choice(sinusoid,tabular)"], ["accuracy and mse (metric)", "one metric"]),
        (["hydra.sweeper.direction=maximize"], ["maximize (hydra.sweeper.direction)", "expected minimize"]),
        (["hydra.sweeper.direction=[minimize,maximize]"], ["(hydra.sweeper.direction)", "the one direction"]),
        (["algo.inner_lr=interval(1,0.1)"], ["'algo.inner_lr=interval(1,0.1)'", "the smaller first"]),
        (["algo.inner_lr=tag(log,interval(0,0.1))"], ["0 has no logarithm"]),
        (["algo.inner_lr=tag(logg,interval(0.1,1))"], ["no tag but log"]),
        (["algo.inner_lr=range(3,1)"], ["gives no value"]),
        (
            ["algo.inner_lr=0.1,0.2", "seed=0,1", "zip=[algo.inner_lr,seed]"],
            ["zip (command line): expected none in a search"],
        ),
        (["algo.inner_lr=interval(-1,1)"], ["-1 (algo.inner_lr)"]),
        (["algo.inner_steps=interval(1,2.5)"], ["2.5 (algo.inner_steps)", "integer"]),
        (["algo.iner_lr=interval(0.1,1)", "algo.inner_lr=0.1"], ["'algo.iner_lr'", "did you mean inner_lr?"]),
        (["data=choice(sinusoid,sinusoids)"], ["'sinusoids' (data)"]),
        (["model.hidden=choice([8],[0])"], ["(model.hidden"]),
        (["hydra.sweeper.n_trials=many"], ["n_trials=many", "Integer"]),
        (["hydra.sweeper.n_trials=0"], ["0 (hydra.sweeper.n_trials)", "at least 1"]),
        (["hydra.sweeper.n_jobs=2"], ["2 (hydra.sweeper.n_jobs)", "hydra/launcher=joblib"]),
        (["hydra.sweeper.max_failure_rate=1.5"], ["1.5 (hydra.sweeper.max_failure_rate)"]),
        (["hydra/sweeper/sampler=tpee"], ["'tpee'", "tpe"]),
        (["hydra/sweeper/pruner=best"], ["'best'", "median"]),
        (["hydra.sweeper.pruner=median"], ["hydra/sweeper/pruner=NAME"]),
        (["algo.inner_lr=interval(0.1,1)", "hydra/sweeper/sampler=grid"], ["algo.inner_lr", "choice(A,B)"]),
        (["hydra.sweeper.search_space={x:1}"], ["hydra.sweeper.search_space", "hydra.sweeper.params"]),
        (["hydra.sweeper.custom_search_space=os.getcwd"], ["'os.getcwd'", "METARUN_TRUST"]),
        (["hydra.sweeper.custom_search_space=metarun.errors.UsageError"], ["expected a function that"]),
        (["hydra.sweeper.storage=nonsense"], ["nonsense", "expected settings that work"]),
        (
            ["hydra.sweeper.storage=sqlite:////nowhere/at/all.db"],
            ["unable to open database file", "expected settings that work"],
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_its_first_run(metarun, words, names):
    rate = [] if any("inner_lr" in word for word in words) else [RATE]
    hidden = QUICK if not any("hidden" in word for word in words) else QUICK[:5] + QUICK[6:]
    code, _, err = metarun("-m", "sweep=optuna", *rate, *hidden, *words)
    assert (code, err.count("\n")) == (2, 1), err
    assert all(name in err for name in names), err
    assert not Path("outputs").exists()


@pytest.mark.slow
def test_a_search_goes_on_after_runs_that_fail_and_is_judged_by_the_mean_over_seeds(metarun):
    """Runs with a large inner rate have no finite validation. The sampler's seed draws some of each."""
    words = ("sweep=optuna", "algo.inner_lr=choice(0.01,0.02,1000)", "seed=0,1", *QUICK)
    code, out, err = metarun("-m", *words, *seeded(4), "hydra.sweeper.storage=sqlite:///study.db")
    assert code == 1, err
    values = {}
    for path in Path("study").glob("*/summary.json"):
        values.setdefault(path.parent.name.split(",")[0], []).append(json.loads(path.read_text())["val"]["mse"]["mean"])
    assert all(len(seeds) == 2 for seeds in values.values()), "every trial has both seeds"
    means = {name: sum(seeds) / 2 for name, seeds in values.items()}
    value, text = best()
    assert value == pytest.approx(min(means.values()), rel=1e-12)
    assert min(means, key=means.get).replace("=", ": ") in text.replace("'", "")
    ends = [trial.user_attrs.get("end") for trial in study().trials]
    assert len(ends) == 4
    assert 0 < ends.count("failed") < 4
    assert f"{ends.count('failed')} failed, {ends.count(None)} finished" in out
    assert "the mean over 2 seeds" in out
    assert not list(Path("study").glob("*1000*seed=1*")), "a failed seed is a failed trial"


def test_a_search_does_not_see_that_a_test_diverged(metarun, monkeypatch):
    """The best of two rates by validation has no finite test: it is the best all the same."""
    real = loop.meta_test

    def meta_test(experiment, meta, split, *rest):
        if split == "test" and experiment.algorithm.inner_lr == 0.01:
            raise DivergedError("the metric of test task 3 is not finite")
        return real(experiment, meta, split, *rest)

    monkeypatch.setattr(loop, "meta_test", meta_test)
    code, out, err = metarun("-m", "sweep=optuna", "algo.inner_lr=choice(0.01,1e-9)", *seeded(4), *QUICK)
    assert code == 1, err
    rows = [
        json.loads(line) for path in Path("study").glob("*/metrics.jsonl") for line in path.read_text().splitlines()
    ]
    assert best()[0] == min(row["mse"] for row in rows if row["split"] == "val")
    assert "algo.inner_lr: '0.01'" in best()[1]
    assert "test          none in study" in out


@pytest.mark.slow
def test_too_many_failures_end_a_search(metarun):
    words = ("-m", "sweep=optuna", "algo.inner_lr=choice(1000,2000)", *QUICK, INSIDE)
    code, out, err = metarun(*words, "hydra.sweeper.n_trials=8", "hydra.sweeper.max_failure_rate=0.25")
    assert code == 1
    assert "3 trials failed (hydra.sweeper.max_failure_rate): expected at most 0.25 of 8" in err.splitlines()[-1]
    assert "search, 3 trials: 3 failed" in out
    assert "best" not in out


PRUNING = ("hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=1")


def test_a_pruned_run_is_stopped_has_no_result_and_goes_on_by_hand(metarun, monkeypatch):
    """Validations by rate: what the pruner is given is known, so is what it has to do."""
    real = loop.meta_test

    def meta_test(experiment, meta, split, *rest):
        result = real(experiment, meta, split, *rest)
        return result._replace(mean=[experiment.algorithm.inner_lr]) if split == "val" else result

    monkeypatch.setattr(loop, "meta_test", meta_test)
    random.seed(1)  # the order of a grid
    code, out, err = metarun(
        *("-m", "sweep=optuna", "algo.inner_lr=0.001,0.003,0.002,0.004", *QUICK, *PRUNING, INSIDE),
        "hydra/sweeper/sampler=grid",
    )
    assert code == 0, err
    trials = study(path="study/study.db").trials
    for number, trial in enumerate(trials):
        mine = float(trial.params["algo.inner_lr"])
        done = sorted(float(t.params["algo.inner_lr"]) for t in trials[:number] if t.state.name == "COMPLETE")
        median = done and (done[(len(done) - 1) // 2] + done[len(done) // 2]) / 2
        assert trial.state.name == ("PRUNED" if number and mine > median else "COMPLETE")
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert 0 < len(pruned) < 3
    assert f"{len(pruned)} pruned" in out
    run = Path(pruned[0].user_attrs["folders"][0])
    status = json.loads((run / "status.json").read_text())
    assert (status["status"], status["step"]) == ("stopped", 2)
    assert status["error"].startswith("pruned after outer step 2 of 4, with val mse ")
    code, out, _ = metarun("table", "study", "format=csv")
    assert len(out.splitlines()) == 1 + len(trials) - len(pruned)
    assert metarun("resume", str(run))[0] == 0
    assert json.loads((run / "status.json").read_text())["status"] == "done"


@pytest.mark.slow
def test_runs_of_several_processes_are_pruned_by_each_other(metarun):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ("-m", "sweep=optuna", "algo.inner_lr=interval(1e-4,0.1)", *QUICK, *PRUNING, *seeded(8))
    code, out, err = metarun(*words, "hydra/launcher=joblib", "hydra.sweeper.n_jobs=2", "seed=0,1")
    assert code == 0, err
    ends = [trial.state.name for trial in study(path="study/study.db").trials]
    assert set(ends) == {"COMPLETE", "PRUNED"}
    assert f"search, 8 trials: {ends.count('COMPLETE')} finished, {ends.count('PRUNED')} pruned" in out


@pytest.mark.slow
def test_a_study_goes_on_with_the_same_command_and_no_other(metarun, monkeypatch):
    words = ("-m", "sweep=optuna", RATE, *QUICK, "hydra.sweeper.storage=sqlite:///study.db", *seeded(2))
    others = [word.replace("meta_batch=2", "meta_batch=3") for word in words]
    assert metarun("check", *others)[0] == 0, "which begins no study of these settings"
    assert metarun(*words)[0] == 0
    train = loop.meta_train

    def stopping(*args):
        for report in train(*args):
            os.kill(os.getpid(), signal.SIGINT)
            yield report

    monkeypatch.setattr(loop, "meta_train", stopping)
    shutil.rmtree("study")
    code, out, err = metarun(*words)
    assert code == 130
    assert "search, 3 trials: 2 finished, 1 stopped" in out
    assert "for more trials of this study repeat the command" in err.splitlines()[-1]
    monkeypatch.setattr(loop, "meta_train", train)
    study().ask()  # as a process leaves it that is killed
    code, out, err = metarun(*words)
    assert code == 0, err
    assert "search, 6 trials: 4 finished, 1 stopped, 1 unfinished" in out
    for other, rule in {
        "data=tabular": "has mse to minimize; expected accuracy to maximize",
        "meta_batch=3": "was begun with meta_batch=2",
        "seed=1,2": "was begun with seed=0",
        "seed=5": "was begun with seed=0",
        "algo.inner_lr=choice(0.1,0.2)": "chose algo.inner_lr from something else",
    }.items():
        key = other.partition("=")[0]
        code, _, err = metarun(*(word for word in words if not word.startswith(f"{key}=")), other)
        assert (code, rule in err, "hydra.sweeper.study_name=NAME" in err) == (2, True, True), err


@pytest.mark.slow
def test_a_grid_has_each_value_once_and_a_range_ends_before_its_end(metarun):
    words = ("sweep=optuna", "algo.inner_steps=range(1,3)", "algo.inner_lr=0.01,0.02", "hydra/sweeper/sampler=grid")
    code, out, err = metarun("-m", *words, *QUICK, INSIDE)
    assert code == 0, err
    assert "search, 4 trials: 4 finished" in out
    steps = [path.name.split("algo.inner_steps=")[1][0] for path in Path("study").glob("*inner_steps=*")]
    assert sorted(steps) == ["1", "1", "2", "2"]


@pytest.mark.slow
def test_a_function_of_the_users_chooses_too_once_it_is_trusted(metarun, tmp_path, monkeypatch):
    (tmp_path / "space.py").write_text(
        "def extend(config, trial):\n    trial.suggest_float('algo.inner_lr', 0.01, 0.1)\n"
        "def other(config, trial):\n    trial.suggest_categorical('data', ['tabular'])\n"
    )
    words = ("-m", "sweep=optuna", *QUICK, *seeded(2))
    assert metarun(*words, "hydra.sweeper.custom_search_space=space.extend")[0] == 2
    monkeypatch.setenv("METARUN_TRUST", "space")
    try:
        code, out, err = metarun(*words, "hydra.sweeper.custom_search_space=space.extend")
        assert code == 0, err
        assert out.count("algo.inner_lr=0.0") >= 2
        code, _, err = metarun(*words, "hydra.sweeper.custom_search_space=space.other")
        assert code == 2
        assert "accuracy (data=tabular): expected mse" in err.splitlines()[-1]
    finally:
        sys.modules.pop("space", None)


def test_a_hundred_trials_end_in_few_lines(tmp_path):
    """The best first, for an accuracy the largest; of those that failed the first."""
    made = optuna.create_study(direction="maximize")
    for number in range(100):
        state = optuna.trial.TrialState.COMPLETE if number % 10 else optuna.trial.TrialState.FAIL
        value = {"value": number / 100} if number % 10 else {}
        rate = optuna.distributions.UniformDistribution(0, 100)
        attrs = {"folders": [str(tmp_path / f"run{number}")]}
        facts = {"params": {"rate": number + 0.01234567}, "distributions": {"rate": rate}, "user_attrs": attrs}
        made.add_trial(optuna.trial.create_trial(state=state, **value, **facts))
    search = SimpleNamespace(study=made, direction="maximize", metric="accuracy", seeds=[["seed=0"], ["seed=2"]])
    search.fixed, search.folders = ["x=1", "++y='a b'", "budget=0.1", "sweep=optuna"], ConfigFolders()
    failed = [{"words": ["rate=0", *search.fixed], "folder": "", "error": "no number"}] * 10
    lines = describe_search(search, tmp_path, failed).splitlines()
    assert lines[1] == "search, 100 trials: 10 failed, 90 finished"
    assert lines[2] == "the best by validation accuracy, the mean over 2 seeds, largest first:"
    assert [line.split() for line in lines[3:9]] == [
        *([f"{number}.0", "%", f"rate={number}.01"] for number in (99, 98, 97, 96, 95)),
        ["and", "85", "more"],
    ]
    assert "10 jobs, the first rate=0: no number" in lines[9]
    assert lines[10] == "best trial    rate=99.01  val accuracy 99.0 %"
    assert str(tmp_path / "run99") in lines[12]
    assert lines[13] == "full run      metarun -m seed=0,2 x=1 'y='\"'\"'a b'\"'\"'' rate=99.01234567"
    assert len(lines) == 15
