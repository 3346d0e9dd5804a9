"""Live loggers: told what metrics.jsonl holds, closed however a run ends, and never the end of one."""

import importlib.util
import json
from pathlib import Path

import pytest
from helpers.runs import QUICK

from metarun.errors import SettingError
from metarun.run import loggers

pytestmark = pytest.mark.usefixtures("without_pictures")


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
