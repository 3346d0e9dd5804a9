"""A signal stops a run after the outer step in training, and at once elsewhere."""

import os
import signal

import pytest

from metarun.errors import StoppedError
from metarun.run.signals import stop_at_once, stop_between_steps


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"])
def test_signals_wait_for_the_step_in_training_and_act_at_once_elsewhere(name):
    signum = getattr(signal, name)
    before = signal.getsignal(signum)
    with pytest.raises(StoppedError, match=f"{name}: stopped; try again") as caught, stop_at_once("try again"):
        with stop_between_steps() as received:
            os.kill(os.getpid(), signum)
            assert received() == signum
        os.kill(os.getpid(), signum)
        pytest.fail("the second one came outside of training")
    assert caught.value.code == 128 + signum
    with pytest.raises(StoppedError), stop_at_once("try again"), stop_between_steps() as received:
        os.kill(os.getpid(), signum)
        os.kill(os.getpid(), signum)
        pytest.fail("the second one of a kind acts at once")
    assert signal.getsignal(signum) is before


def test_a_signal_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_at_once("try again"):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
