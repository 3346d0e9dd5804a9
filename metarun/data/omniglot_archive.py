"""Omniglot on disk: found, downloaded if need be, checked by content, and packed once.

Archives are read in place and never unpacked, so no path inside one can lead out of a folder.

DIGEST is SHA-256 over the digests of all alphabets in the order of their names, each the first 16 hexadecimal digits of
SHA-256 over its 105x105 one-bit drawings, packed 8 pixels to a byte, white as 1, ordered by character and file name.

Data: Lake, Salakhutdinov & Tenenbaum 2015, "Human-level concept learning through probabilistic program induction".
"""

import hashlib
import io
import logging
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from metarun.data.found import check_download
from metarun.data.packing import Chunks, Packed, describe_files, load_packed
from metarun.errors import DataError
from metarun.files import LOCK, NoLocksError, locked, read
from metarun.text import is_terminal, reason

SIZE = 28
LARGEST_IMAGE = 65536  # bytes; the largest PNG of Omniglot has under 1 kB
LARGEST_ARCHIVE = 20_000_000  # bytes; the larger one of Omniglot has 9.5 million
FOLDER = "omniglot-py"
DIGEST = "092cb1a36a74dc68634a015e032e439fa692e84fdd73108473b2ea609198512b"

SETS = ("images_background", "images_evaluation")
DRAWERS = 20  # each character was drawn by 20 people

log = logging.getLogger("metarun")


def load(root: Path, download: bool, expected: str) -> Packed:
    """uint8 [classes * 20, 1, 28, 28], ink 255 on 0, by class `<Alphabet>/character<NN>`; packs them if need be.

    Args:
        root: the data folder; Omniglot is in its subfolder omniglot-py.
        download: whether torchvision may download missing archives.
        expected: the digest of the drawings, DIGEST but in tests.

    Raises:
        DataError: the data is missing, incomplete or altered.
    """
    try:
        sources = _sources(root, download)
        files = {name: _list(source, name) for name, source in sources.items()}
        paths = {
            name: [source] if source.is_file() else [source / path for by in files[name].values() for path in by]
            for name, source in sources.items()
        }
        key = [SIZE, expected, {name: describe_files(root / FOLDER, paths[name]) for name in SETS}]
    except NoLocksError as error:
        raise DataError(
            f"{error.filename}: {error.strerror} (data.root={root}): expected locks, so that one process at a time "
            f"downloads Omniglot; set data.root, or {LOCK}=off and start one process first"
        ) from error
    except OSError as error:
        raise DataError(
            f"{error.filename or root / FOLDER}: {reason(error)} (data.root={root}): expected readable data; "
            "mend that, or set data.root"
        ) from error
    return load_packed("omniglot", key, lambda: _decode(sources, files, expected))


def _sources(root: Path, download: bool) -> dict[str, Path]:
    """{name: folder or archive} of both halves, after a download if that is needed and allowed."""
    home = root / FOLDER
    missing = [name for name in SETS if _find(home, name) is None]
    if missing:
        check_download(root)
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
    """Downloads the missing archives, in one process at a time; an archive appears whole or not at all."""
    from metarun.data.torchvision_sets import import_datasets

    datasets = import_datasets()
    new = [folder for folder in (root / FOLDER, root, *root.parents) if not folder.exists()]
    lock = root / FOLDER / ".metarun-download.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock, wait=True), tempfile.TemporaryDirectory(dir=root) as temporary:
            for name, background in zip(SETS, (True, False), strict=True):
                if _find(root / FOLDER, name) is None:  # or a process beside this one has downloaded it
                    log.info("downloading Omniglot's %s to %s", name, root)
                    datasets.Omniglot(temporary, background=background, download=True)
                    os.replace(Path(temporary, FOLDER, f"{name}.zip"), root / FOLDER / f"{name}.zip")
    except NoLocksError:
        raise
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:  # URLError is an OSError
        with suppress(OSError):  # leave nothing behind but whole archives
            if new:
                lock.unlink(missing_ok=True)
            for folder in new:
                folder.rmdir()
        raise DataError(
            f"Omniglot could not be downloaded to {root} ({str(error) or type(error).__name__}): expected "
            f"{FOLDER}/images_background.zip and images_evaluation.zip there; "
            "put them there by hand, or set data.root or METARUN_DATA"
        ) from error


