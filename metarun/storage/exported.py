"""A learner in a file of its own, in the format safetensors: tensors, and a header that says all about them.

The header's `metarun` is the record Exported as JSON, `sha256` a digest of that and of all tensors, `card` words for
people. Whoever reads it runs no code.
"""

import hashlib
import json
import os
import struct
from pathlib import Path

import numpy as np

from metarun.errors import RunDirError, UsageError, describe_os_error
from metarun.files import check_parent, read, write_atomically
from metarun.storage.learner_records import Exported
from metarun.text import reason

VERSION = 1
SUFFIX = ".safetensors"
LARGEST = 20_000_000_000  # bytes
LARGEST_HEADER = 100_000_000  # bytes; more, safetensors does not take
FORMAT = "pt"  # of the weights, as safetensors has it
KEYS = {"format", "metarun", "sha256", "card"}
OTHER = "choose another name, or remove it"


def write_exported(path: Path, facts: Exported, tensors: dict[str, np.ndarray], card: str) -> None:
    """Writes the file, whole or not at all; one that is there already is replaced if it is an exported learner.

    Raises:
        UsageError: the name has another suffix than .safetensors.
        RunDirError: something else is there, or it cannot be written.
    """
    from safetensors.numpy import save

    check_place(path)
    text = json.dumps(facts.plain(), sort_keys=True)
    header = {"format": FORMAT, "metarun": text, "sha256": _digest(text, card, tensors), "card": card}
    content = save({name: np.asarray(value, order="C") for name, value in tensors.items()}, header)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _sort_header(content))
    except OSError as error:
        raise describe_os_error(error, "give another FILE") from error


def _sort_header(content: bytes) -> bytes:
    """The same file with its header in order, or the same learner would give other bytes each time."""
    (length,) = struct.unpack("<Q", content[:8])
    text = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def check_place(path: Path) -> None:
    """Raises UsageError: no exported learner has such a name; RunDirError: something else is in its place."""
    if path.suffix != SUFFIX:
        raise UsageError(f"{path}: expected a name that ends in {SUFFIX}, the format of the file; give it that")
    if os.path.lexists(path):
        try:
            with path.open("rb") as file:
                _read_header(file.read(8 + LARGEST_HEADER))
        except Exception as error:
            raise RunDirError(f"{path}: is there, and is no exported learner: expected none; {OTHER}") from error
    try:
        check_parent(path)
    except OSError as error:
        raise describe_os_error(error, "give another FILE") from error


def read_exported(path: Path) -> tuple[Exported, dict[str, np.ndarray]]:
    """The header and the tensors.

    Raises:
        RunDirError: it is missing, damaged, of a newer version, or no exported learner.
    """
    from safetensors.numpy import load

    try:
        content = read(path, LARGEST)
        header = _read_header(content)
    except Exception as error:
        why = reason(error) if isinstance(error, OSError) else "not an exported learner, or cut"
        raise RunDirError(f"{path}: {why}: expected a file that `metarun export` wrote; export it again") from error
    text, card, digest = header["metarun"], header["card"], header["sha256"]
    if (version := _version(text)) > VERSION:
        raise RunDirError(f"{path}: of version {version}: expected at most {VERSION}; take a newer metarun")
    try:
        tensors = load(content)
        if _digest(text, card, tensors) != digest:
            raise ValueError("its SHA-256 is another one")
        return Exported.from_json(text), tensors
    except Exception as error:
        why = f"damaged ({reason(error)})"
        raise RunDirError(f"{path}: {why}: expected it as `metarun export` wrote it; export it again") from error


def _read_header(content: bytes) -> dict[str, str]:
    """The header's texts by name. Raises an error of any kind where these bytes do not begin as an exported learner."""
    (length,) = struct.unpack("<Q", content[:8])
    if length > LARGEST_HEADER:
        raise ValueError("header too large")
    header = json.loads(content[8 : 8 + length])["__metadata__"]
    texts = set(header) == KEYS and all(isinstance(value, str) for value in header.values())
    if not texts or header["format"] != FORMAT:
        raise ValueError("no exported learner")
    return header


def _version(text: str) -> int:
    """The version that the facts name; 0 where they are damaged, which their digest finds."""
    try:
        version = json.loads(text)["version"]
    except Exception:  # no JSON, or JSON of anything else; nested too deep; a number of too many digits
        return 0
    return version if type(version) is int else 0


def _digest(text: str, card: str, tensors: dict[str, np.ndarray]) -> str:
    found = hashlib.sha256(json.dumps([text, card]).encode())
    for name in sorted(tensors):
        value = tensors[name]
        found.update(json.dumps([name, value.dtype.str, value.shape]).encode() + value.tobytes())
    return found.hexdigest()
