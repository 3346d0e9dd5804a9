"""Runs of any status as they are listed: which is which, and that nothing ends the listing."""

import os
import re
import shutil
import time
from pathlib import Path

import pytest
from helpers.listed import make_run, summary_of
from helpers.results import edit

from metarun.config.saved import dump, read_choices
from metarun.results import listing
from metarun.results.listing import list_runs, read_listed
from metarun.storage.records import Environment, Position, Session
from metarun.storage.rundir import RunDir


def test_a_run_of_metarun_is_listed_as_it_is(finished):
    found = read_listed(finished)
    summary = RunDir(finished).summary()
    assert (found.status, found.algorithm, found.source, found.step, found.steps) == ("done", "maml", "sinusoid", 4, 4)
    assert (found.test, found.validation) == (summary.test.mean, summary.validation.mean)
    assert found.differs["meta_steps"] == "4"
    assert found.differs["model.hidden"] == "[8]"
    assert 0 < time.time() - found.began < 3600
    assert list(found.differs) == [word.partition("=")[0] for word in RunDir(finished).overrides()]


def test_newest_first_each_once_and_no_evaluations():
    for name, age in (("runs/old", 900), ("runs/a/new", 10), ("runs/middle", 60)):
        make_run(name, age=age)
    evaluation = Path("runs/old/eval/2026-01-01/one")
    evaluation.mkdir(parents=True)
    for name in ("config.yaml", "environment.json"):
        (evaluation / name).write_text("{}")
    runs = list_runs(["runs", "runs/old", "nowhere", str(Path("runs").resolve())])
    assert [run.folder for run in runs] == ["runs/a/new", "runs/middle", "runs/old"]
    assert [run.evaluations for run in runs] == [0, 0, 1]
    assert list_runs(["runs/old/eval"]) == []


def test_what_ran_and_how_it_ended():
    make_run("run", "failed", step=7, error="DivergedError: nan", words=["algo=fomaml", "+algo.inner_lr=0.4", "seed=3"])
    found = read_listed(Path("run"))
    assert (found.status, found.step, found.steps, found.reason) == ("failed", 7, 50, "DivergedError: nan")
    assert found.differs == {"algo.inner_lr": "0.4", "seed": "3"}
    assert found.test is None


def test_running_and_stale_ones_are_told_apart_by_their_process():
    position = Position(updated=time.time(), seconds_left=30.0, metric="accuracy", validation=0.5)
    make_run("here", "running", step=5, position=position)
    make_run("gone", "running", step=5, position=position, pid=2**30, host=os.uname().nodename)
    here, gone = read_listed(Path("here")), read_listed(Path("gone"))
    assert (here.status, here.seconds_left, here.position, here.validation) == ("running", 30.0, position, 0.5)
    assert (gone.status, gone.seconds_left, gone.position) == ("stale", None, None)
    assert str(2**30) in gone.reason


def test_a_run_whose_status_a_power_cut_has_emptied_can_go_on():
    """Nobody waits for the disk each two seconds; damaged ones are what metarun rm is offered for."""
    run = make_run("run", "running")
    (run / "status.json").write_bytes(b"")
    assert read_listed(run).status == "damaged", "it had hardly begun"
    (run / "checkpoints").mkdir()
    (run / "checkpoints/step-00000020.json").touch()
    found = read_listed(run)
    assert (found.status, found.step, found.steps) == ("stale", 20, 50)


@pytest.mark.parametrize("updated", [-1e300, 1e300])
def test_a_time_that_no_calendar_has_does_not_end_the_listing(updated):
    """It may be a stranger's, or one of a damaged clock."""
    make_run("good")
    run = make_run("odd", "running", pid=2**30)
    edit(run, "status.json", lambda status: status.update(position={"updated": updated}))
    assert {found.folder: found.status for found in list_runs(["."])} == {"good": "done", "odd": "damaged"}
    edit(run, "status.json", lambda status: status.pop("position"))
    os.utime(run / "status.json", (0, 2**34))
    assert read_listed(run).status == "stale"


def test_no_lock_is_taken_and_nothing_is_written():
    """A reader that held the directory would have a run refused that starts at that moment."""
    run = make_run("run", "running", position=Position(updated=time.time()))
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    with RunDir(run).claimed():
        assert read_listed(run).status == "running"
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == before


