"""What is drawn of runs that go on."""

import shutil
from pathlib import Path

import pytest
from helpers.listed import make_run

from metarun.results.grid import width_of
from metarun.results.listing import Listed
from metarun.results.watched import Watch, draw
from metarun.storage.records import Position

POSITION = Position(
    doing="validating", seconds_left=200.0, tasks_per_second=1234.567, memory_mb=2048, metric="accuracy", loss=0.123456
)
RUN = Listed(
    folder="outputs/day/a", status="running", step=120, steps=600, seconds_left=200.0, position=POSITION,
    algorithm="maml", source="omniglot", metric="accuracy", validation=0.456,
)  # fmt: skip
ENDED = [
    Listed(folder="outputs/b", status="failed", reason="out of memory", step=3, steps=600, algorithm="maml"),
    Listed(folder="outputs/c", status="stale", reason="process 7 on here is gone", step=9, algorithm="reptile"),
    Listed(folder="outputs/d", status="done", step=600, steps=600, metric="mse", test=0.5, ci95=0.02),
]


def test_a_line_has_all_that_is_known_of_a_run():
    heading, line, *_ = draw([RUN], ["outputs"]).splitlines()
    cells = [cell for cell in line.split("  ") if cell]
    assert [cell.strip() for cell in cells] == [
        "120/600", "validating", "3 min 20 s", "0.1235", "45.6 %", "1235", "2.0 GiB", "maml", "omniglot", "outputs/day/a"
    ]  # fmt: skip
    assert heading.split() == ["step", "left", "loss", "val", "tasks/s", "memory", "algo", "data", "folder"]


def test_those_that_ended_say_how():
    lines = draw([RUN, *ENDED], ["outputs"]).splitlines()
    for line, said in zip(
        lines[2:], ("failed: out of memory", "stale: process 7 on here is gone", "done: test 0.5"), strict=False
    ):
        assert said in line
    assert lines[-1] == "4 runs: 1 done, 1 failed, 1 running, 1 stale"


@pytest.mark.parametrize("width", [30, 60, 100])
@pytest.mark.parametrize("height", [2, 4, 6, 20])
def test_it_fits_the_terminal(width, height):
    frame = draw([RUN, *ENDED] * 3, ["outputs"], width, height).splitlines()
    assert len(frame) <= height
    assert all(width_of(line) <= width for line in frame)
    assert height in (2, 20) or "not shown" in frame[-1]


def test_a_run_that_has_hardly_begun_and_none_at_all():
    assert "0" in draw([Listed(folder="outputs/a", status="running")], ["outputs"]).splitlines()[1]
    assert draw([], ["outputs", "multirun"]) == "no run is going on in outputs and multirun"


def test_runs_come_and_stay_when_they_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run("outputs/old", "failed", error="long ago")
    make_run("named", "stopped", error="SIGINT")
    watch = Watch(["outputs", "named/"])  # as a shell completes it
    assert [run.folder for run in watch.look()] == ["named"]
    going = make_run("outputs/new", "running", step=3)
    watch._search_at = 0.0
    assert [(run.folder, run.status) for run in watch.look()] == [("outputs/new", "running"), ("named", "stopped")]
    shutil.rmtree(going)
    make_run("outputs/new", "failed", error="out of memory", step=4)
    watch._search_at = float("inf")
    assert [(run.folder, run.status, run.step) for run in watch.look() if run.folder != "named"] == [
        ("outputs/new", "failed", 4)
    ]
    shutil.rmtree(Path("outputs/new"))
    assert [run.status for run in watch.look() if run.folder == "outputs/new"] == ["damaged"]
