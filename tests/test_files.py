"""Writing files: whole, whatever the system does in small pieces."""

import os

import pytest

from metarun.files import Appended, read, write_atomically


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
