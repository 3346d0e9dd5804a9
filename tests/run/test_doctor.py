import json
import os
from functools import partial

import pytest

from metarun.algos.maml import MAML
from metarun.run import doctor, gradient_check
from metarun.run.doctor import Checkup, examine


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _found(subject):
    return {finding.subject: finding for finding in examine()}[subject]


def test_where_the_tests_run_all_is_there_that_runs_need(metarun, here):
    code, out, err = metarun("doctor", "format=json")
    checkup = Checkup.from_json(out)
    assert (code, err) == (0, "")
    assert checkup.ok
    assert json.loads(out) == checkup.plain()
    assert {finding.subject for finding in checkup.findings} >= {
        "torch",
        "device",
        "cache",
        "locks",
        "gradient",
        "wandb",
    }
    assert os.listdir(here) == []


def test_a_wrong_gradient_shows(monkeypatch):
    """The first-order gradient is not the derivative of the loss: central differences must say so."""
    monkeypatch.setattr(gradient_check, "MAML", partial(MAML, first_order=True))
    with pytest.raises(ArithmeticError, match=r"central differences by [0-9]e-0[1-3]"):
        gradient_check.compare_gradients()


def test_what_is_wrong_is_named_with_the_remedy_and_ends_in_1(metarun, monkeypatch, here):
    monkeypatch.setattr(doctor, "_check_gradient", lambda: 1 / 0)
    monkeypatch.setattr(doctor, "LEAST_ROOM", 10**30)
    monkeypatch.setattr(doctor, "NEEDED", ("a_package_that_nobody_has",))
    monkeypatch.setenv("METARUN_DATE", "x")
    monkeypatch.setenv("METARUN_TRUST", "nowhere_to_be_found")
    monkeypatch.setenv("METARUN_DATA", str(here / "gone"))
    code, out, err = metarun("doctor")
    lines = {line.split()[1]: line for line in out.splitlines()}
    assert code == 1
    assert "a_package_that_nobody_has, disk, gradient (doctor)" in err
    assert lines["a_package_that_nobody_has"].startswith("missing")
    assert "make room" in lines["disk"]
    assert "ZeroDivisionError" in lines["gradient"]
    assert "did you mean METARUN_DATA?" in lines["METARUN_DATE"]
    assert "PYTHONPATH=FOLDER" in lines["METARUN_TRUST"]
    assert "the first run downloads it" in lines["data=omniglot"]


def test_a_disk_without_locks_is_found(monkeypatch, here):
    def flock(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(doctor, "_check_gradient", lambda: "")
    monkeypatch.setattr("fcntl.flock", flock)
    found = _found("locks")
    assert (found.state, found.needed) == ("failed", True)
    assert "METARUN_LOCK=off" in found.remedy
    assert os.listdir(here) == []
