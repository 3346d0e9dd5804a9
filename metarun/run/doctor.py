"""What this machine has of all that metarun needs, or can use: looked at one by one, so that one lack hides no other.

Every check imports what it needs itself: without torch, too, there is an answer.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from pydantic import Field

from metarun.config.keys import ENVIRONMENT
from metarun.config.own_code import trusted
from metarun.errors import MetarunError
from metarun.files import LOCK, locked
from metarun.storage.records import Record
from metarun.text import closest, count_of, did_you_mean, format_bytes, short_path

NEEDED = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "pandas", "pillow", "matplotlib", "pydantic")
NEEDED += ("jinja2", "safetensors", "tqdm")
MODULES = {"hydra-core": "hydra", "pillow": "PIL"}  # where the name to import is another
OPTIONAL = {  # module: the extra that brings it, and what for
    "optuna": ("optuna", "searches: -m sweep=optuna"),
    "hydra_plugins.hydra_optuna_sweeper": ("optuna", "searches: -m sweep=optuna"),
    "hydra_plugins.hydra_joblib_launcher": ("parallel", "sweeps on several cores: hydra/launcher=joblib"),
    "hydra_plugins.hydra_ray_launcher": ("ray", "sweeps on Ray: hydra/launcher=ray"),
    "hydra_plugins.hydra_submitit_launcher": ("slurm", "sweeps on Slurm: hydra/launcher=submitit_slurm"),
    "tensorboard": ("tensorboard", "logger=tensorboard"),
    "wandb": ("wandb", "logger=wandb"),
    "mlflow": ("mlflow", "logger=mlflow"),
    "pyarrow": ("parquet", "tables in Parquet"),
}
INTERNAL = ("METARUN_JOB", "METARUN_NOTES", "METARUN_TRIAL")  # which metarun sets for the jobs of a sweep
DATA_SETS = {  # of torchvision: what its folder holds
    **{name: f"{name}/raw" for name in ("MNIST", "FashionMNIST", "KMNIST", "EMNIST", "QMNIST")},
    **{"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python", "SVHN": "train_32x32.mat"},
    **{"GTSRB": "gtsrb", "EuroSAT": "eurosat", "DTD": "dtd", "Flowers102": "flowers-102", "Food101": "food-101"},
}
LEAST_ROOM = 10**9  # bytes


class Finding(Record):
    """One thing that was looked at."""

    subject: str  # such as torch, METARUN_DATA, gradient
    state: Literal["ok", "missing", "failed"]
    needed: bool = True  # whether runs need it
    says: str = ""  # a version, a path, a figure, or what is wrong
    remedy: str = ""  # '' where it is ok


class Checkup(Record):
    """What `metarun doctor format=json` prints."""

    ok: bool  # whether all is there that runs need
    findings: list[Finding] = Field(default=[])  # in the order in which they were looked at


def examine() -> Iterator[Finding]:
    """Looks at everything, one by one; takes some seconds, most of them for importing torch."""
    yield Finding(subject="python", state="ok", says=f"{platform.python_version()} ({sys.executable})")
    yield Finding(subject="metarun", state="ok", says=f"{_version('metarun')} ({Path(__file__).parents[1]})")
    for package in NEEDED:
        yield _check(package, lambda package=package: _look_at_package(package), "pip install --upgrade metarun")
    yield _check("device", _look_at_device, "install the build of torch that fits this machine")
    yield from _look_at_environment()
    yield from _look_at_data()
    yield _check("cache", _look_at_cache, "set XDG_CACHE_HOME to a folder that can be written")
    yield _check("disk", _look_at_disk, "make room, or set hydra.run.dir to another disk")
    yield _check("locks", _try_lock, f"choose another hydra.run.dir, or set {LOCK}=off and run one process at a time")
    for module, (extra, purpose) in OPTIONAL.items():
        yield _look_at_extra(module, extra, purpose)
    yield _look_at_compiler()
    yield _check("gradient", _check_gradient, "report it with these lines; until then engine=loop")


def _check(subject: str, look: Callable[[], str], remedy: str) -> Finding:
    """What looking finds; what it raises is what is wrong."""
    try:
        return Finding(subject=subject, state="ok", says=look())
    except (ImportError, metadata.PackageNotFoundError) as error:
        return Finding(subject=subject, state="missing", says=_one_line(error), remedy=remedy)
    except Exception as error:
        return Finding(subject=subject, state="failed", says=_one_line(error), remedy=remedy)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"


def _look_at_package(package: str) -> str:
    if util.find_spec(MODULES.get(package, package)) is None:
        raise ImportError("cannot be found")
    if package == "torchvision":
        from metarun.data.torchvision_sets import import_datasets

        import_datasets()
    return metadata.version(package)


def _look_at_device() -> str:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [
        f"cpu, {cores} cores, {count_of(torch.get_num_threads(), 'thread')}, {torch.backends.cpu.get_cpu_capability()}"
    ]
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        found.append(f"cuda:{number}, {facts.name}, {facts.total_memory / 2**30:.0f} GiB")
    return "; ".join(found)


def _look_at_environment() -> Iterator[Finding]:
    """The variables of metarun's that are set, and those that are misspelt."""
    for name in sorted(name for name in os.environ if name.startswith("METARUN_") and name not in INTERNAL):
        value = os.environ[name]
        if name not in ENVIRONMENT:
            remedy = f"unset it{did_you_mean(closest(name, ENVIRONMENT))}"
            yield Finding(
                subject=name, state="failed", needed=False, says="metarun has none of that name", remedy=remedy
            )
        elif name == "METARUN_DATA" and not Path(value).expanduser().is_dir():
            yield Finding(subject=name, state="missing", needed=False, says=value, remedy="expected a folder")
        else:
            yield Finding(subject=name, state="ok", needed=False, says=f"{value} ({ENVIRONMENT[name]})")
    for package in trusted()[2:]:
        if not _is_there(package.partition(".")[0]):
            remedy = "cd to the folder that it lies in, or name that: PYTHONPATH=FOLDER"
            yield Finding(subject=f"METARUN_TRUST {package}", state="missing", needed=False, remedy=remedy)


