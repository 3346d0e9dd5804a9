"""Omniglot on disk: checked by content, packed once, downloaded whole, and refused in a line where it is not Omniglot."""

import io
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.drawings import CHARACTERS
from PIL import Image

from metarun.data import omniglot_archive
from metarun.data.omniglot import Omniglot
from metarun.data.omniglot_archive import DIGEST
from metarun.errors import DataError

CLASSES = sum(count for _, count in CHARACTERS.values())


def _load(root, download=False, digest=None):
    return omniglot_archive.load(root, download, digest or Omniglot.digest)


def _extract(archives, root):
    for name in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(archives / "omniglot-py" / f"{name}.zip") as archive:
            archive.extractall(root / "omniglot-py")
    return root


@pytest.fixture(scope="module")
def extracted(data_root, tmp_path_factory):
    """A data folder with the extracted images, for tests to spoil a copy of."""
    return _extract(data_root, tmp_path_factory.mktemp("data"))


@pytest.fixture
def spoiled(extracted, tmp_path):
    """A copy of the extracted folder, of hard links."""
    shutil.copytree(
        extracted / "omniglot-py",
        tmp_path / "omniglot-py",
        copy_function=os.link,
    )
    return tmp_path


def test_extracted_folders_give_the_same_images_as_archives(extracted, data_root):
    packed = _load(extracted)
    assert packed.examples.shape == (CLASSES * 20, 1, 28, 28)
    assert packed.examples.dtype == np.uint8
    assert packed.digest == _load(data_root).digest


@pytest.mark.slow
def test_the_real_folders_give_the_same_images_as_the_real_archives(real_data_root, tmp_path):
    _extract(real_data_root, tmp_path)
    assert _load(tmp_path, digest=DIGEST).digest == _load(real_data_root, digest=DIGEST).digest


def test_packed_again_when_the_source_changes(spoiled):
    _load(spoiled)
    shutil.rmtree(spoiled / "omniglot-py" / "images_evaluation" / "Tengwar" / "character07")
    with pytest.raises(DataError, match="altered Omniglot"):
        _load(spoiled)


def test_hidden_files_are_passed_over(spoiled):
    """As macOS adds them when it copies to other file systems, and file managers and editors for themselves."""
    drawing = next(spoiled.rglob("*.png"))
    (drawing.parent / f"._{drawing.name}").write_bytes(b"Mac OS X")
    shutil.copytree(drawing.parent, drawing.parents[1] / ".thumbnails")
    assert len(_load(spoiled)) == CLASSES


def test_missing_classes_and_drawings_are_noticed(spoiled):
    evaluation = spoiled / "omniglot-py" / "images_evaluation"
    shutil.rmtree(evaluation / "Tengwar" / "character07")
    with pytest.raises(DataError, match=rf"altered Omniglot .*: {CLASSES - 1} characters of 4 alphabets"):
        _load(spoiled)
    next((evaluation / "ULOG" / "character01").glob("*.png")).unlink()
    with pytest.raises(DataError, match=r"found otherwise: ULOG/character01 \(19 of 20 drawings\)"):
        _load(spoiled)


def test_a_missing_half_is_named(spoiled):
    shutil.rmtree(spoiled / "omniglot-py" / "images_background")
    with pytest.raises(DataError, match=r"omniglot-py/images_background.zip"):
        _load(spoiled)


def test_another_data_set_in_the_same_layout_is_refused(data_root):
    with pytest.raises(DataError, match="altered Omniglot"):
        _load(data_root, digest=DIGEST)


@pytest.mark.parametrize("change", ["one pixel", "another drawing", "not a png", "huge", "other size"])
def test_altered_drawings_are_noticed(spoiled, change):
    folder = spoiled / "omniglot-py" / "images_background" / "Sanskrit" / "character12"
    victim, other = sorted(folder.glob("*.png"))[:2]
    image = Image.open(victim)
    image.load()
    content = other.read_bytes()
    victim.unlink()  # a hard link: writing into it would spoil the original
    if change == "one pixel":
        image.putpixel((50, 50), 255 - image.getpixel((50, 50)))
        image.save(victim)
    elif change == "other size":
        image.resize((104, 105)).save(victim)
    else:
        victim.write_bytes(
            {"another drawing": content, "not a png": b"GIF89a" + content, "huge": content + bytes(100_000)}[change]
        )
    with pytest.raises(DataError, match=r"Sanskrit|altered Omniglot"):
        _load(spoiled)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more"])
def test_a_broken_archive_is_refused(tmp_path, data_root, content):
    (tmp_path / "omniglot-py").mkdir()
    (tmp_path / "omniglot-py" / "images_background.zip").write_bytes(content)
    shutil.copy(data_root / "omniglot-py" / "images_evaluation.zip", tmp_path / "omniglot-py")
    with pytest.raises(DataError, match="not a readable zip"):
        _load(tmp_path)


