"""Omniglot on disk: found, checked by content, and packed once.

The packed file is 32 bytes of SHA-256 followed by what they are the digest of: the source's signature (32 bytes) and
the images, uint8 [1623, 20, 28, 28], ink 255 on 0, in the order of the sorted class names. Archives are read in place
and never unpacked, so no path inside one can lead out of a folder.

The digest of an alphabet is the first 16 hexadecimal digits of SHA-256 over its 105x105 one-bit drawings, packed 8
pixels to a byte, white as 1, ordered by character and file name.

Data: Lake, Salakhutdinov & Tenenbaum 2015, "Human-level concept learning through probabilistic program induction".
"""

import errno
import hashlib
import io
import logging
import os
import re
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from metarun.errors import DataError
from metarun.files import LOCK, NoLocksError, locked, read, write_atomically
from metarun.text import reason

SIZE = 28
LARGEST_IMAGE = 65536  # bytes; the largest PNG of Omniglot has under 1 kB
LARGEST_ARCHIVE = 20_000_000  # bytes; the larger one of Omniglot has 9.5 million
FOLDER = "omniglot-py"
FORMAT = "1"  # of the packed file; another one where the images would come out otherwise

SETS = ("images_background", "images_evaluation")
DRAWERS = 20  # each character was drawn by 20 people
Alphabets = dict[str, tuple[str, int, str]]  # name: its archive, its number of characters, its digest

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


def class_names(alphabets: Alphabets) -> list[str]:
    """The sorted names of all classes: `<Alphabet>/character<NN>`."""
    return sorted(
        f"{alphabet}/character{n:02d}" for alphabet, (_, count, _) in alphabets.items() for n in range(1, count + 1)
    )


def digest_of(alphabets: Alphabets) -> str:
    """SHA-256 over the digests of all alphabets, in the order of their names."""
    return hashlib.sha256("".join(digest for _, (_, _, digest) in sorted(alphabets.items())).encode()).hexdigest()


def load(root: Path, download: bool, alphabets: Alphabets) -> np.ndarray:
    """uint8 [classes, 20, 28, 28]: all images of Omniglot, in the order of class_names; packs them if need be.

    Args:
        root: the data folder; Omniglot is in its subfolder omniglot-py.
        download: whether torchvision may download missing archives.
        alphabets: the content that is expected, ALPHABETS but in tests.

    Raises:
        DataError: the data is missing, incomplete or altered.
    """
    home = root / FOLDER
    try:
        sources = _sources(root, download)
        packed = _packed_file(home)
        signature = hashlib.sha256("\n".join([FORMAT, *map(_signature, sources.values())]).encode()).digest()
        images = _read(packed, signature, len(class_names(alphabets)))
        if images is None:
            with locked(packed.with_suffix(".lock"), wait=True):
                images = _read(
                    packed, signature, len(class_names(alphabets))
                )  # another process may have packed it while this one waited
                if images is None:
                    if packed.exists():
                        log.info("%s is out of date; packing Omniglot again", packed)
                    images = _decode(sources, alphabets)
                    body = signature + images.tobytes()
                    write_atomically(packed, hashlib.sha256(body).digest() + body)
        return images
    except NoLocksError as error:
        raise DataError(
            f"{error.filename}: {error.strerror} (data.root={root}): expected locks, so that one process at a time "
            f"packs Omniglot; set data.root or XDG_CACHE_HOME, or {LOCK}=off and start one process first"
        ) from error
    except OSError as error:
        raise DataError(
            f"{error.filename or home}: {error.strerror or error} (data.root={root}): expected readable data, "
            "and a folder with 30 MB free to pack it in, there or in the cache; set data.root or XDG_CACHE_HOME"
        ) from error


def _sources(root: Path, download: bool) -> dict[str, Path]:
    """{name: folder or archive} of both halves, after a download if that is needed and allowed."""
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
    """Downloads the missing archives, in one process at a time; an archive appears whole or not at all."""
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
        with locked(lock, wait=True), tempfile.TemporaryDirectory(dir=root) as temporary:
            for name, background in zip(SETS, (True, False), strict=True):
                if _find(root / FOLDER, name) is None:  # or a process beside this one has downloaded it
                    log.info("downloading Omniglot's %s to %s", name, root)
                    Omniglot(temporary, background=background, download=True)
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


