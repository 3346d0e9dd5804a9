"""Live loggers: told what metrics.jsonl holds, closed however a run ends, and never the end of one."""

import importlib.util
import json
from pathlib import Path

import pytest
from helpers.runs import QUICK

from metarun.engine import loop
from metarun.errors import DivergedError, SettingError
from metarun.run import loggers


class Told:
    """Remembers; fails where it is asked to."""

    def __init__(self, fails=""):
        self.fails, self.events = fails, []

    def _do(self, *event):
        self.events.append(event)
        if event[0] == self.fails:
            raise ConnectionError("no route\nto host")

    def open(self, folder, title, config, step):
        self._do("open", title, step)

    def log(self, step, values):
        self._do("log", step, values)

    def close(self, failed):
        self._do("close", failed)


@pytest.fixture
def told(monkeypatch):
    """Runs whose logger is one of these."""

    def use(**settings):
        logger = Told(**settings)
        monkeypatch.setattr(
            loggers,
            "TensorBoard",
            type("TensorBoard", (), {"__new__": lambda cls: logger, "__module__": "metarun.run.loggers"}),
        )
        return logger

    return use


def test_a_logger_is_told_every_event_and_closed(metarun, told):
    logger = told()
    code, _, err = metarun(*QUICK, "logger=tensorboard", "hydra.run.dir=run")
    assert code == 0, err
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert logger.events[0] == ("open", "MAML on sinusoid 10-shot regression (queries: 10)", 0)
    assert logger.events[-1] == ("close", False)
    logged = [
        (next(iter(values)).partition("/")[0], values.get("val/mse", values.get("train/mse", values.get("test/mse"))))
        for _, _, values in logger.events[1:-1]
    ]
    assert logged == [(row["split"], row["mse"]) for row in rows]
    steps = [step for _, step, _ in logger.events[1:-1]]
    assert steps == sorted(steps), "loggers drop what goes back"


def test_a_run_that_goes_on_says_from_where_and_changes_nothing_else(metarun, told):
    metarun(*QUICK, "hydra.run.dir=whole")
    logger = told()
    metarun(*QUICK, "budget=0.5", "hydra.run.dir=run")
    code, _, err = metarun("resume", "run", "budget=1", "logger=tensorboard")
    assert code == 0, err
    assert logger.events[0][2] == 2
    assert "logger" not in err, "it costs no digits, so that there is nothing to warn of"
    assert Path("run/metrics.jsonl").read_text() == Path("whole/metrics.jsonl").read_text()


@pytest.mark.parametrize("fails", ["open", "log", "close"])
def test_a_logger_that_fails_does_not_end_the_run(metarun, told, fails):
    logger = told(fails=fails)
    code, out, err = metarun(*QUICK, "logger=tensorboard", "hydra.run.dir=run")
    assert code == 0, err
    assert "test          mse" in out
    assert err.count("no route to host") == 1
    assert sum(event[0] == fails for event in logger.events) == 1


def test_a_run_that_fails_closes_its_logger(metarun, told):
    logger = told()
    assert metarun(*QUICK, "logger=tensorboard", "algo.meta_lr=1e20", "hydra.run.dir=run")[0] == 5
    assert logger.events[-1] == ("close", True)


