"""metarun rm: it says what would go, asks, and never takes more."""

import io
import shutil
import sys
from pathlib import Path

import pytest
from helpers.listed import make_run

from metarun.storage.records import Position
from metarun.storage.rundir import RunDir


@pytest.fixture
def runs(metarun):
    """Three runs, one of them at work, and the command line."""
    make_run("outputs/done")
    make_run("outputs/failed", "failed", error="it broke")
    make_run("outputs/running", "running", position=Position(updated=4e9))
    return metarun


def there():
    return sorted(path.name for path in Path("outputs").iterdir())


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_those_that_the_filters_take_go_and_no_others(runs):
    code, out, _ = runs("rm", "outputs", "status=failed", "yes=true")
    assert code == 0
    assert "outputs/failed" in out
    assert "outputs/done" not in out
    assert out.splitlines()[-1].startswith("removed 1 run")
    assert there() == ["done", "running"]


def test_in_a_pipe_nothing_goes_without_yes(runs):
    code, out, err = runs("rm", "outputs")
    assert (code, there()) == (2, ["done", "failed", "running"])
    assert "2 runs" in out
    assert "yes=true" in err


@pytest.mark.parametrize(("answer", "left"), [("y\n", 1), ("yes\n", 1), ("\n", 3), ("n\n", 3), ("", 3), ("yeah\n", 3)])
def test_at_a_terminal_it_asks(runs, monkeypatch, answer, left):
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr("metarun.cli._Output.isatty", lambda _: True, raising=False)
    assert runs("rm", "outputs")[0] == 0
    assert len(there()) == left


def test_a_running_run_stays_whatever_is_asked_for(runs):
    for words in (["outputs/running"], ["outputs", "status=running"]):
        code, out, _ = runs("rm", *words, "yes=true")
        assert code == 0
        assert "running" in out
    assert "running" in there()


def test_a_run_that_starts_meanwhile_stays(runs):
    """Its status.json says failed until it has begun; the directory is held by then."""
    with RunDir(Path("outputs/failed")).claimed():
        code, _, err = runs("rm", "outputs/failed", "outputs/done", "yes=true")
    assert (code, there()) == (4, ["failed", "running"])
    assert "in use" in err


def test_a_run_that_ends_well_while_the_question_stands_there_stays(runs, monkeypatch):
    def go_on(_):
        shutil.rmtree("outputs/failed")
        make_run("outputs/failed", "done")
        return "y"

    monkeypatch.setattr("metarun.commands.rm.input", go_on, raising=False)
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    monkeypatch.setattr("metarun.cli._Output.isatty", lambda _: True, raising=False)
    code, _, err = runs("rm", "outputs", "status=failed")
    assert (code, there()) == (4, ["done", "failed", "running"])
    assert "is done by now" in err


def test_folders_of_another_program_stay(runs):
    Path("outputs/other/.hydra").mkdir(parents=True)
    Path("outputs/other/.hydra/config.yaml").write_text("lr: 1\n")
    assert "of another program" in runs("rm", "outputs", "status=damaged", "yes=true")[1]
    assert runs("rm", "outputs", "yes=true")[0] == 0
    assert there() == ["other", "running"]


def test_foreign_files_stay_and_are_named(runs):
    Path("outputs/done/paper.tex").write_text("mine")
    code, out, _ = runs("rm", "outputs/done", "yes=true")
    assert code == 0
    assert "stays, for metarun did not make it: outputs/done/paper.tex" in out
    assert [path.name for path in Path("outputs/done").iterdir()] == ["paper.tex"]


def test_a_link_to_a_run_and_other_folders_are_refused(runs):
    Path("link").symlink_to("outputs/done")
    Path("empty").mkdir()
    for words, expected in ((["link"], 2), (["link/"], 2), (["nowhere"], 2), ([], 2), (["empty"], 0)):
        code, out, err = runs("rm", *words, "yes=true")
        assert code == expected
        assert (out + err).count("\n") == 1
    assert there() == ["done", "failed", "running"]
