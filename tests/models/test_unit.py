"""Units are functions that an engine may run in its own way, for as long as it says."""

import pytest

from metarun.models.unit import compiling, running, tracing, unit


def _add(a, b):
    return a + b


def test_alone_a_unit_is_its_function():
    assert unit(_add, 2, 3) == 5


def test_within_running_units_are_the_runners_and_after_an_error_nobodys():
    seen = []

    def runner(function, *args):
        seen.append((function, args))
        return -function(*args)

    with pytest.raises(KeyError), running(runner):
        assert unit(_add, 2, 3) == -5
        with running(None):
            assert unit(_add, 2, 3) == 5
        raise KeyError
    assert seen == [(_add, (2, 3))]
    assert unit(_add, 2, 3) == 5


def test_compiling_is_true_within_tracing_alone():
    assert not compiling()
    with pytest.raises(KeyError), tracing():
        assert compiling()
        raise KeyError
    assert not compiling()
