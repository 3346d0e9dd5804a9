"""Writing files: whole, whatever the system does in small pieces."""

import errno
import fcntl
import logging
import os
import threading
import time

import pytest

from metarun.files import Appended, NoLocksError, locked, read, write_atomically


def test_what_the_system_writes_in_pieces_is_written_whole(tmp_path, monkeypatch):
    """A nearly full disk and a signal make os.write return early."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, bytes(content)[:3]))
    write_atomically(tmp_path / "a", b"0123456789")
    file = Appended(tmp_path / "a")
    file.write(b"abcdefgh")
    file.close()
    assert (tmp_path / "a").read_bytes() == b"0123456789abcdefgh"


def test_nothing_is_written_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("a", ".a.tmp"):
        (tmp_path / name).symlink_to(victim)
    write_atomically(tmp_path / "a", b"new")
    (tmp_path / "b").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        Appended(tmp_path / "b")
    with pytest.raises(OSError, match="symbolic link"):
        read(tmp_path / "b", 100)
    assert victim.read_text() == "precious"
    assert (tmp_path / "a").read_bytes() == b"new"


def test_reading_is_bounded_and_never_waits(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="has 5 bytes, over 4"):
        read(tmp_path / "a", 4)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(OSError, match="not a regular file"):
            read(type(tmp_path)(path), 100)


@pytest.mark.parametrize("name", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
@pytest.mark.parametrize("place", ["folder", "folder/file.lock"])
def test_where_there_are_no_locks_that_is_said_unless_it_is_known(tmp_path, monkeypatch, caplog, name, place):
    """As NFS and Lustre may answer."""
    (tmp_path / "folder").mkdir()
    number = getattr(errno, name)

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.delenv("METARUN_LOCK", raising=False)
    with pytest.raises(NoLocksError, match="has no locks") as caught, locked(tmp_path / place, wait=False):
        pytest.fail("inside")
    assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / place))
    monkeypatch.setenv("METARUN_LOCK", "off")
    monkeypatch.setattr("metarun.files.log.propagate", True)
    with locked(tmp_path / place, wait=False):
        assert caplog.messages == [
            f"{tmp_path / place}: no lock ({os.strerror(number)}, METARUN_LOCK=off): one process at a time may write there"
        ]


def test_locks_hold_whatever_the_environment_says_where_there_are_some(tmp_path, monkeypatch):
    monkeypatch.setenv("METARUN_LOCK", "off")
    handles = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with locked(tmp_path, wait=False), pytest.raises(BlockingIOError), locked(tmp_path, wait=False):
        pytest.fail("held twice")
    with locked(tmp_path, wait=True):
        pass
    assert not handles or len(os.listdir("/proc/self/fd")) == handles, "nothing stays open"


def test_waiting_for_a_lock_is_said(tmp_path, caplog):
    caplog.set_level("INFO", "metarun")
    logging.getLogger("metarun").propagate = True
    with locked(tmp_path / "lock", wait=True):
        assert not caplog.messages
        waiting = threading.Thread(target=lambda: locked(tmp_path / "lock", wait=True).__enter__(), daemon=True)
        waiting.start()
        while not caplog.messages:
            time.sleep(0.001)
    waiting.join(10)
    assert caplog.messages == [f"waiting for another process, which has {tmp_path / 'lock'}"]