def test_a_missing_package_is_named_before_there_is_a_directory(metarun, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = metarun(*QUICK, "logger=wandb")
    assert code == 2
    assert "pip install 'metarun[wandb]'" in err
    assert not list(Path().iterdir())


def test_settings():
    with pytest.raises(SettingError, match="one of online, offline"):
        loggers.WandB(mode="sometimes")


def test_tensorboard_reads_what_was_written(metarun):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    code, _, err = metarun(*QUICK, "logger=tensorboard", "hydra.run.dir=run")
    assert code == 0, err
    found = accumulator.EventAccumulator("run/tensorboard")
    found.Reload()
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    expected = [(row["step"], pytest.approx(row["mse"], rel=1e-6)) for row in rows if row["split"] == "val"]
    assert [(event.step, event.value) for event in found.Scalars("val/mse")] == expected


def test_a_sweep_closes_each_logger(metarun):
    pytest.importorskip("tensorboard")
    assert metarun("-m", *QUICK, "logger=tensorboard", "seed=0,1", "hydra.sweep.dir=sweep")[0] == 0
    assert len(list(Path("sweep").glob("*/tensorboard/events*"))) == 2


@pytest.mark.slow
def test_weights_and_biases_offline(metarun):
    pytest.importorskip("wandb")
    code, _, err = metarun(*QUICK, "logger=wandb", "logger.mode=offline", "hydra.run.dir=run")
    assert code == 0, err
    assert list(Path("run/wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["objective=test"], ["'test' (objective)", "expected val"]),
        (["hydra.sweeper.n_trials=0"], ["0 (hydra.sweeper.n_trials)", "at least 1"]),
        (["algo.inner_lr=0.01"], ["nothing to choose", "interval"]),
        (["algo.inner_lr=interval(1,0.1)"], ["'algo.inner_lr=interval(1,0.1)'", "interval(LESS,MORE)"]),
        (["algo.iner_lr=interval(0.1,1)", "algo.inner_lr=0.1"], ["'algo.iner_lr'", "did you mean inner_lr?"]),
        (["hydra.sweeper.max_failure_rate=2"], ["2", "hydra.sweeper.max_failure_rate", "from 0 to 1"]),
        (["hydra.sweeper.storage=nonsense"], ["hydra.sweeper.storage", "sqlite:///study.db"]),
        (["hydra.sweeper.storage=sqlite:////nowhere/at/all.db"], ["hydra.sweeper.storage", "a folder that is there"]),
    ],
)
def test_a_search_that_cannot_be_is_refused(metarun, words, names):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    rate = [] if any("inner_lr" in word for word in words) else ["algo.inner_lr=choice(0.01,0.1)"]
    code, _, err = metarun("-m", "sweep=optuna", *rate, *QUICK, *words)
    assert code == 2, err
    assert all(name in err.splitlines()[-1] for name in names), err


def test_a_search_goes_on_after_runs_that_fail_and_is_judged_by_validation(metarun):
    """Of four trials those with a large inner rate have no finite validation. The sampler's seed draws some of each."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ("sweep=optuna", "algo.inner_lr=choice(0.01,1000)", "seed=choice(0,1)", *QUICK)
    search = ("hydra.sweeper.n_trials=4", "hydra.sweep.dir=study", "hydra.sweeper.storage=sqlite:///study.db")
    code, out, err = metarun("-m", *words, *search, "hydra.sweeper.sampler.seed=0")
    assert code == 1, err
    assert "failed" in out
    assert "test mse" in out
    text = Path("study/optimization_results.yaml").read_text()
    best = float(text.split("best_value:")[1].split()[0])
    summaries = [json.loads(path.read_text()) for path in Path("study").glob("*/summary.json")]
    assert best == min(summary["val"]["mse"]["mean"] for summary in summaries)
    assert "algo.inner_lr: 0.01" in text
    assert Path("study.db").stat().st_size > 0


def test_a_search_does_not_see_that_a_test_diverged(metarun, monkeypatch):
    """The best of two rates by validation has no finite test: it is the best all the same."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    real = loop.meta_test

    def meta_test(experiment, meta, split, *rest):
        if split == "test" and experiment.algorithm.inner_lr == 0.01:
            raise DivergedError("the metric of test task 3 is not finite")
        return real(experiment, meta, split, *rest)

    monkeypatch.setattr(loop, "meta_test", meta_test)
    search = ("hydra.sweeper.n_trials=6", "hydra.sweeper.sampler.seed=0", "hydra.sweep.dir=study")
    code, _, err = metarun("-m", "sweep=optuna", "algo.inner_lr=choice(0.01,1e-9)", *search, *QUICK)
    assert code == 1, err
    rows = [
        json.loads(line) for path in Path("study").glob("*/metrics.jsonl") for line in path.read_text().splitlines()
    ]
    text = Path("study/optimization_results.yaml").read_text()
    assert float(text.split("best_value:")[1].split()[0]) == min(row["mse"] for row in rows if row["split"] == "val")
    assert "algo.inner_lr: 0.01" in text
