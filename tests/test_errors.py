"""An error of the operating system is said as what it is about: never as metarun's own, nor as stdout's."""

import errno
import os
import socket
import urllib.error

import pytest

from metarun.errors import describe_os_error

CASES = [  # the error, its exit code, what the line says
    (OSError(errno.ENOSPC, "No space left on device", "run/a"), 4, "run/a: No space left on device (file system): expected a disk with room"),
    (OSError(errno.EACCES, "Permission denied", "run/a"), 4, "run/a: Permission denied (file system): expected a place that can be read and written; mend"),
    (OSError(errno.EROFS, "Read-only file system", b"run/\xff"), 4, "run/\udcff: Read-only file system (file system)"),
    (OSError(errno.ENOTDIR, "Not a directory", "f/a"), 4, "expected a folder, and found a file"),
    (OSError(errno.EMFILE, "Too many open files", "run/a"), 1, "Too many open files (open files): expected fewer"),
    (OSError(errno.EMFILE, "Too many open files"), 1, "(open files)"),
    (OSError(errno.ENOSPC, "No space left on device"), 4, "No space left on device (disk): expected room for temporary files"),
    (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), 1, "(processes and threads): expected some to spare"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, "Cannot allocate memory (memory)"),
    (OSError(errno.EADDRINUSE, "Address already in use"), 1, "(network)"),
    (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), 1, "Connection refused (network): expected a connection"),
    (socket.gaierror(-2, "Name or service not known"), 1, "Name or service not known (network)"),
    (urllib.error.URLError("no route"), 1, "no route> (network)"),
    (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), 4, "set TMPDIR"),
    (OSError("Matplotlib requires access to a writable cache directory"), 1, "writable cache directory (operating system)"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "code", "said"), CASES, ids=lambda value: repr(value)[:50])
def test_the_system_is_quoted_with_what_was_short(error, code, said):
    described = describe_os_error(error)
    assert described.code == code
    assert said in str(described)


def test_a_working_directory_that_was_removed_is_named(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        os.getcwd()
    assert str(describe_os_error(caught.value)).startswith("the working directory (file system): was removed")
