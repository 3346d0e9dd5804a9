"""Omniglot on disk: find it, check it by content, pack it once.

The packed file is 32 bytes of SHA-256 followed by what they are the digest of: the source's signature (32 bytes) and
the images, uint8 [1623, 20, 28, 28], ink 255 on 0, in the order of the sorted class names. Archives are read in place
and never unpacked, so no path inside one can lead out of a folder.

Data: Lake, Salakhutdinov & Tenenbaum 2015, "Human-level concept learning through probabilistic program induction".
"""

import errno
import fcntl
import hashlib
import io
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from metarun.data.omniglot_index import ALPHABETS, DRAWERS, SETS
from metarun.errors import DataError
from metarun.files import Appended, read, write_atomically
from metarun.text import reason

SIZE = 28
LARGEST_IMAGE = 65536  # bytes; the largest PNG of Omniglot has under 1 kB
LARGEST_ARCHIVE = 20_000_000  # bytes; the larger one of Omniglot has 9.5 million
FOLDER = "omniglot-py"
FORMAT = "1"  # of the packed file; another one where the images would come out otherwise

log = logging.getLogger("metarun")


def cache() -> Path:
    """The user's cache folder: $XDG_CACHE_HOME/metarun, by default ~/.cache/metarun."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metarun"


def classes() -> list[str]:
    """The 1623 class names, sorted: `<Alphabet>/character<NN>`."""
    return sorted(
        f"{alphabet}/character{n:02d}" for alphabet, (_, count, _) in ALPHABETS.items() for n in range(1, count + 1)
    )


def digest() -> str:
    """SHA-256 over the digests of all alphabets' pixels: what content the checks below insist on."""
    return hashlib.sha256("".join(pixels for _, (_, _, pixels) in sorted(ALPHABETS.items())).encode()).hexdigest()


def load(root: Path, download: bool) -> np.ndarray:
    """All images of Omniglot, packing them if no one has done so before.

    Args:
        root: the data folder; Omniglot is in its subfolder omniglot-py.
        download: whether torchvision may download what is missing.

    Returns:
        uint8 [1623, 20, 28, 28].

    Raises:
        DataError: the data is missing, incomplete or altered.
    """
    home = root / FOLDER
    try:
        sources = _sources(root, download)
        packed = _packed_file(home)
        signature = hashlib.sha256("\n".join([FORMAT, *map(_signature, sources.values())]).encode()).digest()
        images = _read(packed, signature)
        if images is None:
            with _lock(packed.with_suffix(".lock")):
                images = _read(packed, signature)  # another process may have packed it while this one waited
                if images is None:
                    if packed.exists():
                        log.info("%s is out of date; packing Omniglot again", packed)
                    images = _decode(sources)
                    body = signature + images.tobytes()
                    write_atomically(packed, hashlib.sha256(body).digest() + body)
        return images
    except OSError as error:
        raise DataError(
            f"{error.filename or home}: {error.strerror or error} (data.root={root}): expected readable data, "
            "and a folder with 30 MB free to pack it in, there or in the cache; set data.root or XDG_CACHE_HOME"
        ) from error


def _sources(root: Path, download: bool) -> dict[str, Path]:
    """Where both halves are, after a download if that is needed and allowed."""
    home = root / FOLDER
    missing = [name for name in SETS if _find(home, name) is None]
    if missing and not download:
        raise DataError(
            f"no Omniglot (data.root={root}): expected {' and '.join(f'{FOLDER}/{m}.zip' for m in missing)}, "
            "or folders of these names; set data.root or METARUN_DATA, or allow data.download=true"
        )
    if missing:
        _download(root)
    return {name: source for name in SETS if (source := _find(home, name)) is not None}


def _find(home: Path, name: str) -> Path | None:
    """The extracted folder, else the archive, else None."""
    folder, archive = home / name, home / f"{name}.zip"
    return folder if folder.is_dir() else archive if archive.is_file() else None


