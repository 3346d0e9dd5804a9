"""Live loggers: told what metrics.jsonl holds, closed however a run ends, and never the end of one."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.runs import QUICK

from metarun.config.compose import compose
from metarun.errors import SettingError, UsageError
from metarun.run import loggers
from metarun.run.build import build_loggers
from metarun.storage.rundir import RunDir

HERE = "metarun.run.loggers"


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


def test_settings(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(SettingError, match="one of online, offline"):
        loggers.WandB(mode="sometimes")
    for settings, said in (({"experiment": ""}, "a name"), ({"tracking_uri": "runs"}, "http://localhost:5000")):
        with pytest.raises(SettingError, match=said):
            loggers.MLflow(**settings)


def test_tensorboard_reads_what_was_written(metarun):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    code, _, err = metarun(*QUICK, "logger=tensorboard", "hydra.run.dir=run")
    assert code == 0, err
    found = accumulator.EventAccumulator("run/tensorboard")
    found.Reload()
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    expected = [(row["step"], pytest.approx(row["mse"], rel=1e-6)) for row in rows if row["split"] == "val"]
    assert [(event.step, event.value) for event in found.Scalars("val/mse")] == expected


def test_several_loggers_have_places_of_their_own(metarun, told):
    """Hydra writes the settings of one over those of the other where both are chosen by a list."""
    logger = told()
    code, _, err = metarun(*QUICK, "logger=[tensorboard,wandb]", "logger.wandb.mode=never", "hydra.run.dir=run")
    assert (code, "'never' (logger.wandb.mode): expected one of online, offline" in err) == (2, True)
    config = compose([*QUICK, "logger=[tensorboard, wandb]", "logger.wandb.mode=offline"])
    assert (config.logger["tensorboard"]["_target_"], config.logger["wandb"]["mode"]) == (
        f"{HERE}.TensorBoard",
        "offline",
    )
    assert config.fingerprint == compose([*QUICK]).fingerprint
    two = {"first": {"_target_": f"{HERE}.TensorBoard"}, "second": {"_target_": f"{HERE}.TensorBoard"}}
    assert build_loggers(replace(config, logger=two)) == [logger, logger]
    with pytest.raises(UsageError, match=r"1 \(logger.a\): expected a logger by its name"):
        build_loggers(replace(config, logger={"a": 1}))


def test_loggers_are_saved_as_they_were_typed(metarun):
    pytest.importorskip("tensorboard")
    words = ("logger=[tensorboard,mine]", "-cd", "choices", "hydra.run.dir=run")
    Path("choices/logger").mkdir(parents=True)
    Path("choices/logger/mine.yaml").write_text(f"_target_: {HERE}.TensorBoard\n")
    code, _, err = metarun(*QUICK, *words)
    assert code == 0, err
    assert RunDir(Path("run")).overrides() == [*QUICK, words[0]]
    code, _, err = metarun("resume", "run", "meta_steps=5", "logger=null")
    assert code == 0, err
    assert RunDir(Path("run")).config().logger is None


@pytest.mark.slow  # the store makes its tables one by one
def test_mlflow_has_the_values_and_a_run_that_goes_on_is_one_run(metarun):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    words = ("logger=mlflow", "logger.tracking_uri=sqlite:///runs.db", "hydra.run.dir=run")
    for more in (("budget=0.5", *words), ("algo.meta_lr=1e20", *words[:2], "hydra.run.dir=bad")):
        metarun(*QUICK, *more)
    code, _, err = metarun("resume", "run", "budget=1")
    assert code == 0, err
    client = mlflow.MlflowClient("sqlite:///runs.db")
    found = client.search_runs([client.get_experiment_by_name("metarun").experiment_id], order_by=["status DESC"])
    assert [run.info.status for run in found] == ["FINISHED", "FAILED"]
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    for split in ("train", "val", "test"):
        history = client.get_metric_history(found[0].info.run_id, f"{split}/mse")
        assert [event.value for event in history][-1:] == [row["mse"] for row in rows if row["split"] == split][-1:]
    steps = [event.step for event in client.get_metric_history(found[0].info.run_id, "train/loss")]
    assert steps == [1, 2, 3, 4]
    assert found[0].data.params["algo.inner_lr"] == "0.01"
    assert (found[0].data.params["budget"], found[0].data.tags["resumed.budget"]) == ("0.5", "1.0")


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
