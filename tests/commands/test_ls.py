"""metarun ls: what is asked for is what is listed; an empty answer says what it looked for."""

import json
import subprocess
import sys

import pytest
from helpers.listed import make_run

from metarun.results.listing_text import Listing


@pytest.fixture
def runs(metarun):
    """Four runs of several kinds, and the command line."""
    make_run("outputs/day/a", age=100)
    make_run("outputs/day/b", "failed", age=50, error="it broke", algo="reptile")
    make_run("multirun/x/c", "stopped", age=10, step=7)
    make_run("elsewhere/d", age=5)
    return metarun


def folders(answer):
    code, out, err = answer
    assert (code, err) == (0, "")
    return [run.folder for run in Listing.from_json(out).runs]


def test_runs_and_sweeps_are_listed_newest_first(runs):
    assert folders(runs("ls", "format=json")) == ["multirun/x/c", "outputs/day/b", "outputs/day/a"]
    assert folders(runs("ls", "elsewhere", "outputs", "format=json"))[0] == "elsewhere/d"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        *((["status=failed,stopped"], "cb"), (["algo=REPTILE"], "b"), (["since=30s"], "c"), (["limit=1"], "c")),
        *(
            (["sort=val", "limit=1"], "a"),
            (["sort=folder", "limit=all"], "cab"),
            (["tag=x"], ""),
            (["data=images"], ""),
        ),
    ],
)
def test_filters_and_orders(runs, words, expected):
    assert "".join(folder[-1] for folder in folders(runs("ls", *words, "format=json"))) == expected


def test_the_table_says_how_many_there_are_and_how_many_are_not_shown(runs):
    code, out, _ = runs("ls", "limit=2")
    assert code == 0
    assert "stopped 7/50" in out
    assert "failed 50/50: it broke" in out
    assert out.splitlines()[-1].startswith("3 runs: ")
    assert "1 more with limit=all" in out


def test_an_empty_answer_says_what_it_looked_for(runs):
    assert runs("ls", "algo=mmal")[1].splitlines() == [
        "no runs with algo=mmal in outputs and multirun; there are 3 runs: 1 done, 1 failed, 1 stopped",
        "algo: maml, reptile",
    ]


def test_before_the_first_run_it_says_how_to_begin(metarun):
    code, out, _ = metarun("ls")
    assert (code, out.count("\n")) == (0, 1)
    assert "metarun algo=maml begins one" in out
    assert json.loads(metarun("ls", "format=json")[1]) == {"runs": [], "not_shown": 0}


@pytest.mark.parametrize(
    ("word", "line"),
    [
        *(("nowhere", "expected a folder with runs"), ("seed=1", "status=, algo="), ("limit=0", "at least 1, or all")),
        *(("limit=-1", "at least 1"), ("status=killed", "stale"), ("sort=loss", "expected one of began")),
        *(("tag=", "expected a name; leave tag= out for all"), ("algo= , ", "expected a name")),
        *(("since=monday", "7d"), ("format=xml", "text"), ("a\0b", "expected a folder")),
        *(("failed", "did you mean status=failed?"), ("outputs/day/a/.hydra", "metarun show")),
    ],
)
def test_a_word_that_is_none_of_its_own_is_one_line(runs, word, line):
    code, out, err = runs("ls", word)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert line in err


def test_an_option_that_is_given_twice_is_refused(runs):
    for verb, words in {
        "ls": ["status=done", "status=failed"],
        "rm": ["outputs", "--algo=maml", "algo=fomaml"],
    }.items():
        code, out, err = runs(verb, *words)
        assert (code, out) == (2, "")
        assert "(command line): given twice; expected it once" in err


def test_neither_torch_nor_hydra_nor_pandas_is_imported(runs, tmp_path):
    """A thousand runs are to be listed in under a second, and torch alone takes longer."""
    check = "import sys; from metarun import cli; cli.main(['ls']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True)
    modules = done.stdout.splitlines()[-1]
    assert "'yaml'" in modules
    assert not [name for name in ("torch", "hydra", "pandas", "matplotlib", "numpy") if f"'{name}'" in modules]