def _signature(source: Path) -> str:
    """Names, times and sizes of a source's files, which change when files come, go or are replaced."""
    if source.is_file():
        paths = [source]
    else:
        paths = sorted(path for path in (source, *source.glob("*"), *source.glob("*/*")) if path.is_dir())
    facts = ((path.relative_to(source.parent), path.stat()) for path in paths)
    return "\n".join(f"{name} {stat.st_mtime_ns} {stat.st_size}" for name, stat in facts)


def _packed_file(home: Path) -> Path:
    """The path of the packed file: beside the data; or, if that folder is read-only, in the user's cache folder."""
    name = f"metarun-omniglot-{SIZE}.bin"
    if os.access(home, os.W_OK) and not _read_only(home):
        return home / name
    place = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]
    cache().mkdir(parents=True, exist_ok=True)
    return cache() / f"{place}-{name}"


def _read_only(folder: Path) -> bool:
    """Whether the owner marked the folder read-only, which is respected although it does not stop root."""
    return not folder.stat().st_mode & 0o222


def _read(packed: Path, signature: bytes, classes: int) -> np.ndarray | None:
    """The packed images; None if there are none, they are damaged, or the source has changed."""
    shape = (classes, DRAWERS, SIZE, SIZE)
    size = int(np.prod(shape))
    try:
        content = read(packed, 64 + size)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EFBIG):  # a file of another kind or size is replaced
            raise
        content = b""
    body = memoryview(content)[32:]
    if hashlib.sha256(body).digest() != content[:32] or body[:32] != signature or len(body) != 32 + size:
        return None
    return np.frombuffer(body, np.uint8, offset=32).reshape(shape)


def _decode(sources: dict[str, Path], alphabets: Alphabets) -> np.ndarray:
    """uint8 [classes, 20, 28, 28]: all drawings, checked, and shrunk by a Lanczos filter, which antialiases."""
    files = {name: _list(source, name, alphabets) for name, source in sources.items()}
    images = {}
    with ExitStack() as stack:
        readers = {name: _reader(source, stack) for name, source in sources.items()}
        bar = tqdm(sorted(alphabets.items()), "packing Omniglot, once", unit="alphabet", disable=None, leave=False)
        for alphabet, (name, count, expected) in bar:
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
    return np.stack([images[character] for character in class_names(alphabets)])


