"""Whether a run that says that it runs does so."""

import os
import subprocess
import sys
import time
from socket import gethostname

import pytest

from metarun.storage import liveness
from metarun.storage.liveness import is_alive
from metarun.storage.records import Position, Status

HERE, NOW = gethostname(), time.time()


def running(pid=None, host=HERE, updated=None):
    position = None if updated is None else Position(updated=updated)
    return Status(status="running", pid=pid, host=host, position=position)


@pytest.fixture
def ended():
    """The number of a process that has ended and was waited for."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_process_of_this_host_lives_while_it_is_there(ended):
    assert is_alive(running(os.getpid(), updated=time.time()), 0)
    assert is_alive(running(os.getpid()), time.time())  # an older run: by the time of its status.json
    assert not is_alive(running(ended, updated=time.time()), time.time())


def test_a_process_that_began_after_the_last_sign_is_another_of_the_same_number():
    """The number of a run that was killed last week may be that of an editor today."""
    assert not is_alive(running(os.getpid(), updated=liveness.began_at(os.getpid()) - 60), time.time())


def test_when_a_process_began_is_what_ps_says():
    elapsed = subprocess.run(["ps", "-o", "etimes=", "-p", str(os.getpid())], capture_output=True, text=True).stdout
    began = liveness.began_at(os.getpid())
    assert began is not None
    assert abs(time.time() - began - float(elapsed)) < 3


def test_a_killed_process_that_nobody_waited_for_is_dead():
    """In a container without an init process, killed ones stay in the table."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(running(process.pid, updated=time.time()), 0)


def test_a_run_of_another_host_lives_as_long_as_it_gives_signs():
    for age, lives in ((10, True), (liveness.SILENT + 10, False)):
        assert is_alive(running(os.getpid(), "elsewhere", time.time() - age), 0) is lives
        assert is_alive(running(None, None, time.time() - age), 0) is lives
    assert is_alive(running(1, "elsewhere"), time.time() - 3600)  # it wrote at checkpoints only
    assert not is_alive(running(1, "elsewhere"), time.time() - 2 * liveness.SILENT_OLD)


def test_where_the_system_does_not_say_when_a_process_began_its_last_sign_counts(monkeypatch):
    monkeypatch.setattr(liveness, "began_at", lambda pid: None)
    assert is_alive(running(os.getpid(), updated=time.time()), 0)
    assert not is_alive(running(os.getpid(), updated=time.time() - liveness.SILENT - 10), 0)


@pytest.mark.parametrize("pid", [0, -1, 2**31, 10**30])
def test_numbers_that_no_process_has_are_dead(pid):
    assert not is_alive(running(pid, updated=time.time()), time.time())


@pytest.mark.parametrize("status", ["done", "failed", "stopped"])
def test_a_run_that_ended_does_not_live(status):
    assert not is_alive(Status(status=status, pid=os.getpid(), host=HERE), time.time())
