"""Removing a run: all that is metarun's, and nothing else."""

import os
import shutil
from pathlib import Path

import pytest
from helpers.disk import Disk, PowerCut
from helpers.listed import make_run

from metarun.results.listing import list_runs
from metarun.storage.removal import find_contents, remove_run
from metarun.storage.rundir import RunDir


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_run(tmp_path / "outputs/2026-01-31/12-00-00")


def add(run, *names):
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("content")


def test_a_run_of_metarun_goes_without_a_trace(finished, tmp_path):
    """Which files a run makes is seen from one; a new kind of file that is not listed here would stay."""
    run = shutil.copytree(finished, tmp_path / "2026-01-31/run")
    assert find_contents(run).foreign == []
    RunDir(run).write_tags(["good"])
    add(run, "eval/2026-01-31/12-00-00-1/summary.json", "adapt/2026-01-31/12-00-00-1/adapt.html", "tensorboard/a/b")
    (run / "tensorboard/latest").symlink_to(tmp_path)  # as wandb makes them
    add(run, "checkpoints/.step-00000002.pt.tmp", ".status.json.tmp")
    size = sum(path.lstat().st_size for path in run.rglob("*") if path.is_file() or path.is_symlink())
    assert remove_run(run).size == size
    assert list(tmp_path.iterdir()) == [], "the folder of the day is empty too"


@pytest.mark.parametrize(
    "name", ["notes.txt", "checkpoints/mine.pt", "eval/plot.png", ".hydra/mine.yaml", "sub/metrics.jsonl", "eval/a/b/x"]
)
def test_a_foreign_file_stays_with_its_folder(run, name):
    add(run, name)
    assert remove_run(run).foreign == [run / name]
    assert [path for path in run.rglob("*") if path.is_file()] == [run / name]


def test_links_stay_and_what_they_lead_to(run, tmp_path):
    add(tmp_path / "far", "step-00000001.pt", "metrics.jsonl")
    (run / "checkpoints").symlink_to(tmp_path / "far")
    (run / "metrics.jsonl").symlink_to(tmp_path / "far/metrics.jsonl")
    assert len(remove_run(run).foreign) == 2
    assert len(list((tmp_path / "far").iterdir())) == 2
    assert os.path.islink(run / "checkpoints")


def test_a_run_that_is_held_is_not_touched(run):
    before = sorted(run.rglob("*"))
    with RunDir(run).claimed(), pytest.raises(BlockingIOError):
        remove_run(run)
    assert sorted(run.rglob("*")) == before


def test_cut_off_at_any_moment_it_is_no_run_and_can_be_removed_again(run, tmp_path, monkeypatch):
    copies = []
    for at in range(len(find_contents(run).made)):
        copy = shutil.copytree(run, tmp_path / "cut" / str(at))
        with monkeypatch.context() as patch, pytest.raises(PowerCut):
            Disk(copy, at=at).install(patch)
            remove_run(copy)
        copies.append(copy)
    for copy in copies[1:]:
        assert not RunDir(copy).holds_run
        assert {found.status for found in list_runs([str(copy)])} <= {"damaged"}
    assert [found.status for found in list_runs([str(copies[0])])] == ["done"], "nothing was gone yet"
    for copy in copies:
        remove_run(copy)
    assert not list(Path(tmp_path / "cut").iterdir())


def test_of_another_program_that_uses_hydra_nothing_goes(tmp_path):
    other = tmp_path / "outputs/2026-01-31/12-00-00"
    add(other, ".hydra/config.yaml", ".hydra/hydra.yaml", "wandb/run/files", "metrics.jsonl", "status.json", "main.log")
    before = sorted(other.rglob("*"))
    assert find_contents(other).made == remove_run(other).made == []
    assert sorted(other.rglob("*")) == before


def test_of_a_run_that_is_gone_no_file_is_made(run):
    shutil.rmtree(run)
    with pytest.raises(FileNotFoundError):
        remove_run(run)
    assert not run.exists()