def _download(root: Path) -> None:
    """Brings the missing archives, in one process at a time; none is ever seen half there."""
    try:
        from torchvision.datasets import Omniglot
    except (ImportError, RuntimeError) as error:
        raise DataError(
            f"torchvision cannot be imported ({str(error).splitlines()[0]}): it has to be the build that goes with the "
            "installed torch; reinstall both together: pip install --force-reinstall torch torchvision"
        ) from error
    new = [folder for folder in (root / FOLDER, root, *root.parents) if not folder.exists()]
    lock = root / FOLDER / ".metarun-download.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with _lock(lock), tempfile.TemporaryDirectory(dir=root) as temporary:
            for name, background in zip(SETS, (True, False), strict=True):
                if _find(root / FOLDER, name) is None:  # or another process has brought it meanwhile
                    log.info("downloading Omniglot's %s to %s", name, root)
                    Omniglot(temporary, background=background, download=True)
                    os.replace(Path(temporary, FOLDER, f"{name}.zip"), root / FOLDER / f"{name}.zip")
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:  # URLError is an OSError
        with suppress(OSError):  # leave nothing behind but what arrived
            if new:
                lock.unlink(missing_ok=True)
            for folder in new:
                folder.rmdir()
        raise DataError(
            f"Omniglot could not be downloaded to {root} ({str(error) or type(error).__name__}): expected "
            f"{FOLDER}/images_background.zip and images_evaluation.zip there; "
            "put them there by hand, or set data.root or METARUN_DATA"
        ) from error


def _signature(source: Path) -> str:
    """Changes when files of the source come, go or are replaced; does not read their content."""
    if source.is_file():
        paths = [source]
    else:
        paths = sorted(path for path in (source, *source.glob("*"), *source.glob("*/*")) if path.is_dir())
    facts = ((path.relative_to(source.parent), path.stat()) for path in paths)
    return "\n".join(f"{name} {stat.st_mtime_ns} {stat.st_size}" for name, stat in facts)


def _packed_file(home: Path) -> Path:
    """Beside the data, or in the user's cache folder, by the data's place, when the data folder is read-only."""
    name = f"metarun-omniglot-{SIZE}.bin"
    if os.access(home, os.W_OK) and not _read_only(home):
        return home / name
    place = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]
    cache().mkdir(parents=True, exist_ok=True)
    return cache() / f"{place}-{name}"


def _read_only(folder: Path) -> bool:
    """Mode bits do not stop root, but a folder that its owner marked read-only is to be left alone all the same."""
    return not folder.stat().st_mode & 0o222


