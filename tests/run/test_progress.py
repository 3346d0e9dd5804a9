"""The opening words of a run, and its lines."""

import logging
import time
from pathlib import Path

import pytest

from metarun.config.compose import compose
from metarun.run import progress
from metarun.run.build import build_experiment
from metarun.run.progress import Announcement, Progress
from metarun.storage.records import Position


@pytest.fixture
def said(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("metarun"), "propagate", True)
    caplog.set_level(logging.INFO, "metarun")
    return caplog


def test_the_opening_words_need_no_data(said):
    """Where omniglot lies nobody has looked yet."""
    config = compose(["data=omniglot", "meta_steps=600", "device.threads=1", "data.root=/nowhere"])
    with Announcement() as words:
        words.begin(config, Path("outputs/x"), build_experiment(config))
    assert said.messages == ["MAML on omniglot 5-way 1-shot, 600 outer steps of 32 tasks, cpu (1 thread), in outputs/x"]


def test_the_opening_words_of_a_floor_promise_no_training(said):
    with Announcement() as words:
        words.begin(
            config := compose(["algo=scratch", "device.threads=1"]), Path("outputs/x"), build_experiment(config)
        )
    assert said.messages[0].endswith("regression, without meta-training, cpu (1 thread), in outputs/x")


def test_what_is_refused_at_once_is_not_announced_and_what_takes_long_is(said, monkeypatch):
    monkeypatch.setattr(progress, "_opening_words", lambda *_: "it begins")
    with pytest.raises(ValueError, match="no data"), Announcement() as words:
        words.begin(None, None, None)
        raise ValueError("no data")
    with Announcement():
        pass  # nothing was there to begin
    assert not said.messages
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    with pytest.raises(ValueError, match="no data"), Announcement() as words:
        words.begin(None, None, None)
        deadline = time.monotonic() + 10
        while not said.messages and time.monotonic() < deadline:
            time.sleep(0.001)
        raise ValueError("no data")
    assert said.messages == ["it begins"]


def test_a_line_has_what_is_known_and_the_console_only_where_it_is_to(said):
    known = Position(doing="validating", loss=1.23456, metric="accuracy", validation=0.5, seconds_left=200.0)
    for aloud in (True, False):
        lines = Progress(600, 0, aloud)
        lines.say(120, known)
        lines.say(0, Position(doing="compiling"))
        lines.close(known)
    assert said.messages[:2] == [
        "outer step 120 of 600, validating: loss 1.235, val accuracy 50.0 %, 3 min 20 s left",
        "outer step 0 of 600, compiling",
    ]
    assert [record.aloud for record in said.records] == [True, True, False, False]
