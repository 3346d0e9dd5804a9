"""metarun show: of one run all, of a folder with runs a line."""

from pathlib import Path

import pytest
from helpers.listed import make_run

from metarun.results.showing import RunFacts


def test_a_run_is_named_by_its_path_or_its_end(metarun):
    make_run("outputs/2026-01-31/12-00-00")
    for name in ("outputs/2026-01-31/12-00-00", "…12-00-00"):
        code, out, err = metarun("show", name, "format=json")
        assert (code, err) == (0, "")
        assert RunFacts.from_json(out).run.folder == "outputs/2026-01-31/12-00-00"
    assert metarun("show", "12-00-00")[1].startswith("outputs/2026-01-31/12-00-00: done")


def test_a_folder_with_runs_is_said_to_be_one(metarun):
    make_run("sweep/a")
    make_run("sweep/b", "failed", error="x")
    code, out, _ = metarun("show", "sweep")
    assert (code, out) == (0, "sweep: a folder with 2 runs: 1 done, 1 failed; metarun ls sweep lists them\n")
    code, out, err = metarun("show", "sweep", "format=json")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_what_is_left_of_a_run_is_shown_as_damaged(metarun):
    run = make_run("run")
    (run / ".hydra/config.yaml").unlink()
    code, out, _ = metarun("show", "run")
    assert code == 0
    assert out.startswith("run: damaged: .hydra/config.yaml")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        *((["nowhere"], 4), (["empty"], 4), (["run/.hydra"], 4), ([], 2), (["run", "format=csv"], 2), ([""], 4)),
        *((["run/status.json"], 4), (["run", "run"], 2), (["a\0b"], 4)),
    ],
)
def test_what_is_no_run_is_refused_in_a_line(metarun, words, code):
    make_run("run")
    Path("empty").mkdir()
    found, out, err = metarun("show", *words)
    assert (found, out, err.count("\n")) == (code, "", 1)
