"""Examples by class, packed once into a file of the cache folder, and mapped into memory from there.

    the examples of all classes, one after the other | facts, as JSON | their SHA-256 | their length, 8 bytes

The file's name has the digest of a key: whatever decides the examples, such as the files that they come from. The facts
have the SHA-256 of the examples, so that a damaged file is noticed, and packed again.
"""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from metarun.errors import DataError
from metarun.files import LOCK, NoLocksError, locked
from metarun.text import reason

FORMAT = 1  # of the packed file
PATIENCE = 1.0  # seconds
TAIL = 32 + 8  # bytes: the digest of the facts, and their length

Chunks = Generator[tuple[str, np.ndarray], None, dict[str, Any] | None]

log = logging.getLogger("metarun")


def cache() -> Path:
    """The user's cache folder: $XDG_CACHE_HOME/metarun, by default ~/.cache/metarun.

    Raises:
        DataError: there is no home folder, as in some containers.
    """
    return expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "metarun"


def expand(path: str) -> Path:
    """The path, with the home folder in the place of ~. Raises DataError as above."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"{path} (home folder): there is none; expected HOME, or a folder by its whole name; set HOME, "
            "data.root, METARUN_DATA or XDG_CACHE_HOME"
        ) from error


@dataclass(frozen=True, eq=False)
class Packed(Mapping[str, np.ndarray]):
    """Examples by class, as one array.

    Attributes:
        counts: {class: number of its examples}, in the order of the examples.
        examples: [all of them, *shape], perhaps mapped into memory from a file.
        digest: SHA-256 of the examples' bytes.
        facts: what else the file has, as JSON has it.
    """

    counts: dict[str, int]
    examples: np.ndarray
    digest: str
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, by_class: Mapping[str, np.ndarray]) -> "Packed":
        """The same examples, sorted by class. All need one shape and one type."""
        if isinstance(by_class, Packed):
            return by_class
        if not isinstance(by_class, Mapping) or not all(isinstance(name, str) for name in by_class):
            given = "other names than words" if isinstance(by_class, Mapping) else type(by_class).__name__
            raise DataError(f"load() gives {given} (data): expected {{class name: examples}}, names as words")
        names = sorted(by_class)
        arrays = [np.asarray(by_class[name]) for name in names]
        if not names:
            raise DataError("no classes: expected examples by class")
        for name, array in zip(names, arrays, strict=True):
            if array.ndim < 2 or array.dtype.kind not in "fiub":
                remedy = "stack its examples into one array" if array.dtype.kind in "fiub" else "make them numbers"
                given = f"{array.dtype} {list(array.shape)}"
                raise DataError(f"class {name!r}: has {given}: expected numbers [examples, ...]; {remedy}")
            if array.shape[1:] != arrays[0].shape[1:] or array.dtype != arrays[0].dtype:
                found, first = (f"{a.dtype} {list(a.shape)}" for a in (array, arrays[0]))
                raise DataError(
                    f"class {name!r}: has {found}: expected [examples, ...] like class {names[0]!r}, {first}"
                )
        examples = np.ascontiguousarray(np.concatenate(arrays))
        counts = {name: len(array) for name, array in zip(names, arrays, strict=True)}
        return cls(counts, examples, hashlib.sha256(examples.data).hexdigest() if examples.size else "")

    def starts(self) -> list[int]:
        """Where the examples of each class begin."""
        return [0, *accumulate(self.counts.values())][:-1]

    def __getitem__(self, name: str) -> np.ndarray:
        place = list(self.counts).index(name)
        start = self.starts()[place]
        return self.examples[start : start + self.counts[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.counts)

    def __len__(self) -> int:
        return len(self.counts)


def describe_files(root: Path, files: Iterable[Path]) -> list[tuple[str, int, int, int]]:
    """Name below root, times and size of each file: a key that changes when a file comes, goes or is replaced.

    The time of its last change of any kind tells files apart that were given one time on purpose, as archives do.
    """

    def stat(path: Path) -> os.stat_result:
        try:
            return path.stat()
        except FileNotFoundError:  # a broken link, which whoever reads the files will name
            return path.lstat()

    stats = ((path, stat(path)) for path in files)
    return [(path.relative_to(root).as_posix(), f.st_mtime_ns, f.st_ctime_ns, f.st_size) for path, f in stats]


def load_packed(name: str, key: object, make: Callable[[], Chunks]) -> Packed:
    """The examples of a key, made and packed if need be, by one process at a time.

    Args:
        name: the beginning of the file's name.
        key: decides the examples; JSON has to know it.
        make: generates (class, some of its examples), a class after the other; returns facts.

    Raises:
        DataError: the cache folder cannot be written; or as `make` does.
    """
    known = hashlib.sha256(json.dumps([FORMAT, key]).encode()).hexdigest()[:24]
    path = cache() / f"{name}-{known}.bin"
    try:
        if (packed := _open(path)) is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path.with_suffix(".lock"), wait=True):
                if (packed := _open(path)) is None:  # another process may have packed it while this one waited
                    if path.exists():
                        log.info("%s is damaged; packing again", path)
                    with _saying_so(f"packing {name} into {path.parent}, once"):
                        _write(path, make())
                    packed = _open(path)
                    assert packed is not None
        return packed
    except NoLocksError as error:
        raise DataError(
            f"{error.filename}: {error.strerror} (cache): expected locks, so that one process at a time "
            f"packs the data; set XDG_CACHE_HOME, or {LOCK}=off and start one process first"
        ) from error
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: {reason(error)} (cache): expected a folder with room to pack the data in; "
            "make room, or set XDG_CACHE_HOME"
        ) from error


@contextmanager
def _saying_so(line: str) -> Iterator[None]:
    """Logs the line after a second, if that is not over then."""
    timer = threading.Timer(PATIENCE, log.info, ("%s", line))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _open(path: Path) -> Packed | None:
    """The packed file; None if there is none, or it is damaged."""
    try:
        whole = np.memmap(path, np.uint8, mode="c")  # torch wants to be able to write
    except (FileNotFoundError, ValueError):  # an empty one
        return None
    length = int.from_bytes(whole[-8:].tobytes(), "big")
    if len(whole) < TAIL + length:
        return None
    end = len(whole) - TAIL - length
    content = whole[end : end + length].tobytes()
    if hashlib.sha256(content).digest() != whole[end + length : -8].tobytes():
        return None
    facts = json.loads(content)
    examples = whole[:end]
    if hashlib.sha256(examples.data).hexdigest() != facts["digest"]:
        return None
    examples = examples.view(facts["dtype"]).reshape(sum(facts["counts"].values()), *facts["shape"])
    return Packed(facts["counts"], examples, facts["digest"], facts["more"])


def _write(path: Path, chunks: Chunks) -> None:
    """Writes the packed file: whole, or not at all."""
    temporary = path.with_suffix(".tmp")
    digest, counts, first = hashlib.sha256(), {}, None
    try:
        with open(temporary, "wb") as file:
            while True:
                try:
                    name, examples = next(chunks)
                except StopIteration as end:
                    more = end.value or {}
                    break
                first = examples if first is None else first
                assert (examples.dtype, examples.shape[1:]) == (first.dtype, first.shape[1:])
                counts[name] = counts.get(name, 0) + len(examples)
                content = np.ascontiguousarray(examples).data
                digest.update(content)
                file.write(content)
            assert first is not None
            shape, kind = list(first.shape[1:]), first.dtype.str
            facts = {"counts": counts, "shape": shape, "dtype": kind, "digest": digest.hexdigest(), "more": more}
            content = json.dumps(facts).encode()
            file.write(content + hashlib.sha256(content).digest() + len(content).to_bytes(8, "big"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
