"""A run directory: whose it is, and what is refused in one."""

import errno
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from metarun.config.compose import compose
from metarun.errors import RunDirError
from metarun.storage.records import Environment, Status, Tasks
from metarun.storage.rundir import FOLDERS, RunDir


def _sparse(path):
    with open(path, "wb") as file:
        file.truncate(10**11)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("[" * 200_000),
        lambda path: path.write_text("{}"),
        lambda path: path.write_bytes(b"\xff"),
        lambda path: path.symlink_to("/dev/zero"),
        os.mkfifo,
        Path.mkdir,
        _sparse,
    ],
    ids=["deep", "empty", "no text", "a link", "a pipe", "a folder", "huge"],
)
def test_a_file_that_is_no_record_is_refused_with_a_remedy(tmp_path, make):
    rundir = RunDir(tmp_path)
    make(tmp_path / "status.json")
    with pytest.raises(RunDirError, match=r"status.json: cannot be read .*: expected it as metarun wrote it; restore"):
        rundir.status()


def test_a_file_that_is_missing_is_none(tmp_path):
    rundir = RunDir(tmp_path / "not there")
    assert rundir.summary() is rundir.status() is rundir.environment() is rundir.test_tasks() is None
    assert rundir.overrides() == []
    assert rundir.choices() == {}
    assert not rundir.holds_run


def test_a_test_of_a_million_tasks_is_read_back(tmp_path):
    tasks = Tasks(digest="d", each=[0.123456789] * 1_000_000)
    (tmp_path / "test_tasks.json").write_bytes(tasks.to_json())
    assert RunDir(tmp_path).test_tasks() == tasks


def test_status_says_what_is_known(tmp_path):
    rundir = RunDir(tmp_path)
    rundir.write_status("stopped", 3, "SIGTERM")
    assert rundir.status() == Status(
        status="stopped", step=3, error="SIGTERM", pid=os.getpid(), host=os.uname().nodename
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "status.json"]


def test_a_status_that_lost_its_content_with_the_power_is_none(tmp_path):
    """While a run goes on, the disk is not waited for."""
    (tmp_path / "status.json").touch()
    assert RunDir(tmp_path).status() is None


def test_choices_are_stored_or_those_that_were_typed(tmp_path):
    rundir = RunDir(tmp_path)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text(
        "- algo=fomaml\n- seed=3\n- +experiment=a/b\n- algo.inner_lr=1\n"
    )
    assert rundir.choices() == {"algo": "fomaml", "experiment": "a/b"}
    (tmp_path / ".hydra" / "choices.yaml").write_text("algo: maml\ndata: sinusoid\n")
    assert rundir.choices() == {"algo": "maml", "data": "sinusoid"}
    (tmp_path / ".hydra" / "choices.yaml").write_text("algo: [maml]\n")
    with pytest.raises(RunDirError, match="expected a choice for each group"):
        rundir.choices()


@pytest.mark.parametrize("name", FOLDERS)
def test_no_folder_leads_elsewhere(tmp_path, name):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run.mkdir()
    (run / name).symlink_to(elsewhere)
    with pytest.raises(RunDirError, match="is a symbolic link; expected a folder"), RunDir(run).claimed():
        pytest.fail("claimed")


@pytest.mark.parametrize("name", ["status.json", "summary.json", "metarun.log"])
def test_nothing_is_written_through_a_link(tmp_path, name):
    victim, run = tmp_path / "victim", tmp_path / "run"
    victim.write_text("precious")
    run.mkdir()
    (run / name).symlink_to(victim)
    rundir = RunDir(run)
    if name.endswith(".json"):
        rundir.write(name, Status(status="done"))
        assert Status.from_json((run / name).read_bytes()) == Status(status="done")
    else:
        with pytest.raises(OSError, match="symbolic link"), rundir.logging():
            logging.getLogger("metarun").error("x")
    assert victim.read_text() == "precious"


def test_a_folder_that_is_not_there_is_free(tmp_path):
    RunDir(tmp_path / "new").check_free()


def test_a_folder_of_someone_else_is_not_taken(tmp_path):
    RunDir(tmp_path / "new").check_free()
    rundir = RunDir(tmp_path)
    rundir.check_free()
    (tmp_path / "slurm-1.out").touch()
    rundir.write_status("failed", 0, "before it had a config")
    rundir.check_free()
    (tmp_path / "metrics.jsonl").write_text("mine")
    with pytest.raises(RunDirError, match=r"holds metrics\.jsonl but no run"):
        rundir.check_free()
    (tmp_path / "metrics.jsonl").rename(tmp_path / "notes.md")
    with pytest.raises(RunDirError, match=r"holds notes\.md but no run"):
        rundir.check_free()


def test_one_process_at_a_time(tmp_path):
    rundir = RunDir(tmp_path / "run")
    with rundir.claimed():
        rundir.write_status("running", 0)
        with pytest.raises(RunDirError, match=f"in use by process {os.getpid()} on"), RunDir(rundir.path).claimed():
            pytest.fail("claimed twice")
    with rundir.claimed():
        pass


def test_a_disk_without_locks_is_named_with_the_ways_out(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    rule = re.escape(f"{tmp_path} (No locks available: its file system has no locks): expected locks")
    rule += ".*another hydra.run.dir, or set METARUN_LOCK=off"
    with pytest.raises(RunDirError, match=rule), RunDir(tmp_path).claimed():
        pytest.fail("claimed")
    monkeypatch.setenv("METARUN_LOCK", "off")
    with RunDir(tmp_path).claimed():
        pass


def test_starting_together_gives_directories_of_ones_own(tmp_path):
    code = "from metarun.storage.rundir import make_dated_folder; from pathlib import Path\n"
    code += "print(*(make_dated_folder(Path('outputs')) for _ in range(20)), sep='\\n')"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert len({line for process in processes for line in process.communicate()[0].split()}) == 40


def test_a_config_that_was_edited_is_not_the_one_that_was_run(tmp_path):
    rundir, config = RunDir(tmp_path), compose(["seed=3"])
    rundir.begin(config, ["seed=3"], {})
    rundir.write("environment.json", Environment(config=config.fingerprint))
    assert rundir.config() == config
    assert rundir.overrides() == ["seed=3"]
    rundir.write("environment.json", Environment(config="0"))
    with pytest.raises(RunDirError, match="was changed since the run began"):
        rundir.config()
