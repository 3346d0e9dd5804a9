"""Where a run computed: everything outside the config that the last digits can depend on."""

import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

from metarun import intervals
from metarun.config.schema import Config
from metarun.data.inputs import describe_inputs
from metarun.engine.chunking import Chunks
from metarun.engine.loop import Experiment
from metarun.run.identity import identify
from metarun.storage.records import Git, Session
from metarun.tasks import SPLITS, Split, clusters_of

PACKAGES = ("metarun", "torch", "torchvision", "numpy", "pillow", "hydra-core", "omegaconf")


def describe_session(
    config: Config, experiment: Experiment, chunks: Chunks, splits: Sequence[Split] = SPLITS
) -> Session:
    """The session of this process, which takes tasks of these splits. No secrets: no environment variables."""
    device = experiment.device
    independent = clusters_of(experiment.source, config.seed, "test", torch.arange(1)) is None
    return Session(
        versions={"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        git=_git(),
        argv=sys.orig_argv[1:],
        platform=platform.platform(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        intervals=intervals.NAME if independent else intervals.CLUSTERED,
        threads=torch.get_num_threads(),
        config=config.fingerprint,
        seed=config.seed,
        processes=experiment.processes.size,
        chunk=chunks.train,
        eval_chunk=chunks.test,
        inputs=describe_inputs(experiment.source),
        outputs=experiment.source.outputs,
        **identify(config, experiment, splits).model_dump(),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> Git | None:
    """The commit of metarun's own checkout, or None outside one."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None

    def git(*words: str) -> str:
        return subprocess.check_output(["git", "-C", checkout, *words], stderr=subprocess.DEVNULL, text=True).strip()

    try:
        return Git(commit=git("rev-parse", "HEAD"), dirty=bool(git("status", "--porcelain")))
    except (OSError, subprocess.CalledProcessError):
        return None
