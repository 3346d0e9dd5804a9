"""Checkpoints that are whole or absent.

A checkpoint is `step-N.pt` and, written after it, `step-N.json` with its size and SHA-256: without a manifest that
matches, it does not exist. Both come by a temporary file, fsync, rename and fsync of the folder. They hold tensors and
plain values, and are read with weights_only=True. torch itself does not notice a flipped bit; the digest does.
"""

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import torch

from metarun.errors import RunDirError
from metarun.files import write_atomically

log = logging.getLogger("metarun")


def save(folder: Path, step: int, payload: dict[str, Any], keep: set[int]) -> None:
    """Writes the checkpoint of a step, then removes all others but the two newest and those in `keep`."""
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    content = buffer.getvalue()
    manifest = {"step": step, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_atomically(folder / f"step-{step:08d}.pt", content)
    write_atomically(folder / f"step-{step:08d}.json", json.dumps(manifest).encode())
    for old in steps(folder)[2:]:
        if old not in keep:
            (folder / f"step-{old:08d}.json").unlink()
            (folder / f"step-{old:08d}.pt").unlink()


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint, newest first."""
    return sorted((int(path.stem.removeprefix("step-")) for path in folder.glob("step-????????.json")), reverse=True)


def load(folder: Path, step: int, run: str | None = None) -> dict[str, Any]:
    """The checkpoint of a step, on the CPU.

    Args:
        folder: of the checkpoints.
        step: which one.
        run: fingerprint of the config that it has to be of; None: of any.

    Raises:
        RunDirError: it is missing, damaged, of another run, or holds numbers that are not finite.
    """
    path = folder / f"step-{step:08d}.pt"
    try:
        manifest = json.loads(path.with_suffix(".json").read_bytes())
        content = path.read_bytes()
        whole = manifest == {"step": step, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    except (OSError, ValueError) as error:
        raise RunDirError(f"{path}: cannot be read ({error}); expected a checkpoint with its manifest") from error
    if not whole:
        raise RunDirError(
            f"{path}: damaged: size or SHA-256 differ from its manifest; "
            "restore it from a copy, or start again in another directory"
        )
    try:
        payload = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        found, meta = payload["step"], payload["meta"]
        finite = all(bool(torch.isfinite(value).all()) for value in meta.values())
    except Exception as error:
        raise RunDirError(
            f"{path}: not a checkpoint of metarun ({type(error).__name__}); expected tensors and plain values"
        ) from error
    if found != step or (run is not None and payload.get("config") != run):
        raise RunDirError(f"{path}: belongs to another run or step; restore this run's own from a copy")
    if not finite:
        raise RunDirError(f"{path}: holds numbers that are not finite; expected none; use a checkpoint before it")
    return payload


def newest(folder: Path, run: str | None = None) -> dict[str, Any] | None:
    """The newest checkpoint that load() takes, or None where none was ever saved; others are named in a warning.

    Raises:
        RunDirError: there are some, and all are refused.
    """
    found = steps(folder)
    for step in found:
        try:
            return load(folder, step, run)
        except RunDirError as error:
            if step == found[-1]:
                raise
            log.warning("%s", error)
    return None