def _read(packed: Path, signature: bytes) -> np.ndarray | None:
    """The packed images, or None where there are none, they are damaged, or the source has changed."""
    shape = (len(classes()), DRAWERS, SIZE, SIZE)
    size = int(np.prod(shape))
    try:
        content = read(packed, 64 + size)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EFBIG):  # what is no such file at all is replaced
            raise
        content = b""
    body = memoryview(content)[32:]
    if hashlib.sha256(body).digest() != content[:32] or body[:32] != signature or len(body) != 32 + size:
        return None
    return np.frombuffer(body, np.uint8, offset=32).reshape(shape)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; the kernel frees it when the process ends, however it ends."""
    file = Appended(path)
    try:
        fcntl.flock(file.handle, fcntl.LOCK_EX)
        yield
    finally:
        file.close()


def _decode(sources: dict[str, Path]) -> np.ndarray:
    """Reads, checks and shrinks all drawings: 105x105 to 28x28 with a Lanczos filter, which antialiases."""
    files = {name: _list(source, name) for name, source in sources.items()}
    images = {}
    with ExitStack() as stack:
        readers = {name: _reader(source, stack) for name, source in sources.items()}
        alphabets = tqdm(
            sorted(ALPHABETS.items()), "packing Omniglot, once", unit="alphabet", disable=None, leave=False
        )
        for alphabet, (name, count, expected) in alphabets:
            pixels = hashlib.sha256()
            for number in range(1, count + 1):
                character = f"{alphabet}/character{number:02d}"
                drawings = [_image(sources[name], file, readers[name]) for file in files[name][character]]
                pixels.update(b"".join(np.packbits(np.asarray(drawing)).tobytes() for drawing in drawings))
                images[character] = np.stack([_shrink(drawing) for drawing in drawings])
            if pixels.hexdigest()[:16] != expected:
                raise DataError(
                    f"altered drawings in {name}/{alphabet} ({sources[name]}): expected Omniglot's own pixels; "
                    "replace them from the original archive"
                )
    return np.stack([images[character] for character in classes()])


def _shrink(drawing: Image.Image) -> np.ndarray:
    """uint8 [28, 28], ink bright on black."""
    return 255 - np.asarray(drawing.convert("L").resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def _list(source: Path, name: str) -> dict[str, list[str]]:
    """The 20 files of each class, sorted by name.

    Raises:
        DataError: classes or drawings are missing.
    """
    if source.is_dir():
        paths = [path.relative_to(source).as_posix() for path in source.glob("*/*/*.png")]
    else:
        try:
            if (size := source.stat().st_size) > LARGEST_ARCHIVE:
                raise zipfile.BadZipFile(f"{size} bytes, over {LARGEST_ARCHIVE}")
            with zipfile.ZipFile(source) as archive:
                paths = [
                    p.removeprefix(f"{name}/")
                    for p in archive.namelist()
                    if p.startswith(f"{name}/") and p.endswith(".png")
                ]
        except Exception as error:  # a damaged archive raises whatever it leads zipfile into
            raise DataError(
                f"{source} is not a readable zip file ({reason(error)}): expected Omniglot's {name}.zip; replace it"
            ) from error
    by_class: dict[str, list[str]] = {}
    for path in sorted(paths):
        by_class.setdefault(path.rpartition("/")[0], []).append(path)
    wanted = [c for c in classes() if ALPHABETS[c.partition("/")[0]][0] == name]
    bad = [
        f"{c} ({len(by_class.get(c, []))} of {DRAWERS} drawings)" for c in wanted if len(by_class.get(c, [])) != DRAWERS
    ]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise DataError(
            f"incomplete Omniglot ({source}): {len(wanted)} classes of {DRAWERS} drawings expected, found otherwise: "
            f"{', '.join(bad[:3])}{more}; remove it or restore it from the original archive"
        )
    return by_class


def _reader(source: Path, stack: ExitStack) -> Callable[[str], bytes]:
    """Reads the files of a folder or, without unpacking it, of an archive; of a huge one, only the beginning."""
    if source.is_dir():
        return lambda file: read(source / file, LARGEST_IMAGE)
    archive = stack.enter_context(zipfile.ZipFile(source))

    def from_archive(file: str) -> bytes:
        with archive.open(f"{source.stem}/{file}") as stream:
            return stream.read(LARGEST_IMAGE + 1)

    return from_archive


def _image(source: Path, file: str, reader: Callable[[str], bytes]) -> Image.Image:
    """One drawing, decoded: 105x105, one bit a pixel."""
    try:
        content = reader(file)
        if len(content) > LARGEST_IMAGE:
            raise ValueError(f"over {LARGEST_IMAGE} bytes")
        image = Image.open(io.BytesIO(content), formats=["PNG"])
        if image.size != (105, 105):
            raise ValueError(f"{image.size[0]}x{image.size[1]} pixels instead of 105x105")
        return image.convert("1", dither=Image.Dither.NONE)
    except Exception as error:  # of the file system, the archive, its compression or the image
        raise DataError(
            f"unreadable drawing {file} ({source}): {reason(error)}; replace it from the original archive"
        ) from error