def _is_there(module: str) -> bool:
    try:
        return util.find_spec(module) is not None or Path(module).is_dir() or Path(f"{module}.py").is_file()
    except (ImportError, ValueError):
        return False


def _look_at_data() -> Iterator[Finding]:
    """The data sets whose files are there; a run downloads what it needs, or reads files of the user's."""
    try:
        from metarun.data.omniglot_archive import FOLDER, SETS
        from metarun.data.packing import cache, expand

        root = expand(os.environ.get("METARUN_DATA") or str(cache()))
    except (ImportError, MetarunError) as error:
        yield Finding(subject="data", state="failed", needed=False, says=_one_line(error), remedy="set METARUN_DATA")
        return
    yield Finding(subject="data", state="ok", says="sinusoid, tabular, sequences: generated; no files needed")
    home = root / FOLDER
    if all((home / name).is_dir() or (home / f"{name}.zip").is_file() for name in SETS):
        yield Finding(subject="data=omniglot", state="ok", needed=False, says=str(home))
    else:
        remedy = "the first run downloads it; or set METARUN_DATA or data.root"
        yield Finding(subject="data=omniglot", state="missing", needed=False, says=str(home), remedy=remedy)
    found = [name for name, place in DATA_SETS.items() if (root / place).exists()]
    remedy = "" if found else "a run with data.dataset=NAME downloads it"
    says = f"{', '.join(found) or 'none'} in {root}"
    state = "ok" if found else "missing"
    yield Finding(subject="data=torchvision", state=state, needed=False, says=says, remedy=remedy)


def _look_at_cache() -> str:
    from metarun.data.packing import cache

    folder = cache()
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{there} cannot be written")
    return f"{folder}, {len(files)} files, {format_bytes(sum(path.stat().st_size for path in files))}"


def _look_at_disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free
    if free < LEAST_ROOM:
        raise OSError(f"{format_bytes(free)} are free in {Path.cwd()}")
    return f"{format_bytes(free)} free in {Path.cwd()}"


def _try_lock() -> str:
    """Locks a folder where runs go, as a run does; leaves nothing."""
    where = Path("outputs") if Path("outputs").is_dir() else Path.cwd()
    with tempfile.TemporaryDirectory(dir=where, prefix=".metarun-") as folder, locked(Path(folder), wait=False):
        return f"one process at a time writes a run, in {short_path(where.resolve())}"


def _look_at_extra(module: str, extra: str, purpose: str) -> Finding:
    name = module.rpartition(".")[2]
    if _is_installed(module):
        return Finding(subject=name, state="ok", needed=False, says=purpose)
    return Finding(subject=name, state="missing", needed=False, says=purpose, remedy=f"pip install 'metarun[{extra}]'")


def _is_installed(module: str) -> bool:
    try:
        return util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _look_at_compiler() -> Finding:
    name, purpose = os.environ.get("CXX", "g++"), "engine=compile"
    if path := shutil.which(name):
        return Finding(subject="C++ compiler", state="ok", needed=False, says=f"{path} ({purpose})")
    remedy = "install g++, or set CXX"
    return Finding(subject="C++ compiler", state="missing", needed=False, says=purpose, remedy=remedy)


def _check_gradient() -> str:
    from metarun.run.gradient_check import compare_gradients

    return compare_gradients()
