"""A learner in a file of its own, in the format safetensors: tensors, and a header that says all about them.

The header's `metarun` is the record Exported as JSON, `sha256` a digest of that and of all tensors, `card` words for
people. Whoever reads it runs no code.
"""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np

from metarun.errors import RunDirError
from metarun.files import read, write_atomically
from metarun.storage.records import Exported
from metarun.text import reason

VERSION = 1
LARGEST = 20_000_000_000  # bytes


def write_exported(path: Path, facts: Exported, tensors: dict[str, np.ndarray], card: str) -> None:
    """Writes the file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.numpy import save

    text = json.dumps(facts.plain(), sort_keys=True)
    header = {"format": "pt", "metarun": text, "sha256": _digest(text, tensors), "card": card}
    write_atomically(path, save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, header))


def read_exported(path: Path) -> tuple[Exported, dict[str, np.ndarray]]:
    """The header and the tensors.

    Raises:
        RunDirError: it is missing, damaged, of a newer version, or no exported learner.
    """
    from safetensors.numpy import load

    try:
        content = read(path, LARGEST)
        header = _read_header(content)
        text, digest = header["metarun"], header["sha256"]
    except Exception as error:
        why = reason(error) if isinstance(error, OSError) else "not an exported learner, or cut"
        raise RunDirError(f"{path}: {why}: expected a file that `metarun export` wrote; export it again") from error
    version = json.loads(text).get("version") if text.startswith("{") else None
    if isinstance(version, int) and version > VERSION:
        raise RunDirError(f"{path}: of version {version}: expected at most {VERSION}; take a newer metarun")
    try:
        tensors = load(content)
        if _digest(text, tensors) != digest:
            raise ValueError("its SHA-256 is another one")
        return Exported.from_json(text), tensors
    except Exception as error:
        why = f"damaged ({reason(error)})"
        raise RunDirError(f"{path}: {why}: expected it as `metarun export` wrote it; export it again") from error


def _read_header(content: bytes) -> dict[str, str]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])["__metadata__"]


def _digest(text: str, tensors: dict[str, np.ndarray]) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        found.update(json.dumps([name, value.dtype.str, value.shape]).encode() + value.tobytes())
    return found.hexdigest()
