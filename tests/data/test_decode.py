"""Image files: every kind gives the same pixels or is refused in a line."""

import hashlib
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from metarun.data import decode as module
from metarun.data.decode import decode, decode_all, digest, image_size, resize
from metarun.errors import DataError

RAMP = np.arange(8 * 8, dtype=np.uint8).reshape(8, 8) * 4  # grey, 0 to 252, no two pixels alike
GREY = Image.fromarray(RAMP)
RGB = np.stack([RAMP, RAMP.T, 255 - RAMP], -1)


def _save(path, image, **settings):
    image.save(path, **settings)
    return path


@pytest.mark.parametrize("kind", ["png", "bmp", "webp", "gif", "tif", "ppm", "jpg"])
def test_the_formats_give_the_same_pixels(tmp_path, kind):
    settings = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(kind, {})
    path = _save(tmp_path / f"a.{kind}", Image.fromarray(RGB), **settings)
    pixels = decode(path, (8, 8), 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.transpose(1, 2, 0).astype(int) - RGB).max() <= (3 if kind == "jpg" else 0)
    assert image_size(path) == (8, 8)


@pytest.mark.parametrize("kind", ["png", "tif", "pgm"])
def test_sixteen_bits_become_eight_by_rounding(tmp_path, kind):
    values = np.array([[0, 65535, 257 * 100, 257 * 100 + 128, 257 * 100 + 129, 128, 129, 65407]], np.uint16).repeat(
        8, 0
    )
    path = _save(tmp_path / f"a.{kind}", Image.fromarray(values))
    assert decode(path, (8, 8), 1)[0, 0].tolist() == [round(v * 255 / 65535) for v in values[0].tolist()]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB key"])
def test_what_is_transparent_is_white(tmp_path, mode):
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[:, :4] = 0
    image = Image.fromarray(np.dstack([RAMP, RAMP, RAMP, alpha]))
    expected, settings = np.where(alpha == 255, RAMP, 255), {}
    if mode == "P":
        image, settings = Image.fromarray(np.where(alpha == 255, 1, 0).astype(np.uint8), "P"), {"transparency": 0}
        image.putpalette([9, 9, 9, 70, 70, 70])
        expected = np.where(alpha == 255, 70, 255)
    elif mode == "RGB key":
        image, settings = Image.fromarray(np.dstack([RAMP] * 3)), {"transparency": (4, 4, 4)}
        expected = np.where(RAMP == 4, 255, RAMP)
    else:
        image = image.convert(mode)
    path = _save(tmp_path / "a.png", image, **settings)
    np.testing.assert_array_equal(decode(path, (8, 8), 3), np.broadcast_to(expected, (3, 8, 8)))
    np.testing.assert_array_equal(decode(path, (8, 8), 1, invert=True)[0], 255 - expected)


def test_half_transparent_is_half_white(tmp_path):
    path = _save(tmp_path / "a.png", Image.new("LA", (8, 8), (0, 128)))
    assert set(decode(path, (8, 8), 1).ravel().tolist()) == {127}


@pytest.mark.parametrize(
    ("mode", "colour", "expected"), [("CMYK", (0, 0, 255, 0), (255, 255, 0)), ("1", 1, (255,) * 3)]
)
def test_other_colours_become_rgb(tmp_path, mode, colour, expected):
    path = _save(tmp_path / "a.tif", Image.new(mode, (8, 8), colour))
    np.testing.assert_array_equal(decode(path, (2, 2), 3)[:, 0, 0], expected)


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_the_turn_of_a_camera_is_applied(tmp_path, turn, kind):
    """The corners of what EXIF says: the stored row 0 and column 0 are these sides of the picture."""
    row, column = ["tl", "tr", "br", "bl", "lt", "rt", "rb", "lb"][turn - 1]
    stored = np.zeros((32, 16), np.uint8)
    stored[:8, :8] = 255  # the corner of row 0 and column 0
    exif = Image.Exif()
    exif[0x0112] = turn
    path = _save(tmp_path / f"a.{kind}", Image.fromarray(stored), exif=exif)
    height, width = (32, 16) if row in "tb" else (16, 32)
    assert image_size(path) == (height, width)
    pixels = decode(path, (height, width), 1)[0]
    bottom, right = "b" in (row, column), "r" in (row, column)
    corner = pixels[-4:] if bottom else pixels[:4]
    corner = corner[:, -4:] if right else corner[:, :4]
    assert corner.min() > 200
    assert pixels.astype(int).sum() < 255 * 100  # and the rest is black


def test_the_shorter_side_is_scaled_and_the_middle_cut_out(tmp_path):
    wide = np.zeros((8, 32), np.uint8)
    wide[:, 12:20] = RAMP
    np.testing.assert_array_equal(decode(_save(tmp_path / "a.png", Image.fromarray(wide)), (8, 8), 1)[0], RAMP)
    np.testing.assert_array_equal(decode(_save(tmp_path / "b.png", Image.fromarray(wide.T)), (8, 8), 1)[0], RAMP.T)
    board = np.indices((64, 64)).sum(0) % 2 * 255  # which a filter that does not antialias makes black or white
    shrunk = decode(_save(tmp_path / "c.png", Image.fromarray(board.astype(np.uint8))), (8, 8), 1)
    assert 120 < shrunk.min() <= shrunk.max() < 136


