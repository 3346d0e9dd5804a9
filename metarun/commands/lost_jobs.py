"""Jobs of submitit's launchers that end without a word, as Slurm kills or cancels them: they failed, the others go on.

submitit raises at the first of them, while others still run. On Slurm it learns of them from sacct, which needs a
database, and does not know a job of an array that was cancelled before it began: it would wait for that for ever.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hydra.core.utils import JobReturn, JobStatus, env_override
from omegaconf import open_dict

from metarun.commands.sweep_progress import note
from metarun.config.overrides import spell_as_typed
from metarun.errors import MetarunError
from metarun.run.signals import stop_at_once
from metarun.storage.rundir import RunDir
from metarun.text import short_path

OVER = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
SLURM = "jobs go on in Slurm (squeue --me), unless scancel ends them"
GONE = "not in the queue"  # minutes after its end, or when it was cancelled while it waited


@contextmanager
def outliving_lost_jobs(launcher: str) -> Iterator[None]:
    """Inside, a job that a launcher, by its class's name, has lost is noted as failed, and counts as one."""
    if "submitit" not in launcher:
        yield
        return
    from submitit.core.core import Job
    from submitit.core.utils import UncompletedJobError
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    class Queue(SlurmInfoWatcher):
        """Learns of jobs from squeue, which knows all that are not over."""

        def _make_command(self) -> list[str]:
            return ["squeue", "--me", "--array", "--noheader", "--states=all", "--format=%i|%T"]

        def read_info(self, string: str | bytes) -> dict[str, dict[str, str]]:
            return read_queue(string if isinstance(string, str) else string.decode(), self._registered)

    wait = Job.results

    def results(self: Any) -> list[Any]:
        try:
            return wait(self)
        except UncompletedJobError:
            return [give_up(self)]

    telling = stop_at_once(SLURM) if "Slurm" in launcher else nullcontext()
    with patch.object(Job, "results", results), patch.object(SlurmJob, "watcher", Queue(delay_s=30)), telling:
        yield


def read_queue(text: str, jobs: set[str]) -> dict[str, dict[str, str]]:
    """The states of these jobs, as submitit knows them, in what squeue has printed: RUNNING is all that is not over."""
    found = dict(line.split("|", 1) for line in text.split() if "|" in line)
    states = {job: found.get(job, GONE) for job in jobs}
    return {job: {"State": state if state in (*OVER, GONE) else "RUNNING"} for job, state in states.items()}


def give_up(job: Any) -> JobReturn:
    """Notes that a job of submitit was lost, in its run too unless that says why it ended; returns what it returns."""
    submission = job.submission()
    launcher, (words, _, number, *_) = submission.function, submission.args
    config = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, words)
    with open_dict(config):
        config.hydra.job.num, config.hydra.job.id = number, job.job_id
        folder = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir)
        config.hydra.runtime.output_dir = str(folder)
    logs = short_path(Path(job.paths.folder))
    error = f"{job.state} (job {job.job_id}): expected a result; see {logs}"
    rundir = RunDir(folder)
    with suppress(MetarunError, OSError):
        status = rundir.status()
        if status and status.status == "stopped" and status.error:
            error = status.error
        elif status and status.status == "running":
            with rundir.claimed():
                rundir.write_status("failed", status.step, error, steps=status.steps)
    with env_override(config.hydra.job.env_set):
        note(number, spell_as_typed(config.hydra.overrides.task), folder, seconds=0.0, error=error)
    return JobReturn(overrides=words, hydra_cfg=config, status=JobStatus.COMPLETED)
