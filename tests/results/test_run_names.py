"""A run by its path, or by the end of it that a narrow terminal shows."""

from pathlib import Path

import pytest
from helpers.listed import make_run

from metarun.errors import RunDirError
from metarun.results.run_names import find_by_end, find_run


@pytest.fixture(autouse=True)
def runs():
    make_run("outputs/2026-01-31/12-00-00")
    make_run("outputs/2026-01-31/13-00-00")
    make_run("multirun/a/algo=maml,seed=1")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *(("outputs/2026-01-31/12-00-00/", "outputs/2026-01-31/12-00-00"), ("seed=1", "multirun/a/algo=maml,seed=1")),
        *(("12-00-00", "outputs/2026-01-31/12-00-00"), ("…31/13-00-00", "outputs/2026-01-31/13-00-00")),
        ("...13-00-00/", "outputs/2026-01-31/13-00-00"),
    ],
)
def test_a_run_is_found_by_its_path_or_its_end(name, path):
    assert find_run(name) == Path(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *(("00-00", "2 runs end so"), ("nowhere", "metarun ls"), ("", "no run there"), ("…", "no run there")),
        *(
            ("outputs", "a folder with runs"),
            ("outputs/2026-01-31/12-00-00/.hydra", "take outputs/2026-01-31/12-00-00"),
        ),
    ],
)
def test_another_name_is_refused_with_what_to_do(name, words):
    with pytest.raises(RunDirError, match=words):
        find_run(name)


def test_what_lies_at_a_path_is_no_short_name(tmp_path):
    assert find_by_end("algo=maml,seed=1") == Path("multirun/a/algo=maml,seed=1")
    Path("algo=maml,seed=1").mkdir()
    assert find_by_end("algo=maml,seed=1") is None


@pytest.mark.parametrize("verb", ["resume", "reproduce", "eval", "export", "adapt", "show"])
def test_verbs_take_a_run_by_its_end(metarun, verb):
    """The run has not finished, or has a config that is none: the line names it."""
    words = {"export": ["a.safetensors"], "adapt": ["query=a.csv"]}.get(verb, [])
    for end, path in (("13-00-00", "outputs/2026-01-31/13-00-00"), ("algo=maml,seed=1", "multirun/a/algo=maml,seed=1")):
        _, out, err = metarun(verb, end, *words)
        assert path in out + err
        assert "no such" not in err
