"""Image files, decoded: to eight bits a channel, turned upright, on white paper, shrunk and cropped to one size.

An image is scaled so that its shorter side has the wanted length, by a Lanczos filter, which antialiases, and its
middle is cut out. Pixels of 16 bits are rounded to 8 (65535 becomes 255); transparent pixels show a white ground;
colours of print (CMYK) become RGB as Pillow has it, without profiles; the turn that a camera notes is applied; of an
animation the first picture counts.

A file is refused rather than repaired: a truncated image half of which is grey would be learned from.
"""

import hashlib
import io
import logging
import os
import sys
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from metarun.errors import DataError
from metarun.files import read
from metarun.text import is_terminal, reason

FORMATS = ["PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM"]
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"))
LARGEST_IMAGE = 89_000_000  # pixels, just under the number at which Pillow warns of a decompression bomb
TOO_MANY = f"at most {LARGEST_IMAGE // 10**6} million"
LARGEST_FILE = 1_000_000_000  # bytes
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
GREY = ("1", "L", "I", *SIXTEEN_BITS)  # modes that have no colours
ORIENTATION = 0x0112  # of EXIF
Size = tuple[int, int]  # height, width

# Of odd metadata Pillow warns for every file, and what matters it says again in an error.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def decode(path: Path, size: Size, channels: int, invert: bool = False, where: str = "data.root") -> np.ndarray:
    """uint8 [channels, H, W]: the image, scaled and cropped as the head of this file says.

    Args:
        path: a PNG, JPEG, BMP, WebP, GIF, TIFF or PPM; its content decides, not its suffix.
        size: H and W in pixels.
        channels: 1 for grey, 3 for RGB.
        invert: whether dark becomes bright, as for ink on paper.
        where: the setting that the path comes from, for messages.

    Raises:
        DataError: it is missing, no image, damaged, too large, or of a kind that has no 8-bit counterpart.
    """
    with _naming(path, where):
        image = _open(path)
        ImageOps.exif_transpose(image, in_place=True)
        return _fit(_on_white(image), size, channels, invert)


def fit_image(image: Image.Image, size: Size, channels: int, invert: bool = False) -> np.ndarray:
    """uint8 [channels, H, W]: an image that is in memory, upright, on white, scaled and cropped. Raises DataError."""
    try:
        upright = ImageOps.exif_transpose(image)
        upright.format = image.format  # by which pixels of 16 bits are known, and which the copy lacks
        return _fit(_on_white(upright), size, channels, invert)
    except _UnfitError as error:
        raise DataError("an image {} (examples): expected {}; {}".format(*error.args)) from error


def image_size(path: Path) -> Size:
    """Height and width in pixels, upright; a file whose turn is noted is decoded for it. Raises DataError."""
    with _naming(path):
        image = _open(path)
        if image.getexif().get(ORIENTATION, 1) != 1:  # or there is no need to decode it
            ImageOps.exif_transpose(image, in_place=True)
        return image.height, image.width


def is_grey(path: Path) -> bool:
    """Whether an image file has grey pixels only, by its kind. Raises DataError."""
    with _naming(path):
        return _open(path).mode in GREY


def has_colours(path: Path) -> bool:
    """Whether an image file has a pixel that is not grey. Raises DataError."""
    with _naming(path):
        if (image := _open(path)).mode in GREY:  # or all would be decoded
            return False
        pixels = np.asarray(_on_white(image).convert("RGB"))
        return bool((pixels != pixels[..., :1]).any())


def digest(path: Path) -> bytes:
    """SHA-256 of the file's bytes. Raises DataError where it cannot be read."""
    try:
        return hashlib.sha256(_read(path)).digest()
    except OSError as error:
        raise _unreadable(path, error) from error


