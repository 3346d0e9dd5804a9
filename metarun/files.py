"""Files that are whole or as they were; reading of bounded, regular files.

Every byte of a run directory goes through here, by the system's own calls, so that a test can cut the power at each.
"""

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = "METARUN_LOCK"  # in the environment; `off`: go on without a lock where the file system has none

log = logging.getLogger("metarun")


class NoLocksError(OSError):
    """The file system has no locks; names the folder or the file."""


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Holds a folder, or a file that is made if need be; the kernel lets go when the process ends, however it ends.

    Of all processes one at a time is inside; with `wait` the others wait for it.

    Raises:
        BlockingIOError: another process holds it; not with `wait`.
        NoLocksError: there are no locks, as on some network disks, and METARUN_LOCK is not `off`.
        OSError: it cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY) if path.is_dir() else Appended(path).handle
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            log.info("waiting for another process, which has %s", path)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if os.environ.get(LOCK) != "off":
                raise NoLocksError(error.errno, f"{error.strerror}: its file system has no locks", str(path)) from error
            log.warning("%s: no lock (%s, %s=off): one process at a time may write there", path, error.strerror, LOCK)
        yield
    finally:
        os.close(handle)


def check_parent(path: Path) -> None:
    """Raises OSError where the folder of a file can neither be written nor made."""
    folder = next(above for above in path.absolute().parents if above.exists())
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is a file", str(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{folder} cannot be written", str(path))


def write_atomically(path: Path, content: bytes, sync: bool = True) -> None:
    """The file has this content afterwards, or is as it was; never anything in between.

    One process at a time may write a path: run directories and caches are locked by who writes there. Without `sync`
    the disk is not waited for, and when power is lost the file may be empty.

    Raises:
        OSError: it cannot be written; names the file.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # left by a process that was killed, or a link laid by a stranger
        file = Appended(temporary, os.O_EXCL)
        try:
            file.write(content)
            if sync:
                file.sync()
        finally:
            file.close()
        os.replace(temporary, path)
        if sync:
            _sync_folder(path.parent)
    except BaseException as error:
        _unlink(temporary)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise


class Appended:
    """A file that grows at its end, and is made if it is not there. No link is followed, no pipe waited for.

    Args:
        path: of the file.
        flags: more of os.open's.
    """

    def __init__(self, path: Path, flags: int = 0):
        self.path = path
        safe = os.O_NOFOLLOW | os.O_NONBLOCK
        self.handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | safe | flags, 0o666)

    def write(self, content: bytes) -> None:
        """Adds all of the content.

        Raises:
            OSError: it cannot be written, or not all of it; names the file.
        """
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[os.write(self.handle, rest) :]
        except OSError as error:
            error.filename = str(self.path)
            raise

    def sync(self) -> None:
        """Waits until it is on the disk."""
        os.fsync(self.handle)

    def close(self) -> None:
        """Closes it."""
        os.close(self.handle)


def read(path: Path, most: int) -> bytes:
    """The content of a file.

    Raises:
        OSError: it cannot be read; or is a link, a pipe or a device; or has more than `most` bytes.
    """
    with _opened(path) as (handle, size):
        if size > most:
            raise OSError(errno.EFBIG, f"has {size} bytes, over {most}", str(path))
        with open(handle, "rb", closefd=False) as file:
            return file.read(size)  # not `most`, for which Python would set memory aside


def read_beginning(path: Path, count: int) -> bytes:
    """The first `count` bytes of a file, or all that it has. Raises OSError: it cannot be read, or is no file."""
    with _opened(path) as (handle, _):
        return os.read(handle, count)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, int]]:
    """The handle of a regular file, for reading, and its bytes."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # or a pipe would keep us waiting
    except OSError as error:
        if not path.is_symlink():
            raise
        raise OSError(errno.EINVAL, "a symbolic link instead of a file", str(path)) from error
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield handle, facts.st_size
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unlink(path: Path) -> None:
    with suppress(OSError):  # whatever keeps us from removing it is being reported already
        path.unlink(missing_ok=True)