def _shrink(drawing: Image.Image) -> np.ndarray:
    """uint8 [28, 28], ink bright on black."""
    return 255 - np.asarray(drawing.convert("L").resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def _list(source: Path, name: str, alphabets: Alphabets) -> dict[str, list[str]]:
    """{class: its 20 files}, sorted by name.

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
        except Exception as error:  # zipfile raises all kinds of errors on damaged archives
            raise DataError(
                f"{source} is not a readable zip file ({reason(error)}): expected Omniglot's {name}.zip; replace it"
            ) from error
    by_class: dict[str, list[str]] = {}
    for path in sorted(path for path in paths if not re.search(r"(^|/)\.", path)):  # ._0001_01.png is macOS's own
        by_class.setdefault(path.rpartition("/")[0], []).append(path)
    wanted = [c for c in class_names(alphabets) if alphabets[c.partition("/")[0]][0] == name]
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


ALPHABETS: Alphabets = {
    "Alphabet_of_the_Magi": ("images_background", 20, "7a63a66f5430edec"),
    "Angelic": ("images_evaluation", 20, "7942083677a6a9de"),
    "Anglo-Saxon_Futhorc": ("images_background", 29, "6169ddc291a67187"),
    "Arcadian": ("images_background", 26, "3a2eef48d80ca7e3"),
    "Armenian": ("images_background", 41, "7bb73ffe3de15124"),
    "Asomtavruli_(Georgian)": ("images_background", 40, "7ace4358c390716d"),
    "Atemayar_Qelisayer": ("images_evaluation", 26, "23e198854038a036"),
    "Atlantean": ("images_evaluation", 26, "a73c46aa14123acf"),
    "Aurek-Besh": ("images_evaluation", 26, "61b2ef5dc610e026"),
    "Avesta": ("images_evaluation", 26, "89f8d25a0b8cea41"),
    "Balinese": ("images_background", 24, "ab853c83de2d982b"),
    "Bengali": ("images_background", 46, "5ab5919c49be8a7a"),
    "Blackfoot_(Canadian_Aboriginal_Syllabics)": ("images_background", 14, "cf24cbba485d3e12"),
    "Braille": ("images_background", 26, "b07bd23f63e2c490"),
    "Burmese_(Myanmar)": ("images_background", 34, "1884b713c11dc187"),
    "Cyrillic": ("images_background", 33, "9bae72deb330ef20"),
    "Early_Aramaic": ("images_background", 22, "f77bc658ba7ed979"),
    "Futurama": ("images_background", 26, "addf5aea16a220fa"),
    "Ge_ez": ("images_evaluation", 26, "356a3b30cfc026e6"),
    "Glagolitic": ("images_evaluation", 45, "bb612380a6aa058a"),
    "Grantha": ("images_background", 43, "34a65b77b2509771"),
    "Greek": ("images_background", 24, "94d26912ce347853"),
    "Gujarati": ("images_background", 48, "7a8f25d092cd93b2"),
    "Gurmukhi": ("images_evaluation", 45, "ed8161358d3ef36e"),
    "Hebrew": ("images_background", 22, "f4b86d49ebf836cf"),
    "Inuktitut_(Canadian_Aboriginal_Syllabics)": ("images_background", 16, "6cafc0ed2d499faa"),
    "Japanese_(hiragana)": ("images_background", 52, "bd87c245e7683ed5"),
    "Japanese_(katakana)": ("images_background", 47, "5b27a7862015e16a"),
    "Kannada": ("images_evaluation", 41, "5d3e4c49aaff3634"),
    "Keble": ("images_evaluation", 26, "3544fce72a6c8b28"),
    "Korean": ("images_background", 40, "3baa03edf0788848"),
    "Latin": ("images_background", 26, "761840e834ed1610"),
    "Malay_(Jawi_-_Arabic)": ("images_background", 40, "10a09e1a1eaee436"),
    "Malayalam": ("images_evaluation", 47, "b91182aaf0a39e91"),
    "Manipuri": ("images_evaluation", 40, "e3505004cd749bd8"),
    "Mkhedruli_(Georgian)": ("images_background", 41, "dc3954271ef50f69"),
    "Mongolian": ("images_evaluation", 30, "4e8078861f2fc5b3"),
    "N_Ko": ("images_background", 33, "1efb3d9c941ce779"),
    "Ojibwe_(Canadian_Aboriginal_Syllabics)": ("images_background", 14, "ae0266d35c15333a"),
    "Old_Church_Slavonic_(Cyrillic)": ("images_evaluation", 45, "17c5dd9613c0e51b"),
    "Oriya": ("images_evaluation", 46, "1e749f42cf02264b"),
    "Sanskrit": ("images_background", 42, "aafb03339ba27230"),
    "Sylheti": ("images_evaluation", 28, "1b694e685b0e94e9"),
    "Syriac_(Estrangelo)": ("images_background", 23, "db9b56ee68c4cb8a"),
    "Syriac_(Serto)": ("images_evaluation", 23, "99dc657282789242"),
    "Tagalog": ("images_background", 17, "e2d5d6fbbbd23a3d"),
    "Tengwar": ("images_evaluation", 25, "93fc5727e8eaf3a6"),
    "Tibetan": ("images_evaluation", 42, "f1b5d2c9db24a5f9"),
    "Tifinagh": ("images_background", 55, "813e3548de752036"),
    "ULOG": ("images_evaluation", 26, "de877c96f99bcf60"),
}
