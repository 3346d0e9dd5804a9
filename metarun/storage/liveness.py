"""Whether the process that a status.json names still runs, without a lock: a run that starts would be refused then."""

import os
import time
from contextlib import suppress
from pathlib import Path
from socket import gethostname

from metarun.storage.records import Status

SLACK = 2.0  # seconds by which clocks may be apart
SILENT = 300.0  # seconds without a sign after which a run of another host is taken for gone
SILENT_OLD = 86400.0  # the same, of an older run: its status.json was written at checkpoints only


def is_alive(status: Status, written: float) -> bool:
    """Whether the run of this status.json, which was last written at `written` (seconds since 1970), is going on.

    On its own host a run lives as long as its process. A process of the same number that began after the last sign of
    the run is another: the system uses numbers again. Of another host nothing can be seen but the age of that sign.
    """
    if status.status != "running":
        return False
    sign = status.position.updated if status.position and status.position.updated else written
    if status.pid is not None and status.host == gethostname():
        if not _exists(status.pid):
            return False
        if (began := began_at(status.pid)) is not None:
            return began <= sign + SLACK
    return time.time() - sign < (SILENT if status.position else SILENT_OLD)


def _exists(pid: int) -> bool:
    if not 0 < pid < 2**31:  # numbers that a stranger may have written, and that kill takes for a group
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and another user's
        return True
    return True


def began_at(pid: int) -> float | None:
    """When a process began, in seconds since 1970; infinity for a dead one that was not waited for.

    None where the system does not say: it has no /proc, or hides the processes of others.
    """
    with suppress(OSError, ValueError, IndexError, AttributeError):
        # The name, in brackets, may hold anything; then come the state, and 19 fields later the start in clock ticks.
        state, *rest = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        if state in (b"Z", b"X"):
            return float("inf")
        since_boot = int(rest[18]) / os.sysconf("SC_CLK_TCK")
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
    return None
