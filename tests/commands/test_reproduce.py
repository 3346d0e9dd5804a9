"""metarun reproduce: bitwise identical, or the first difference."""

import json
from pathlib import Path

import pytest
from helpers.results import edit

from metarun.commands.reproduce import _compare_lines, _remove
from metarun.errors import DiffersError
from metarun.storage.rundir import RunDir, make_dated_folder

QUICK = ("meta_steps=12", "val_every=4", "val_tasks=6", "test_tasks=20", "log_every=3", "checkpoint_every=5")


def test_an_extended_run_is_reproduced_as_if_never_interrupted(metarun):
    """Its validation at step 11 was there only because that was the last step once."""
    metarun(*(word for word in QUICK if not word.startswith("meta_steps")), "meta_steps=11", "hydra.run.dir=run")
    summary = json.loads(Path("run/summary.json").read_text())
    first = {name: summary["test"]["mse"][name] for name in ("mean", "ci95", "tasks")}
    step = summary["checkpoint"]["step"]
    code, out, err = metarun("resume", "run", "meta_steps=16")
    assert code == 0
    assert "after 11 outer steps (on the same tasks)" in out
    assert '"step": 11, "split": "val"' in Path("run/metrics.jsonl").read_text()
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["earlier"] == [first | {"outer_steps": 11, "step": step}], "every test of a run is kept"
    code, out, err = metarun("reproduce", "run")
    assert code == 0, err
    assert "bitwise identical" in out


def test_data_may_have_moved(metarun, data_root):
    small = ("data=omniglot", "model.filters=4", "meta_steps=2", "meta_batch=2", "val_tasks=2", "test_tasks=2")
    Path("moved").symlink_to(data_root)
    assert metarun(*small, f"data.root={data_root}", "hydra.run.dir=run")[0] == 0
    assert metarun("reproduce", "run", "data.root=moved", "device=cpu")[0] == 0
    code, _, err = metarun("resume", "run", "data.root=moved", "meta_steps=3")
    assert code == 0, err
    code, _, err = metarun("reproduce", "run", "seed=3")
    assert code == 2
    assert "reproduce changes nothing but" in err


def test_reproduce_says_identical_or_names_the_first_difference(metarun):
    metarun(*QUICK, "hydra.run.dir=run", "engine.chunk=7")
    code, out, err = metarun("reproduce", "run")
    assert code == 0, err
    assert "bitwise identical: 8 of 8 events" in out
    assert "keep=true keeps it" in err
    assert not Path("outputs").exists(), "nothing is left of an identical one"
    rows = Path("run/metrics.jsonl").read_text().splitlines()
    row = json.loads(rows[4])
    row["loss"] += 1e-9
    Path("run/metrics.jsonl").write_text("\n".join([*rows[:4], json.dumps(row), *rows[5:]]) + "\n")
    code, out, err = metarun("reproduce", "run")
    assert code == 6
    assert "event 5 of 8 differs (step 9, train, loss)" in err
    (again,) = Path("outputs").glob("*/*")
    assert err.endswith(f"; the repetition is in {again}\n")
    assert RunDir(again).reproduction_of() == str(Path("run").resolve())
    assert RunDir(Path("run")).reproduction_of() is None
    code, out, err = metarun("table", "outputs", "run", "format=json")
    content = json.loads(out)
    assert [row["runs"] for row in content["rows"]] == [["run"]], "it does not push the original out"
    assert [(left["path"], left["reason"]) for left in content["left_out"]] == [(str(again), "a reproduction of run")]
    assert metarun("table", "outputs")[0] == 0, "without the original it has a row"


@pytest.mark.slow
def test_a_run_whose_intervals_had_another_formula_is_compared_in_all_else(metarun):
    metarun(*QUICK, "hydra.run.dir=run")
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]

    def write(**changes):
        lines = [json.dumps({key: changes.get(key, value) for key, value in row.items()}) for row in rows]
        Path("run/metrics.jsonl").write_text("\n".join(lines) + "\n")

    write(ci95=0.5)
    assert metarun("reproduce", "run")[0] == 6
    edit("run", "environment.json", lambda e: e.pop("intervals"))
    code, out, err = metarun("reproduce", "run")
    assert code == 0, err
    assert "bitwise identical: 8 of 8 events, but for their intervals (ci95), whose formula is another one" in out
    write(ci95=0.5, mse=0.5)
    code, _, err = metarun("reproduce", "run")
    assert code == 6
    assert "mse" in err


@pytest.mark.slow
def test_reproduce_keeps_the_chunk_that_auto_chose(metarun, monkeypatch):
    """A machine with less memory would choose another, and other last digits."""
    metarun(*QUICK, "hydra.run.dir=run")
    monkeypatch.setattr("metarun.engine.chunking.bytes_for_a_chunk", lambda device: 1)
    assert metarun("reproduce", "run", "keep=true")[0] == 0
    again = next(Path("outputs").glob("*/*/environment.json"))
    assert json.loads(again.read_text())["chunk"] == 25


def test_what_differs_in_the_environment_is_said_before_the_run_is_repeated(metarun):
    metarun(*QUICK, "hydra.run.dir=run")
    path = Path("run/environment.json")
    environment = json.loads(path.read_text())
    environment["versions"]["torch"] = "0.4.1"
    environment["device"] = "abacus"
    environment["continued"] = [{"intervals": environment["intervals"], "versions": {"torch": "0.5"}}]
    path.write_text(json.dumps(environment))
    code, out, err = metarun("reproduce", "run")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("environment: device was abacus, is ")
    assert lines[1].startswith("environment: torch was 0.4.1, is ")
    assert lines[2].startswith("environment: torch was 0.5, is "), "and that of the session that went on"
    assert lines[-1] == "bitwise identical: 8 of 8 events"


@pytest.mark.parametrize(("old", "new"), [(2, 1), (1, 2)])
def test_an_event_too_few_or_too_many_is_a_difference(old, new):
    lines = ['{"step": 1, "split": "train", "mse": 1.0}', '{"step": 2, "split": "train", "mse": 1.0}']
    with pytest.raises(DiffersError, match=rf"{new} events .*expected {old}"):
        _compare_lines(lines[:old], lines[:new])
    assert _compare_lines(lines, lines) == "bitwise identical: 2 of 2 events"


def test_outputs_stays_where_it_was_there(tmp_path, monkeypatch):
    """It may be a link to a larger disk, whose folder would be gone then."""
    monkeypatch.chdir(tmp_path)
    Path("disk").mkdir()
    Path("outputs").symlink_to("disk")
    for alone in (False, True):
        _remove(make_dated_folder(Path("outputs")).resolve(), alone)
        assert not list(Path("outputs").iterdir())