def test_processes_starting_together_pack_once(spoiled):
    code = (
        "import sys; from pathlib import Path; from metarun.data import omniglot_archive as a; original = a._decode\n"
        "def decode(*args):\n    print('decoding', flush=True)\n    return original(*args)\n"
        "a._decode = decode; print(a.load(Path(sys.argv[1]), False, sys.argv[2]).digest)"
    )
    words = [sys.executable, "-c", code, str(spoiled), Omniglot.digest]
    environment = os.environ | {"XDG_CACHE_HOME": str(spoiled / "cache")}
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    lines = [line for process in processes for line in process.communicate()[0].split("\n") if line]
    assert lines.count("decoding") == 1
    assert len(set(lines)) == 2
    assert len(lines) == 4


def test_a_torchvision_that_does_not_fit_is_named(tmp_path, monkeypatch):
    """The wrong build raises RuntimeError on import; stood in for by a module that does the same."""
    broken = tmp_path / "broken" / "torchvision"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(broken.parent))
    with pytest.raises(DataError, match="reinstall both together: pip install"):
        _load(Path(tmp_path), download=True)


def test_downloads_come_whole_and_once(tmp_path, data_root, monkeypatch):
    """With torchvision's class stood in for by one that brings the archives, and is watched by eight threads."""
    from concurrent.futures import ThreadPoolExecutor

    import torchvision.datasets

    brought = []

    def fake(root, background, download):
        name = "images_background" if background else "images_evaluation"
        brought.append(name)
        assert not (tmp_path / "new" / "omniglot-py" / f"{name}.zip").exists()
        (Path(root) / "omniglot-py" / name).mkdir(parents=True)
        shutil.copy(data_root / "omniglot-py" / f"{name}.zip", Path(root) / "omniglot-py")

    monkeypatch.setattr(torchvision.datasets, "Omniglot", fake)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: omniglot_archive._sources(tmp_path / "new", True), range(8)))
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"omniglot-py"}
    assert sorted(brought) == ["images_background", "images_evaluation"]
    assert {p.name for p in (tmp_path / "new" / "omniglot-py").glob("images*")} == {
        "images_background.zip",
        "images_evaluation.zip",
    }


def test_a_failed_download_leaves_nothing_behind(tmp_path, monkeypatch):
    import torchvision.datasets

    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets, "Omniglot", fail)
    with pytest.raises(DataError, match=r"no network.*put them there by hand"):
        _load(tmp_path / "new" / "folder", download=True)
    assert not (tmp_path / "new").exists()


def _sparse(path):
    with open(path, "wb") as file:
        file.truncate(10**11)


def _archive(entries):
    """A zip file of (name, content) with nothing checked."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return out.getvalue()


def _encrypted(content):
    """The same archive, said to be encrypted."""
    return content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")


def _of_png(width, height):
    """The beginning of an image of that size."""
    head = struct.pack(">II", width, height) + b"\x01\x00\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + b"\x00" * 4


def _every(image):
    """An archive that has all of the background names, each with this image."""
    return [
        (f"images_background/{alphabet}/character{c:02d}/{c:04d}_{n:02d}.png", image)
        for alphabet, (part, count) in CHARACTERS.items()
        if part == "images_background"
        for c in range(1, count + 1)
        for n in range(1, 21)
    ]


BACKGROUND = Path("data/omniglot-py/images_background.zip")
HOSTILE_DATA = {
    "names that lead out": lambda: BACKGROUND.write_bytes(_archive([("../../owned", b"x"), ("/owned", b"x")])),
    "a link": lambda: BACKGROUND.write_bytes(_archive([("images_background/x", b"/etc/passwd")])),
    "not a zip": lambda: BACKGROUND.write_bytes(b"PK" * 1000),
    "a huge archive": lambda: _sparse(BACKGROUND),
    "images of another size": lambda: BACKGROUND.write_bytes(_archive(_every(_of_png(100_000, 100_000)))),
    "images that unpack without end": lambda: BACKGROUND.write_bytes(_archive(_every(bytes(100_000)))),
    "encrypted images": lambda: BACKGROUND.write_bytes(_encrypted(_archive(_every(b"x")))),
    "a pipe": lambda: os.mkfifo(BACKGROUND),
    "a device": lambda: BACKGROUND.symlink_to("/dev/zero"),
    "a cut archive": lambda: BACKGROUND.write_bytes(_archive(_every(b"x"))[:-30]),
}


@pytest.mark.parametrize("case", HOSTILE_DATA)
def test_strangers_data_is_refused(tmp_path, monkeypatch, data_root, case):
    monkeypatch.chdir(tmp_path)
    BACKGROUND.parent.mkdir(parents=True)
    (BACKGROUND.parent / "images_evaluation.zip").symlink_to(data_root / "omniglot-py" / "images_evaluation.zip")
    HOSTILE_DATA[case]()
    before = sorted(Path().rglob("*"))
    with pytest.raises(DataError):
        Omniglot(root="data", download=False).prepare(torch.device("cpu"))
    assert [path for path in sorted(Path().rglob("*")) if path not in before and path.suffix != ".lock"] == []
