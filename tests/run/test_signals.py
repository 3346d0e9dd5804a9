"""A signal stops a run after the outer step in training, and at once elsewhere."""

import os
import signal

import pytest

from metarun.errors import MetarunError, StoppedError
from metarun.run.signals import handing_on, stop_at_once, stop_between_steps


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"])
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


def test_nothing_that_handles_errors_takes_a_signal_for_one():
    """As a logger that is left out, a checkpoint that is passed over, and OmegaConf, which makes errors anew."""
    with pytest.raises(StoppedError, match="SIGTERM: stopped; try again") as caught, stop_at_once("try again"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception as error:
            raise ValueError(f"passed over: {error}") from error
    assert caught.value.code == 128 + signal.SIGTERM


def test_a_signal_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_at_once("try again"):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_signal_that_stopped_a_run_goes_on_to_submitit_and_to_nobody_else(monkeypatch):
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda *_: heard.append("requeue"))
    try:
        for launched, expected in ((False, []), (True, ["requeue"])):
            if launched:
                monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
            with pytest.raises(StoppedError), handing_on(signal.SIGUSR2), stop_at_once("try again"):
                os.kill(os.getpid(), signal.SIGUSR2)
            assert heard == expected
        with pytest.raises(StoppedError), handing_on(signal.SIGUSR2), stop_at_once("try again"):
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == ["requeue"], "of SIGTERM submitit only says that it came"
        signal.signal(signal.SIGUSR2, lambda *_: 1 / 0)
        with (
            pytest.raises(MetarunError, match="try again") as caught,
            handing_on(signal.SIGUSR2),
            stop_at_once("try again"),
        ):
            os.kill(os.getpid(), signal.SIGUSR2)
        assert caught.value.code == 1, "not requeued, as its time is over: a job that failed"
    finally:
        signal.signal(signal.SIGUSR2, before)
