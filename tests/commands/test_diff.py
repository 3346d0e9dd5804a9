"""metarun diff: two runs or more; anything else is refused in a line."""

import shutil
from pathlib import Path

import pytest

from metarun.results.differing import Differing


def test_two_runs_are_compared_by_their_names(finished, metarun):
    for name in ("outputs/a", "outputs/b"):
        shutil.copytree(finished, name)
    code, out, err = metarun("diff", "outputs/a", "outputs/b", "format=json")
    assert (code, err) == (0, "")
    assert Differing.from_json(out).runs == ["outputs/a", "outputs/b"]
    assert "the same settings" in metarun("diff", "puts/a", "puts/b")[1]


@pytest.mark.parametrize(
    ("words", "code"),
    [([], 2), (["a"], 2), (["a", "a/"], 2), (["a", "nowhere"], 4), (["a", "empty"], 4), (["a", "b", "format=csv"], 2)],
)
def test_what_cannot_be_compared_is_refused_in_a_line(finished, metarun, words, code):
    shutil.copytree(finished, "a")
    shutil.copytree(finished, "b")
    Path("empty").mkdir()
    found, out, err = metarun("diff", *words)
    assert (found, out, err.count("\n")) == (code, "", 1)
