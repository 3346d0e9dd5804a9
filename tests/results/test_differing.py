"""Runs side by side: what differs is listed, and nothing that does not."""

import shutil
from pathlib import Path

import pytest
from helpers.results import copy_run, edit

from metarun.errors import RunDirError
from metarun.results.differing import Differing, as_text, find_differences


def test_two_copies_differ_in_nothing(finished):
    for name in ("a", "b"):
        shutil.copytree(finished, name)
    found = find_differences([Path("a"), Path("b")])
    assert found.alike
    assert (found.settings, found.choices, found.versions, found.data, found.place) == ({}, {}, {}, {}, {})
    assert found.same_tasks is True
    lines = as_text(found, 80).splitlines()
    assert lines[-2:] == ["the same settings, versions and data", "tested on the very same tasks"]


def test_settings_results_and_versions_stand_beside_each_other(finished):
    copy_run(finished, "a", [1.0, 3.0], meta_clip=1)
    copy_run(finished, "b", [2.0, 4.0], seed=1, inner_lr=0.5, meta_clip=1.0)
    copy_run(finished, "c", [2.0, 5.0], seed=1, inner_lr=1, meta_clip=1.0)
    edit("b", "environment.json", lambda e: e["versions"].update(torch="9.9"))
    edit("c", ".hydra/config.yaml", lambda c: c["model"].update(hidden=[9]))
    found = find_differences([Path(name) for name in "abc"])
    assert found.settings == {
        **{"seed": [0, 1, 1], "algo.inner_lr": [0.01, 0.5, 1], "model.hidden": [[8], [8], [9]]},
    }, "1 is the same as 1.0"
    assert found.results["test"] == [2.0, 3.0, 3.5]
    assert found.versions["torch"][1] == "9.9"
    assert list(found.versions) == ["torch"]
    assert found.same_tasks is False
    text = as_text(found, None)
    assert "algo.inner_lr" in text
    assert "not tested on the very same tasks" in text
    assert Differing.from_json(found.to_document()) == found


def test_an_evaluation_beside_its_run(finished):
    run = Path(shutil.copytree(finished, "run"))
    folder = run / "eval/2026-01-31/12-00-00-1"
    folder.mkdir(parents=True)
    for name in ("summary.json", "environment.json", "test_tasks.json"):
        shutil.copy(run / name, folder)
    shutil.copy(run / ".hydra/config.yaml", folder)
    edit(folder, "config.yaml", lambda config: config.update(test_tasks=9))
    assert find_differences([run, folder]).settings == {"test_tasks": [6, 9]}


def test_evaluations_of_models_that_were_trained_otherwise_are_not_alike(finished):
    folders = []
    for name, rate in {"a": 0.01, "b": 0.02}.items():
        run = Path(shutil.copytree(finished, name))
        edit(run, ".hydra/config.yaml", lambda config, rate=rate: config["algo"].update(inner_lr=rate))
        edit(run, "environment.json", lambda environment: environment.pop("config"))
        folders.append(run / "eval/2026-01-31/12-00-00-1")
        folders[-1].mkdir(parents=True)
        for file in ("summary.json", "environment.json", "test_tasks.json", ".hydra/config.yaml"):
            shutil.copy(run / file, folders[-1])
        edit(folders[-1], "config.yaml", lambda config: config["algo"].update(inner_lr=0.5))
    edit(Path("a"), ".hydra/config.yaml", lambda config: config.update(test_tasks=9))  # trains no other model
    found = find_differences(folders)
    assert found.settings == {"algo.inner_lr in training": [0.01, 0.02]}
    assert not found.alike
    assert find_differences([Path("a"), Path("b")]).settings == {"algo.inner_lr": [0.01, 0.02], "test_tasks": [9, 6]}


def test_unfinished_runs_can_be_compared(finished):
    shutil.copytree(finished, "a")
    shutil.copytree(finished, "b")
    for name in ("summary.json", "test_tasks.json"):
        Path("b", name).unlink()
    edit("b", "status.json", lambda status: status.update(status="stopped", step=2))
    found = find_differences([Path("a"), Path("b")])
    assert found.results["status"] == ["done", "stopped"]
    assert found.results["tasks"] == [6, None]
    assert found.same_tasks is None
    assert "stopped" in as_text(found, 60)


@pytest.mark.parametrize("name", [".hydra/config.yaml", "summary.json", "environment.json", "test_tasks.json"])
def test_a_damaged_run_is_refused_with_its_file(finished, name):
    shutil.copytree(finished, "a")
    shutil.copytree(finished, "b")
    Path("b", name).write_text("{")
    with pytest.raises(RunDirError, match=name):
        find_differences([Path("a"), Path("b")])