def test_a_drawing_of_omniglot_is_shrunk_as_data_omniglot_does(tmp_path):
    ink = np.random.default_rng(0).random((105, 105)) > 0.1
    path = _save(tmp_path / "a.png", Image.fromarray(ink))
    expected = 255 - np.asarray(Image.open(path).convert("L").resize((28, 28), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(decode(path, (28, 28), 1, invert=True)[0], expected)


def test_the_first_picture_of_an_animation_counts(tmp_path):
    path = tmp_path / "a.gif"
    GREY.save(path, save_all=True, append_images=[Image.new("L", (8, 8), 7)])
    np.testing.assert_array_equal(decode(path, (8, 8), 1)[0], RAMP)


def _png_of(side):
    """A PNG that says it has this many pixels a side, and has none."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _cut(kind):
    def make(path):
        Image.effect_noise((64, 64), 50).save(path, kind)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return make


BAD = {
    "30000x30000": (lambda path: path.write_bytes(_png_of(30000)), "too many pixels.*at most 89 million"),
    "9500x9500": (lambda path: path.write_bytes(_png_of(9500)), "9500x9500 pixels.*at most 89 million"),
    "text": (lambda path: path.write_text("hello"), "is no image.*expected PNG, JPEG"),
    "empty": (lambda path: path.write_bytes(b""), "is no image"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "is a broken link"),
    "missing": (lambda path: None, "No such file"),
    "folder": (lambda path: path.mkdir(), "not a regular file"),
    "pipe": (lambda path: os.mkfifo(path), "not a regular file"),
    "another format": (lambda path: GREY.save(path, "TGA"), "is no image.*expected PNG, JPEG"),
    "32 bits": (lambda path: Image.new("F", (8, 8)).save(path, "TIFF"), "pixels of 32 bits"),
    **{
        f"truncated {kind}": (_cut(kind), "cannot be decoded") for kind in ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF")
    },
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_sound_image_is_refused_in_a_line(tmp_path, case):
    make, words = BAD[case]
    make(tmp_path / "a.png")
    with warnings.catch_warnings(record=True) as heard, pytest.raises(DataError, match=words) as refused:
        warnings.filterwarnings("ignore", module=r"PIL\.")  # as decode.py does; the record forgets it
        decode(tmp_path / "a.png", (8, 8), 3)
    assert str(tmp_path / "a.png") in str(refused.value)
    assert "(data.root): expected" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not heard


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path, most):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(module, "read", refuse)
    for function in (lambda path: decode(path, (8, 8), 1), image_size, digest):
        with pytest.raises(DataError, match=r"a\.png cannot be read: Permission denied \(data\.root\)"):
            function(tmp_path / "a.png")


def test_the_digest_is_that_of_the_bytes_behind_a_link(tmp_path):
    (tmp_path / "a.png").write_bytes(b"abc")
    (tmp_path / "b.png").symlink_to("a.png")
    assert digest(tmp_path / "b.png") == hashlib.sha256(b"abc").digest()


def test_many_files_come_in_order_and_few_at_a_time(tmp_path, monkeypatch):
    files = [_save(tmp_path / f"{n}.png", Image.new("L", (4, 4), n)) for n in range(100)]
    taken = []

    class _Counted(list):
        def __iter__(self):
            return (taken.append(path) or path for path in super().__iter__())

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    images = decode_all(_Counted(files), (4, 4), 1)
    assert next(images).max() == 0
    assert len(taken) <= 16
    assert [int(image[0, 0, 0]) for image in images] == list(range(1, 100))


def test_of_many_files_the_damaged_one_is_named(tmp_path):
    files = [_save(tmp_path / f"{n}.jpg", GREY) for n in range(1000 // 50)] * 50
    bad = tmp_path / "bad.jpg"
    _cut("JPEG")(bad)
    with pytest.raises(DataError, match=r"bad\.jpg cannot be decoded: image file is truncated"):
        list(decode_all([*files[:500], bad, *files[500:]], (8, 8), 1))


def test_arrays_are_scaled_as_files_are(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    files = [_save(tmp_path / f"{n}.png", Image.fromarray(image)) for n, image in enumerate(noise)]
    for channels in (1, 3):
        expected = np.stack(list(decode_all(files, (8, 6), channels, invert=True)))
        np.testing.assert_array_equal(resize(noise, (8, 6), channels, invert=True), expected)


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 8, 8, 1), (2, 8, 8, 3), (2, 8, 8, 4)])
def test_arrays_of_the_right_size_are_only_rearranged(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if shape[-1] == 4:
        images[..., 3] = 255
    channels = 3 if len(shape) == 4 and shape[-1] > 1 else 1
    expected = images.reshape(2, 8, 8, -1)[..., :channels].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(resize(images, (8, 8), channels), expected)
    np.testing.assert_array_equal(resize(images, (8, 8), channels, invert=True), 255 - expected)


@pytest.mark.parametrize(
    "images", [np.zeros((2, 8, 8, 2), np.uint8), np.zeros((2, 8)), np.zeros((2, 8, 8), np.float32)]
)
def test_arrays_that_are_no_images_are_refused(images):
    with pytest.raises(DataError, match=r"data\.root.*uint8"):
        resize(images, (8, 8), 1)
