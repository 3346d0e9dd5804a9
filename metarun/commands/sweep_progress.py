"""How far a sweep is: its jobs note in a file when they begin and end, wherever they run, and a thread here reads that.

On a terminal there is a bar of the jobs, elsewhere a line by the clock; in both a line for each job.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from metarun.errors import MetarunError
from metarun.run.pace import FIRST_LINE, LINES
from metarun.storage.rundir import RunDir
from metarun.text import count_of, format_duration, is_terminal

NOTES = "METARUN_NOTES"  # in the environment of each job: the file to which it adds a line when it begins and ends
TICK = 0.5  # seconds
BAR = "{desc}: {n_fmt}/{total_fmt} jobs |{bar}| [{elapsed}{postfix}]"

log = logging.getLogger("metarun")


def note(job: int, words: list[str], folder: Path, **facts: Any) -> None:
    """Notes that a job, by its number from 0, begins; or with `seconds` that it ended, and with `error` how it failed.

    Its own folder may be in use or another run's, and then says nothing.
    """
    line = {"job": job, "words": words, "folder": str(folder.resolve()), **facts}
    path = Path(os.environ[NOTES])
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read_notes(path: Path) -> list[dict[str, Any]]:
    """The notes so far, without a line that is being written, or was cut by a full disk; [] where there is no file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    notes = []
    for line in lines:
        with suppress(json.JSONDecodeError):
            notes += [json.loads(line)] if line.endswith("\n") else []
    return notes


def estimate_left(
    ended: Sequence[float], going: Sequence[tuple[float, float | None]], waiting: int, at_once: int
) -> float | None:
    """Seconds that a sweep still takes; None where no job's length is known.

    Args:
        ended: seconds that jobs took.
        going: of each job that runs the seconds since its begin, and those that it says are left.
        waiting: jobs that have not begun, each of which takes as long as others on average.
        at_once: jobs that run at the same time.
    """
    known = [*ended, *(since + left for since, left in going if left is not None)]
    if not known:
        return None
    mean = fmean(known)
    rest = [max(mean - since, 0.0) if left is None else left for since, left in going]
    return max([(sum(rest) + waiting * mean) / max(at_once, 1), *rest])


@dataclass
class _Going:
    """A job that runs."""

    since: float
    folder: Path


class SweepProgress:
    """Says which jobs begin and end, and how long the sweep still takes.

    Args:
        notes: the file of notes.
        jobs: how many there are; of a search at most.
        shared: words that all of them have.
        describe: the result of a run, in words.
        now: gives seconds.
    """

    def __init__(
        self,
        notes: Path,
        jobs: int,
        shared: Sequence[str],
        describe: Callable[[RunDir], str],
        now: Callable[[], float] = time.monotonic,
    ):
        from tqdm import tqdm

        self.notes, self.jobs, self.shared, self.describe, self.now = notes, jobs, set(shared), describe, now
        self.read = self.most = self.count = 0
        self.going: dict[int, _Going] = {}
        self.ended: list[float] = []
        self.line_at = now() + FIRST_LINE
        terminal = is_terminal(sys.stderr)
        self.bar = tqdm(total=jobs, desc="sweep", bar_format=BAR, dynamic_ncols=True, disable=not terminal)

    def tick(self) -> None:
        """Says what is new."""
        notes = read_notes(self.notes)
        new, self.read = notes[self.read :], len(notes)
        over = {line["job"] for line in new if "seconds" in line}
        for line in new:
            if "seconds" in line:
                self._end(line)
            else:
                self.going[line["job"]] = _Going(self.now(), Path(line["folder"]))
                if line["job"] not in over:
                    log.info("job %d of %d: %s", line["job"] + 1, self.jobs, self._name(line))
        self.most = max(self.most, len(self.going))
        if not self.bar.disable:
            self.bar.set_postfix_str(self._describe_going())
        elif self.now() >= self.line_at:
            self.line_at = self.now() + LINES
            log.info("%d of %d jobs have ended, %s", self.count, self.jobs, self._describe_going())

    def close(self) -> None:
        """Says the rest, and closes the bar."""
        self.tick()
        self.bar.close()

    def _end(self, line: dict[str, Any]) -> None:
        self.going.pop(line["job"], None)
        self.count += 1
        rundir, seconds = RunDir(Path(line["folder"])), line["seconds"]
        result = f"failed: {line['error']}" if line.get("error") else self._result(rundir)
        if line.get("began") is None or not _was_finished(rundir, line["began"]):
            self.ended.append(seconds)
        log.info(
            "job %d of %d: %s: %s (%s)", line["job"] + 1, self.jobs, self._name(line), result, format_duration(seconds)
        )
        self.bar.update()

    def _result(self, rundir: RunDir) -> str:
        try:
            return self.describe(rundir)
        except MetarunError as error:
            return str(error)

    def _name(self, line: dict[str, Any]) -> str:
        return " ".join(word for word in line["words"] if word not in self.shared) or "the default"

    def _describe_going(self) -> str:
        """The job that runs, or how many do, and the time that is left."""
        found, places = [], []
        for number, job in self.going.items():
            status = None
            with suppress(MetarunError, OSError):
                status = RunDir(job.folder).status()
            position = status.position if status and status.status == "running" else None
            found.append((self.now() - job.since, position.seconds_left if position else None))
            if status and position:
                places.append(f"job {number + 1} at outer step {status.step} of {status.steps}, {position.doing}")
        waiting = max(self.jobs - self.count - len(self.going), 0)
        if not found and not waiting:
            return ""
        parts = places if len(found) == 1 else [f"{count_of(len(found), 'job')} running"]
        if (left := estimate_left(self.ended, found, waiting, self.most)) is not None:
            parts.append(f"{format_duration(left)} left")
        return ", ".join(parts)


def _was_finished(rundir: RunDir, began: float) -> bool:
    """Whether a run was finished before this sweep came to it."""
    with suppress(OSError):
        return (rundir.path / "summary.json").stat().st_mtime < began
    return False


@contextmanager
def following(progress: SweepProgress) -> Iterator[None]:
    """Inside, a thread says how far a sweep is."""
    end = threading.Event()

    def tick_until_the_end() -> None:
        while not end.wait(TICK):
            with suppress(OSError):  # as on a disk of the network, for a moment
                progress.tick()

    thread = threading.Thread(target=tick_until_the_end, name="metarun sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        with suppress(OSError):
            progress.close()