def decode_all(files: list[Path], size: Size, channels: int, invert: bool = False) -> Iterator[np.ndarray]:
    """The decoded files, in their order, by as many threads as there are cores; a few of them are held at a time.

    Pillow lets go of Python's lock while it decodes and scales, so threads do what processes would.

    Raises:
        DataError: as decode does, at the first file in order that is at fault.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    bar = tqdm(total=len(files), desc="decoding images", unit="image", disable=not is_terminal(sys.stderr), leave=False)
    waiting: deque[Future[np.ndarray]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for path in files:
            waiting.append(pool.submit(decode, path, size, channels, invert))
            if len(waiting) > 4 * threads:
                yield waiting.popleft().result()
                bar.update()
        while waiting:
            yield waiting.popleft().result()
            bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()


def resize(images: np.ndarray, size: Size, channels: int, invert: bool = False, where: str = "data.root") -> np.ndarray:
    """uint8 [n, channels, H, W]: images that are decoded already, scaled and cropped as files are.

    Args:
        images: uint8 [n, h, w, 1, 3 or 4], or [n, h, w] for grey; a fourth channel is how opaque a pixel is.
        size: as in decode.
        channels: as in decode.
        invert: as in decode.
        where: as in decode.

    Raises:
        DataError: they are not of this shape.
    """
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise DataError(
            f"images of shape {list(images.shape)} and dtype {images.dtype} ({where}): expected uint8 [n, H, W] or "
            "[n, H, W, C] with C of 1, 3 or 4; convert them"
        )
    if images.shape[1:] == (*size, channels):
        moved = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return 255 - moved if invert else moved
    fitted = np.empty((len(images), channels, *size), np.uint8)
    for place, pixels in enumerate(images):
        pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        fitted[place] = _fit(_on_white(Image.fromarray(np.ascontiguousarray(pixels))), size, channels, invert)
    return fitted


def _read(path: Path) -> bytes:
    return read(path.resolve(), LARGEST_FILE)  # data sets are often links to where the disk has room


def _open(path: Path) -> Image.Image:
    """The image, of which only the head is decoded."""
    image = Image.open(io.BytesIO(_read(path)), formats=FORMATS)
    if image.width * image.height > LARGEST_IMAGE:
        raise _UnfitError(f"has {image.width}x{image.height} pixels", TOO_MANY, "shrink or remove it")
    return image


class _UnfitError(Exception):
    """The file is sound, and no image for us: what it is, what was expected, what to do."""


def _on_white(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB."""
    sixteen = image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if sixteen:
        return Image.fromarray(((np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise _UnfitError("has pixels of 32 bits, whose range is not known", "8 or 16 bits", "convert or remove it")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _fit(image: Image.Image, size: Size, channels: int, invert: bool) -> np.ndarray:
    """uint8 [channels, H, W] of an image in mode L or RGB."""
    height, width = size
    image = image.convert("L" if channels == 1 else "RGB")
    fitted = np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))
    fitted = fitted[None] if channels == 1 else fitted.transpose(2, 0, 1)
    return np.ascontiguousarray(255 - fitted if invert else fitted)


@contextmanager
def _naming(path: Path, where: str = "data.root") -> Iterator[None]:
    """Whatever goes wrong inside is a DataError that names the file."""
    try:
        yield
    except Exception as error:  # Pillow raises all kinds of errors on damaged images
        raise _unreadable(path, error, where) from error


def _unreadable(path: Path, error: Exception, where: str = "data.root") -> DataError:
    """What is wrong with a file, in a line."""
    if isinstance(error, _UnfitError):
        why, rule, remedy = error.args
    elif isinstance(error, Image.DecompressionBombError):
        why, rule, remedy = "has far too many pixels", TOO_MANY, "shrink or remove it"
    elif isinstance(error, Image.UnidentifiedImageError):
        why, rule, remedy = "is no image", f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}", "replace or remove it"
    elif isinstance(error, FileNotFoundError) and path.is_symlink():
        why, rule, remedy = "is a broken link", "it to lead to an image", "mend or remove it"
    elif isinstance(error, OSError) and error.filename:
        why, rule, remedy = f"cannot be read: {reason(error)}", "a file that can be read", "mend that"
    else:
        why = f"cannot be decoded: {reason(error) or type(error).__name__}"
        rule, remedy = "a whole image", "replace or remove it"
    return DataError(f"{path} {why} ({where}): expected {rule}; {remedy}")
