"""A finished run, as it is read."""

import pytest

from metarun.results.runs import read_run


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def run(finished):
    return read_run(finished)