@pytest.mark.parametrize("name", ["status.json", "summary.json", "environment.json", ".hydra/overrides.yaml"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"status": "won"}', None])
def test_a_damaged_file_makes_a_row_with_its_reason(name, content):
    run = make_run("runs/a")
    make_run("runs/b", age=10)
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)
    first, second = list_runs(["runs"])
    assert second.status == "done"
    if (content is None and name not in ("status.json", "summary.json")) or (
        name == "environment.json" and content == b'{"status": "won"}'
    ):
        assert first.status == "done"  # an older run has none
    elif not content and name == "status.json":
        assert first.status == "done"  # a summary is written by a run that ends; a power cut leaves an empty file
    elif (content, name) == (b"[]", ".hydra/overrides.yaml"):
        assert first.differs == {}  # a run without words has that
    else:
        assert first.status == "damaged"
        assert name in first.reason
        assert "\n" not in first.reason
        assert first.algorithm == "maml"


def test_a_pipe_a_link_and_a_shut_folder_stop_nothing(monkeypatch):
    for name in ("pipe", "link", "log"):
        make_run(f"runs/{name}")
    Path("runs/pipe/status.json").unlink()
    os.mkfifo("runs/pipe/status.json")
    Path("runs/link/status.json").unlink()
    Path("runs/link/status.json").symlink_to("../log/status.json")
    Path("runs/log/metarun.log").unlink()
    os.mkfifo("runs/log/metarun.log")
    found = {run.folder: run for run in list_runs(["runs"])}
    assert [found[f"runs/{name}"].status for name in ("pipe", "link", "log")] == ["damaged", "damaged", "done"]
    assert found["runs/log"].began is not None


def test_names_that_are_no_text_can_be_listed():
    run = make_run(os.fsdecode(b"runs/\xff"))
    assert [found.folder for found in list_runs(["runs"])] == ["runs/\ufffd"]
    (run / "status.json").write_text("{")
    assert [found.status for found in list_runs(["runs"])] == ["damaged"]


def test_what_was_changed_when_it_went_on_differs_too(finished):
    shutil.copytree(finished, "run")
    environment = RunDir(Path("run")).environment()
    later = environment.model_copy(update={"continued": [Session(changed=["meta_steps"])]})
    Path("run/environment.json").write_bytes(Environment.model_validate(later.model_dump()).to_json())
    edit("run", ".hydra/config.yaml", lambda config: config.update(meta_steps=9))
    assert read_listed(Path("run")).differs["meta_steps"] == "9"


def test_an_older_run_is_known_by_its_config():
    run = make_run("run", "stopped", steps=None)
    (run / ".hydra/choices.yaml").unlink()
    found = read_listed(run)
    assert (found.algorithm, found.source, found.steps) == ("MAML", "", 50)  # half of 100 steps
    for absurd in ("9" * 30, "1e999", "-"):
        (run / ".hydra/config.yaml").write_text(f"meta_steps: {absurd}\nbudget: {absurd}\n")
        assert read_listed(run).steps is None


WORDS = [
    *(["seed=1", "+algo.x=null", "data.root='a b'"], ["a=yes"], ["x=1: 2"], ["x=a #b"], ["x=ä"], [], ["x=[1,2]"]),
    *(["x={a:1}"], ["x='1'", 'y="2"'], ["~algo"], ["logger@x=wandb"], ["hydra.run.dir=x"], ["x=" + "y " * 90]),
]


@pytest.mark.parametrize("words", WORDS)
def test_words_are_those_that_a_yaml_reader_reads(words, monkeypatch):
    """The usual ones are read without it, for speed; whether that is the same is what matters."""
    run = make_run("run")
    (run / ".hydra/overrides.yaml").write_text(dump(words))
    found = read_listed(run).differs
    monkeypatch.setattr(listing, "WORD", re.compile("never"))
    assert read_listed(run).differs == found


@pytest.mark.parametrize(
    "text", ["algo: maml\ndata: true-ish\n", "algo: 'no'\n", "algo: x # y\n", "{algo: maml}", "{}\n"]
)
def test_choices_are_those_that_a_yaml_reader_reads(text):
    run = make_run("run")
    (run / ".hydra/choices.yaml").write_text(text)
    assert listing._read_choices(RunDir(run)) == read_choices(run / ".hydra/choices.yaml")


def test_a_result_that_a_run_has_from_an_earlier_end_is_not_its_result():
    run = make_run("run", "stopped", step=60, steps=100)
    (run / "summary.json").write_bytes(summary_of().to_json())
    assert read_listed(run).test is None
