"""What can go wrong, each with its exit code, and the checks that constructors make of their settings.

Every message is one line: WHAT (WHERE): what was expected; what to do.
"""

import errno
import math
import os
from collections.abc import Iterable
from typing import Any

from metarun.text import nearest, reason, spell


class MetarunError(Exception):
    """Anything that metarun itself reports; `code` is the exit code of the command."""

    code = 1


class UsageError(MetarunError):
    """The command line or the config is wrong."""

    code = 2


class DataError(MetarunError):
    """The data is missing, incomplete or altered."""

    code = 3


class RunDirError(MetarunError):
    """A run directory or a checkpoint cannot be written, read or trusted."""

    code = 4


class DivergedError(MetarunError):
    """A loss, a meta-gradient or a metric is no longer finite.

    Attributes:
        objective: the validation, where only the test was not finite: a search must not see that.
    """

    code = 5
    objective: float | None = None


class MemoryShortError(MetarunError):
    """The tasks that are computed at once do not fit into memory."""


class ProcessEndedError(MetarunError):
    """Another process of the same run is gone."""


class DiffersError(MetarunError):
    """A reproduction differs from its original."""

    code = 6


class StoppedError(MetarunError):
    """A signal stopped the run. In meta-training a checkpoint was saved first."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.code = 128 + signum


class PrunedError(MetarunError):
    """A search gave a run up, by its validations. A checkpoint was saved first."""


class SettingError(ValueError):
    """A constructor was given a value outside its range.

    Args:
        value: what was given.
        name: the argument's name; config.targets.build() puts the section before it.
        expected: the rule, and where it helps the remedy.
    """

    def __init__(self, value: Any, name: str, expected: str):
        super().__init__(f"{spell(value)} ({name}): expected {expected}")
        self.value, self.name, self.expected = value, name, expected


ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK = {  # of a file that is named, by errno: what was expected
    **dict.fromkeys(ROOM, "a disk with room"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "a folder, and found a file"),
    errno.EROFS: "a file system that is not read-only",
    errno.ENAMETOOLONG: "a name that the file system takes, a shorter one",
    errno.ELOOP: "a path without a loop of links",
    errno.EIO: "a disk that works; see the system's log",
    errno.ESTALE: "a network disk that is still mounted",
}
SYSTEM = {  # where no file is named, by errno: what is short; what was expected; what to do
    **dict.fromkeys(ROOM, ("disk", "room for temporary files and shared memory; make room in /tmp and /dev/shm")),
    errno.EMFILE: ("open files", "fewer than this process may have; raise that: ulimit -n 4096"),
    errno.ENFILE: ("open files", "fewer than the system allows; end other programs"),
    errno.ENOMEM: ("memory", "some to spare; end other programs, or compute fewer tasks at once: engine.chunk=1"),
    errno.EAGAIN: ("processes and threads", "some to spare; end other programs, or raise ulimit -u"),
    **dict.fromkeys(
        (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ETIMEDOUT),
        ("network", "a connection; mend that, or take another address or port"),
    ),
}


def describe_os_error(error: OSError, remedy: str = "mend that") -> MetarunError:
    """An error of the operating system as what it is about: a file if it names one, else what was short.

    `remedy` is for a file that cannot be written, unless the disk is full. The error is a RunDirError where a file or a
    disk is the matter.
    """
    number = error.errno or 0
    if error.filename is not None and number not in (errno.EMFILE, errno.ENFILE):
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else error.filename
        rule = DISK.get(number, "a place that can be read and written")
        remedy = "make room" if number in ROOM else remedy
        return RunDirError(f"{name}: {reason(error)} (file system): expected {rule}; {remedy}")
    if number == errno.ENOENT and not _has_working_directory():
        return RunDirError("the working directory (file system): was removed; expected it to stay; cd to another")
    if "temporary directory" in str(error):  # as Python's tempfile has it
        return RunDirError("no folder for temporary files (file system): expected one with room, as /tmp; set TMPDIR")
    if number in SYSTEM:
        what, rule = SYSTEM[number]
        kind = RunDirError if number in ROOM else MetarunError
        return kind(f"{reason(error)} ({what}): expected {rule}")
    if isinstance(error, (ConnectionError, TimeoutError)) or type(error).__module__ in ("socket", "urllib.error"):
        return MetarunError(f"{reason(error)} (network): expected a connection; mend that")
    return MetarunError(f"{reason(error)} (operating system): expected it to go well; METARUN_DEBUG=1 shows where")


def _has_working_directory() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def positive(name: str, value: float) -> None:
    """Raises SettingError unless value is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise SettingError(value, name, "a finite number above 0")


def at_least(least: int, **values: int) -> None:
    """Raises SettingError unless every value is an integer of at least `least`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SettingError(value, name, f"an integer of at least {least}")


def boolean(**values: bool) -> None:
    """Raises SettingError unless every value is true or false."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise SettingError(value, name, "true or false")


def one_of(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raises SettingError unless value is one of the choices."""
    choices = list(choices)
    if value not in choices:
        raise SettingError(value, name, f"one of {', '.join(choices)}{nearest(str(value), choices)}")
