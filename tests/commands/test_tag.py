"""metarun tag: words of a run's user, by which it is found again, and which change nothing else of it."""

import argparse
import shutil
import threading
import time
from pathlib import Path

import pytest
from helpers.listed import make_run

from metarun.commands import tag
from metarun.results.listing_text import Listing
from metarun.storage.rundir import RunDir


@pytest.fixture
def runs(metarun):
    make_run("outputs/a")
    make_run("outputs/b", age=10)
    return metarun


def test_tags_are_added_taken_away_and_found(runs):
    assert runs("tag", "outputs/a", "good", "paper")[:2] == (0, "outputs/a: good paper\n")
    assert runs("tag", "outputs/a", "-good", "fig.2")[:2] == (0, "outputs/a: fig.2 paper\n")
    assert runs("tag", "outputs/a")[1] == "outputs/a: fig.2 paper\n"
    found = Listing.from_json(runs("ls", "tag=paper", "format=json")[1]).runs
    assert [(run.folder, run.tags) for run in found] == [("outputs/a", ["fig.2", "paper"])]
    assert runs("tag", "outputs/a", "remove=fig.2,paper")[1] == "outputs/a: no tags\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        *((["outputs/b", "a/b"], 2), (["outputs/b", "x y"], 2), (["outputs/b", "-absent"], 2), (["nowhere", "x"], 4)),
        *((["outputs/a", "x", "remove=x"], 2), (["outputs/a", ""], 2), (["outputs/a", "\x1b[1m"], 2), ([], 2)),
        *((["outputs/a", "x=1"], 2), (["outputs", "x"], 4), (["outputs/a", "x" * 99], 2), (["outputs/a", "--x"], 2)),
    ],
)
def test_what_is_no_tag_is_refused_in_a_line(runs, words, code):
    found, out, err = runs("tag", *words)
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert not list(Path("outputs").rglob("tags.txt"))


def test_two_who_tag_a_run_at_the_same_time_lose_nothing(runs):
    change = tag._change
    waiting = threading.Thread(target=lambda: tag.main(argparse.Namespace(run="outputs/a", words=["other"], remove=[])))

    def slowly(rundir, added, gone):
        tag._change = change
        waiting.start()
        time.sleep(0.2)  # in which the other one would read the tags as they were
        change(rundir, added, gone)

    tag._change = slowly
    try:
        tag.main(argparse.Namespace(run="outputs/a", words=["mine"], remove=[]))
    finally:
        tag._change = change
        waiting.join()
    assert RunDir(Path("outputs/a")).tags() == ["mine", "other"]


def test_a_tagged_run_is_still_the_same_run(finished, metarun):
    """Tags are no part of what a run is: it is printed, listed and gone on with as before."""
    shutil.copytree(finished, "run")
    assert metarun("tag", "run", "good")[0] == 0
    assert metarun("resume", "run")[0] == 0
    assert RunDir(Path("run")).tags() == ["good"]
