"""The ranks of this command, as torchrun or a sweep's launcher gives them by the environment. Imports no torch."""

import os
from typing import Any

from metarun.errors import UsageError

JOB = "METARUN_JOB"  # the number of a job that runs beside others


def _number(name: str, default: int, least: int) -> int:
    value = os.environ.get(name, "") or str(default)
    if not value.isdecimal() or int(value) < least:
        raise UsageError(f"{value!r} ({name}): expected an integer of at least {least}, as torchrun sets it; unset it")
    return int(value)


def world_size() -> int:
    """How many processes share this run."""
    return _number("WORLD_SIZE", 1, 1)


def is_rank_zero() -> bool:
    """Whether this process is the one that writes and speaks."""
    return world_size() == 1 or _number("RANK", 0, 0) == 0


def refuse_several_processes(command: str) -> None:
    """Raises UsageError for a command that several processes of torchrun would all carry out."""
    if world_size() > 1:
        raise UsageError(
            f"{command} (torchrun): expected one process; torchrun is for training: a run, or metarun resume"
        )


def local_gpu(gpus: int) -> int:
    """The number of this process's own GPU: its rank on this machine, or jobs of a sweep by turns."""
    return _number("LOCAL_RANK", 0, 0) if world_size() > 1 else _number(JOB, 0, 0) % gpus


def share_the_machine(job: int, launcher: dict[str, Any]) -> None:
    """Gives a job of a sweep, by its number and its Hydra launcher's settings, its part of the machine.

    joblib and Ray limit threads themselves; submitit says only what a job asked for (cpus_per_task, else one).
    """
    name = launcher["_target_"]
    if name.endswith("BasicLauncher"):  # one job after the other
        return
    os.environ[JOB] = str(job)
    if "submitit" in name:
        os.environ.setdefault("OMP_NUM_THREADS", str(launcher.get("cpus_per_task") or 1))