def _decode(sources: dict[str, Path], files: dict[str, dict[str, list[str]]], expected: str) -> Chunks:
    """The drawings of each class, checked, and shrunk by a Lanczos filter, which antialiases."""
    set_of = {character: name for name in SETS for character in files[name]}
    digests: dict[str, hashlib._Hash] = {}
    with ExitStack() as stack:
        readers = {name: _reader(source, stack) for name, source in sources.items()}
        bar = tqdm(
            sorted(set_of), "packing Omniglot, once", unit="character", disable=not is_terminal(sys.stderr), leave=False
        )
        for character in bar:
            name, alphabet = set_of[character], character.partition("/")[0]
            drawings = [_image(sources[name], file, readers[name]) for file in files[name][character]]
            digest = digests.setdefault(alphabet, hashlib.sha256())
            digest.update(b"".join(np.packbits(np.asarray(drawing)).tobytes() for drawing in drawings))
            yield character, np.stack([_shrink(drawing) for drawing in drawings])[:, None]
    found = "".join(digests[alphabet].hexdigest()[:16] for alphabet in sorted(digests))
    if hashlib.sha256(found.encode()).hexdigest() != expected:
        raise DataError(
            f"altered Omniglot ({sources[SETS[0]].parent}): {len(set_of)} characters of {len(digests)} alphabets, and "
            "other ones than Omniglot's own; restore it from the original archives"
        )
    return {"sets": {character.partition("/")[0]: name for character, name in sorted(set_of.items())}}


def _shrink(drawing: Image.Image) -> np.ndarray:
    """uint8 [28, 28], ink bright on black."""
    return 255 - np.asarray(drawing.convert("L").resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def _list(source: Path, name: str) -> dict[str, list[str]]:
    """{class: its 20 files}, sorted by name.

    Raises:
        DataError: drawings are missing.
    """
    if source.is_dir():
        paths = [path.relative_to(source).as_posix() for path in source.glob("*/*/*.png")]
    else:
        try:
            if (size := source.stat().st_size) > LARGEST_ARCHIVE:
                raise zipfile.BadZipFile(f"{size} bytes, over {LARGEST_ARCHIVE}")
            with zipfile.ZipFile(source) as archive:
                inside = [path for path in archive.namelist() if path.startswith(f"{name}/") and path.endswith(".png")]
                paths = [path.removeprefix(f"{name}/") for path in inside]
        except Exception as error:  # zipfile raises all kinds of errors on damaged archives
            raise DataError(
                f"{source} is not a readable zip file ({reason(error)}): expected Omniglot's {name}.zip; replace it"
            ) from error
    by_class: dict[str, list[str]] = {}
    for path in sorted(path for path in paths if not re.search(r"(^|/)\.", path)):  # ._0001_01.png is macOS's own
        by_class.setdefault(path.rpartition("/")[0], []).append(path)
    bad = [
        f"{c} ({len(drawings)} of {DRAWERS} drawings)" for c, drawings in by_class.items() if len(drawings) != DRAWERS
    ]
    if bad or not by_class:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise DataError(
            f"incomplete Omniglot ({source}): expected {DRAWERS} drawings of each character, found otherwise: "
            f"{', '.join(bad[:3]) or 'none at all'}{more}; restore it from the original archive"
        )
    return by_class


def _reader(source: Path, stack: ExitStack) -> Callable[[str], bytes]:
    """A function that reads a file of the folder or, in place, of the archive; of a huge file, the beginning."""
    if source.is_dir():
        return lambda file: read(source / file, LARGEST_IMAGE)
    archive = stack.enter_context(zipfile.ZipFile(source))

    def from_archive(file: str) -> bytes:
        with archive.open(f"{source.stem}/{file}") as stream:
            return stream.read(LARGEST_IMAGE + 1)

    return from_archive


def _image(source: Path, file: str, reader: Callable[[str], bytes]) -> Image.Image:
    """A decoded drawing: 105x105, one bit a pixel."""
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
