"""What the tests of commands share."""

import pytest


@pytest.fixture(autouse=True)
def _pictures_that_cost_nothing(monkeypatch):
    """Pictures are drawn but not rendered, in this process; tests/run/test_pictures.py looks at real ones."""
    for module in ("drawings", "pictures"):
        monkeypatch.setattr(f"metarun.run.{module}.to_png", lambda figure, **_: b"")
