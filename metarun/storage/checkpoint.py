"""Checkpoints that are whole or absent.

A checkpoint is `step-N.pt` and, written after it, `step-N.json`, its manifest with its size and SHA-256: without a
manifest that matches, it does not exist. Both come by a temporary file, fsync, rename and fsync of the folder. It holds
tensors and plain values, and is read with weights_only=True, which runs no code. torch itself does not notice a flipped
bit; the digest does.
"""

import errno
import hashlib
import io
import logging
import math
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarun import files
from metarun.errors import RunDirError
from metarun.storage.records import Manifest
from metarun.text import reason

LARGEST = 20_000_000_000  # bytes
NOT_ITS_FAULT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.ESTALE, errno.ETIMEDOUT)
CONTENT = {  # what a checkpoint holds
    "step": int,  # outer steps done
    "meta": dict,  # meta-parameters
    "optimizer": dict,  # state of the outer optimiser
    "best": list,  # step and value of the best validation so far
    "chunks": list,  # of the engine
    "metrics": str,  # metrics.jsonl up to here
    "config": str,  # fingerprint
    "split_hash": str,  # of the classes
    "frozen": str,  # digest of what of the learner is no meta-parameter; "" where there is nothing, or in older runs
}

log = logging.getLogger("metarun")


def save(folder: Path, step: int, payload: dict[str, Any], keep: set[int]) -> None:
    """Writes the checkpoint of a step, then removes all others but the two newest and those in `keep`."""
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    content = buffer.getvalue()
    files.write_atomically(_path(folder, step), content)
    files.write_atomically(_path(folder, step).with_suffix(".json"), _manifest(step, content).to_json())
    for old in steps(folder)[2:]:
        if old not in keep:
            _remove(folder, old)


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint, newest first."""
    names = (re.fullmatch(r"step-([0-9]{8,15})\.json", path.name) for path in folder.glob("step-*.json"))
    return sorted((int(name[1]) for name in names if name), reverse=True)


def digest_of(folder: Path, step: int) -> str:
    """SHA-256 of the checkpoint of a step that was loaded, in hexadecimal."""
    return Manifest.from_json(files.read(_path(folder, step).with_suffix(".json"), 1000)).sha256


def load(folder: Path, step: int, run: str | None = None) -> dict[str, Any]:
    """The checkpoint of a step, on the CPU: a dictionary of CONTENT; `run` is the fingerprint that it has to have.

    Raises:
        RunDirError: it is missing, damaged, of another run, or holds numbers that are not finite.
        OSError, MemoryError: it cannot be read now, and may be sound: it must not be passed over.
    """
    path = _path(folder, step)
    try:
        manifest = Manifest.from_json(files.read(path.with_suffix(".json"), 1000))
        content = files.read(path, LARGEST)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in NOT_ITS_FAULT:
            raise
        raise _refusal(path, f"cannot be read ({reason(error)})") from error
    if manifest != _manifest(step, content):
        raise _refusal(path, "damaged: size or SHA-256 differ from its manifest")
    try:
        payload = _unpack(content)
        sound = finite([payload["meta"], payload["optimizer"], payload["best"]])
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise MemoryError(f"out of memory for {path}") from error
        why = f"not a checkpoint of metarun ({type(error).__name__}): expected tensors and plain values"
        raise _refusal(path, why) from error
    if payload["step"] != step or (run is not None and payload["config"] != run):
        raise _refusal(path, "belongs to another run or step")
    if not sound:
        raise _refusal(path, "holds numbers that are not finite")
    return payload


def newest(folder: Path, run: str | None = None) -> dict[str, Any] | None:
    """The newest checkpoint that can be used, and whose best can; None where none was ever saved.

    A warning names those that are passed over.

    Raises:
        RunDirError: there are some, and all are refused; or their manifests are gone.
    """
    refused: list[RunDirError] = []
    for step in steps(folder):
        try:
            found = load(folder, step, run)
            if (best := found["best"][0]) not in (0, step):
                load(folder, best, run)
        except RunDirError as error:
            refused.append(error)
            continue
        for error in refused:
            log.warning("passed over, for the checkpoint of outer step %d: %s", step, error)
        return found
    if refused:
        raise refused[0]
    if len(list(folder.glob("step-*.pt"))) > 1:  # a run that is killed may leave one before its first manifest
        raise _refusal(folder, "holds checkpoints without their manifests (step-N.json)")
    return None


def drop_after(folder: Path, step: int) -> None:
    """Removes the checkpoints of later steps, which newest() has passed over: they must not count as the last ones."""
    for later in steps(folder):
        if later > step:
            _remove(folder, later)


def _refusal(path: Path, why: str) -> RunDirError:
    return RunDirError(f"{path}: {why}; restore it from a copy, or start again in another directory")


def _manifest(step: int, content: bytes) -> Manifest:
    return Manifest(step=step, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _unpack(content: bytes) -> dict[str, Any]:
    """The payload. A digest speaks of damage and not of intent: the shape of the content is checked all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        payload = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if type(payload) is dict:
        payload.setdefault("frozen", "")
    if type(payload) is not dict or {name: type(value) for name, value in payload.items()} != CONTENT:
        raise ValueError("other content")
    step, value = payload["best"]
    sizes = len(payload["chunks"]) == 2 and all(type(size) is int and size > 0 for size in payload["chunks"])
    weights = all(type(weight) is Tensor for weight in payload["meta"].values())
    if type(step) is not int or type(value) not in (float, type(None)) or not (sizes and weights):
        raise ValueError("other values")
    return payload


def _remove(folder: Path, step: int) -> None:
    _path(folder, step).with_suffix(".json").unlink()
    _path(folder, step).unlink(missing_ok=True)


def finite(value: Any) -> bool:
    """Whether all numbers in it are finite."""
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value).all())
    if isinstance(value, (dict, list, tuple)):
        return all(map(finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"
