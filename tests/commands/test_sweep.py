"""Sweeps: the folder of each job, the closing words, and launchers."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.results import edit
from helpers.runs import QUICK

from metarun.commands.sweep import _print_runs
from metarun.engine import loop

SHORT = ("model.hidden=[4]", "meta_steps=2", "val_every=2", "val_tasks=2", "test_tasks=2", "meta_batch=2")


def test_a_sweep_tries_everything_and_says_what_failed(metarun):
    words = ["-m", *QUICK, "algo=maml,fomaml", "algo.inner_lr=0.01,1e30", "hydra.sweep.dir=sweep"]
    code, out, err = metarun(*words)
    assert code == 1
    assert out.count("test mse") == 2
    assert out.count("failed: the meta-loss") == 2
    assert "2 jobs failed" in err.splitlines()[-1]
    assert "Traceback" not in err
    statuses = {path.parent.name: json.loads(path.read_text()) for path in Path("sweep").glob("*/status.json")}
    assert sorted(status["status"] for status in statuses.values()) == ["done", "done", "failed", "failed"]
    failed = next(Path("sweep", name) for name, status in statuses.items() if status["status"] == "failed")
    assert "Traceback" in (failed / "metarun.log").read_text()
    done = next(Path("sweep", name, "metrics.jsonl") for name, status in statuses.items() if status["status"] == "done")
    before = done.stat().st_mtime_ns
    code, out, err = metarun("-m", *QUICK, "algo=maml,fomaml", "algo.inner_lr=0.01", "hydra.sweep.dir=sweep")
    assert code == 0, "what failed before is no job of this sweep,"
    assert out.count("failed: the meta-loss") == 2, "but listed"
    assert done.stat().st_mtime_ns == before, "what is done is not run again"
    assert {path.name for path in Path("sweep").iterdir()} == {*statuses, "multirun.yaml"}


@pytest.mark.parametrize("launcher", [[], pytest.param(["hydra/launcher=joblib"], marks=pytest.mark.slow)])
def test_a_job_that_is_refused_before_its_run_begins_is_listed_and_failed(metarun, launcher):
    if launcher:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep = ("-m", *SHORT, "seed=0,1,2", "hydra.sweep.dir=sweep", *launcher)
    assert metarun(*sweep)[0] == 0
    folders = sorted(Path("sweep").glob("*seed=*"))
    shutil.rmtree(folders[2])
    (folders[0] / ".hydra/config.yaml").write_text("seed: 0")  # no run's
    handle = os.open(folders[1], os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        code, out, err = metarun(*sweep)
    finally:
        os.close(handle)
    assert code == 1
    assert "2 jobs failed" in err.splitlines()[-1]
    lines = out.splitlines()
    assert (
        sum(
            line.startswith("seed=0 ") and "failed: " in line and "missing; a complete config has" in line
            for line in lines
        )
        == 1
    )
    assert sum(line.startswith("seed=1 ") and "failed: " in line and "in use by process" in line for line in lines) == 1
    assert sum(line.startswith("seed=2 ") and "test mse" in line for line in lines) == 1


def test_a_run_directory_is_no_folder_for_a_sweep(metarun, finished):
    shutil.copytree(finished, "run")
    before = sorted(Path("run").rglob("*"))
    code, _, err = metarun("-m", *QUICK, "seed=5,6", "hydra.sweep.dir=run")
    assert (code, err.count("\n")) == (4, 1)
    assert "run: holds a run; expected a folder for the runs of a sweep" in err
    assert sorted(Path("run").rglob("*")) == before


def test_a_sweep_that_is_stopped_says_how_to_go_on(metarun, monkeypatch):
    train = loop.meta_train

    def stopping(session, *args):
        for report in train(session, *args):
            if len(list(Path("a sweep").glob("*/status.json"))) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield report

    monkeypatch.setattr(loop, "meta_train", stopping)
    words = ("-m", *SHORT, "seed=0,1,2", "hydra.sweep.dir='a sweep'")
    code, out, err = metarun(*words)
    assert code == 143
    assert "for all other jobs repeat the sweep with hydra.sweep.dir='a sweep'" in err.splitlines()[-1]
    assert [line.split()[1] for line in out.splitlines()] == ["val", "stopped:"]
    monkeypatch.setattr(loop, "meta_train", train)
    assert metarun(*words)[0] == 0


@pytest.mark.slow
def test_many_words_have_short_folders_that_a_repeated_sweep_finds(metarun):
    long = ("algo.inner_loss_reduction=mean", "algo.inner_parameters=weights", "algo.meta_lr_schedule=constant")
    long += ("device.deterministic=true", "engine.checkpoint_inner=false", "algo.inner_optimizer=sgd")
    words = ("-m", *SHORT, *long, "seed=0,1", "hydra.sweep.dir='mü ${hydra.runtime.choices.algo}'")
    for _ in range(2):
        code, _, err = metarun(*words)
        assert code == 0, err
    assert err.count("is finished") == 2
    assert {path.parent.name for path in Path("mü maml").glob("*/summary.json")} == {"seed=0", "seed=1"}


def test_the_closing_line_of_a_run_that_was_extended_says_its_length_of_now(tmp_path, monkeypatch, finished, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("before", "extended"):
        shutil.copytree(finished, f"sweep/{name}")
        Path("sweep", name, ".hydra/overrides.yaml").write_text("- meta_steps=2\n")
    edit("sweep/extended", "environment.json", lambda e: e.update(continued=[{"changed": ["meta_steps"]}]))
    _print_runs(Path("sweep"), [])
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert words == ["meta_steps=2", "meta_steps=4"]


@pytest.mark.slow
def test_jobs_may_have_numbers_for_names(metarun):
    """And words that Hydra has to be told in others: it has no name null."""
    words = ("seed=5,6", "logger=null", "hydra.sweep.dir=s", "hydra.sweep.subdir=${hydra.job.num}")
    assert metarun("-m", *SHORT, *words)[0] == 0
    assert {path.parent.name for path in Path("s").glob("*/summary.json")} == {"0", "1"}


def test_jobs_that_would_share_a_folder_are_refused(metarun):
    code, _, err = metarun(
        "-m", *SHORT, "algo.inner_lr=0.1,0.2", "seed=1,2", "hydra.sweep.subdir=s${seed}", "hydra.sweep.dir=s"
    )
    assert code == 2
    assert "s1 (hydra.sweep.subdir): is the folder of 2 jobs: expected a folder for each" in err
    assert not Path("s").exists()
    code, _, err = metarun("-m", *SHORT, "algo=maml,anil", "hydra.sweep.subdir=${algo}", "hydra.sweep.dir=s")
    assert (code, "${hydra.runtime.choices.algo}" in err, err.count("\n")) == (2, True, 1)


@pytest.mark.slow
def test_options_may_stand_anywhere_and_a_sweep_has_a_folder_of_its_own(metarun):
    code, _, err = metarun("seed=1,2", "-m", *SHORT)
    assert code == 0, err
    assert len(list(Path("outputs/sweeps").glob("*/*/*/summary.json"))) == 2


@pytest.fixture
def two_ray_nodes(monkeypatch):
    """The words for a Ray cluster of two nodes with one core each, on this machine."""
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        address = f"hydra.launcher.ray.init.address='{cluster.address}'"
        yield ["hydra/launcher=ray", address, "+hydra.launcher.ray.init.object_store_memory=null"]
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_sweep_on_two_ray_nodes(tmp_path, two_ray_nodes):
    command = [sys.executable, "-m", "metarun", "-m", *two_ray_nodes, *QUICK, "seed=0,1,2,3", "hydra.sweep.dir=sweep"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test mse") == 4
    assert len(list((tmp_path / "sweep").glob("*/summary.json"))) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plugin", "words", "threads"),
    [
        ("joblib", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], (os.cpu_count() or 2) // 2),
        ("submitit", ["hydra/launcher=submitit_local"], 1),
        ("submitit", ["hydra/launcher=submitit_local", "hydra.launcher.cpus_per_task=2"], 2),
        ("ray", ["hydra/launcher=ray"], 1),
    ],
)
def test_jobs_of_a_parallel_launcher_are_in_the_closing_table_too(plugin, words, threads, tmp_path, monkeypatch):
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    words = ["-m", *words, *QUICK, "algo.inner_lr=0.01,1e30", "seed=0,1"]
    command = [sys.executable, "-m", "metarun", *words, "hydra.sweep.dir=sweep"]
    for _ in range(2):  # the second time only what failed is tried again
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1
        # Ray's workers may still speak after metarun's last word.
        assert "2 jobs failed" in (done.stderr if plugin == "ray" else done.stderr.splitlines()[-1])
        assert done.stdout.count("test mse") == 2
        assert done.stdout.count("failed: the meta-loss") == 2
        assert not list((tmp_path / "sweep").glob(".failures*"))
    logs = [path.read_text() for path in (tmp_path / "sweep").glob("*/metarun.log")]
    assert sum("Traceback" in text for text in logs) == 2
    statuses = [json.loads(path.read_text())["status"] for path in (tmp_path / "sweep").glob("*/status.json")]
    assert sorted(statuses) == ["done", "done", "failed", "failed"]
    environments = [json.loads(path.read_text()) for path in (tmp_path / "sweep").glob("*/environment.json")]
    assert {environment["threads"] for environment in environments} == {threads}
