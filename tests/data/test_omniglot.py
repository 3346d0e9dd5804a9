"""Omniglot: what is on disk is checked by content, no class leaks, support and query share nothing."""

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.oracles import maml
from PIL import Image

from metarun import seeds
from metarun.data import omniglot_files as files
from metarun.data.omniglot import Omniglot
from metarun.engine.engine import Engine
from metarun.errors import DataError, SettingError
from metarun.models import Conv4

CPU = torch.device("cpu")
SPLITS = ("train", "val", "test")


def test_splits_are_disjoint_and_have_their_sizes(omniglot):
    source = omniglot()
    names = {split: source.classes(split) for split in SPLITS}
    assert [len(names[split]) for split in SPLITS] == [1100, 100, 423]
    assert len(set().union(*names.values())) == 1623
    assert source.identity()["split_hash"] == omniglot(ways=20, shots=5).identity()["split_hash"]
    assert source.identity()["split_hash"] != omniglot(split_seed=1).identity()["split_hash"]


def test_images_are_the_archives_drawings(omniglot, data_root):
    """Decoded independently of the package's own reader: class by name, drawing by drawer, ink bright."""
    source = omniglot()
    with zipfile.ZipFile(data_root / "omniglot-py" / "images_background.zip") as archive:
        paths = sorted(p for p in archive.namelist() if "/Greek/character03/" in p)
        drawings = [np.asarray(Image.open(io.BytesIO(archive.read(p))).convert("L")) for p in paths]
    place = files.classes().index("Greek/character03")
    for drawer in (0, 7, 19):
        small = source.images[place * 20 + drawer].view(28, 28).float() / 255
        ink = 1 - torch.from_numpy(drawings[drawer].copy()).float() / 255
        # Shrinking keeps the mean (to the filter's ringing, which is clipped) and the place of the ink.
        assert abs(small.mean() - ink.mean()) < 0.01
        coarse = torch.nn.functional.adaptive_avg_pool2d(ink[None], 28)[0]
        assert torch.corrcoef(torch.stack([small.flatten(), coarse.flatten()]))[0, 1] > 0.9
        assert ((small > 0.1) & (small < 0.9)).any(), "antialiased"


def _drawings(source, images):
    """For each 28x28 image the (class, drawer) it is, whatever its rotation."""
    if not hasattr(source, "known"):
        source.known = {}
        for number, image in enumerate(source.images.view(-1, 28, 28)):
            for quarter in range(4):
                source.known.setdefault(torch.rot90(image, quarter).contiguous().numpy().tobytes(), []).append(number)
    return [source.known[(image * 255).round().byte().numpy().tobytes()] for image in images.reshape(-1, 28, 28)]


@pytest.fixture(scope="module")
def identified(omniglot):
    """Which drawings the tasks of each split hold, and the source."""
    source = omniglot(ways=5, shots=2, queries=3)
    result = {}
    for split in SPLITS:
        tasks = source.sample(0, split, torch.arange(200))
        result[split] = (_drawings(source, tasks.support_x), _drawings(source, tasks.query_x), tasks)
    return source, result


def test_no_test_character_in_any_rotation_is_a_training_character(identified):
    source, result = identified
    held = {split: {n // 20 for part in result[split][:2] for numbers in part for n in numbers} for split in SPLITS}
    members = {split: set(source.members[split].tolist()) for split in SPLITS}
    # One drawing of Omniglot exists twice, in one class, and simple shapes may equal another class's turned drawing.
    assert all(len(held[a] & members[b]) <= 3 for a in SPLITS for b in SPLITS if a != b)
    for split in SPLITS:
        for part in result[split][:2]:
            assert all(any(n // 20 in members[split] for n in numbers) for numbers in part)
    assert not members["train"] & members["test"]
    assert not members["val"] & (members["test"] | members["train"])


def test_support_and_query_never_share_a_drawing_and_labels_are_right(identified):
    _, result = identified
    for support, query, tasks in result.values():
        support_ids, query_ids = (
            np.array([numbers[0] for numbers in part]).reshape(200, 5, -1) for part in (support, query)
        )
        assert torch.equal(tasks.support_y, torch.arange(5).repeat_interleave(2).expand(200, -1))
        assert torch.equal(tasks.query_y, torch.arange(5).repeat_interleave(3).expand(200, -1))
        for t in range(200):
            classes = support_ids[t] // 20
            assert (classes == classes[:, :1]).all()
            assert len(set(classes[:, 0])) == 5
            assert (query_ids[t] // 20 == classes[:, :1]).all()
            both = np.concatenate([support_ids[t], query_ids[t]], axis=1)
            assert len(np.unique(both)) == 25


def test_all_classes_and_drawings_are_used(omniglot):
    source = omniglot(shots=2, queries=2)
    seen = {n for numbers in _drawings(source, source.sample(0, "val", torch.arange(1500)).support_x) for n in numbers}
    members = set(source.members["val"].tolist())
    assert {n // 20 for n in seen} >= members
    assert sum(n // 20 in members for n in seen) > 1990  # of 2000; each is missed with probability 0.0005


def test_rotations_are_per_class_and_where_they_were_asked_for(omniglot):
    def turns(rotations, split):
        source = omniglot(shots=2, queries=1, rotations=rotations)
        tasks = source.sample(0, split, torch.arange(100))
        plain = omniglot(shots=2, queries=1, rotations="none").sample(0, split, torch.arange(100))
        found = []
        for x, p in zip(tasks.support_x.view(-1, 2, 28, 28), plain.support_x.view(-1, 2, 28, 28), strict=True):
            matching = [q for q in range(4) if torch.equal(torch.rot90(p, q, (1, 2)), x)]
            assert matching, "a class is turned as a whole, by a multiple of 90 degrees"
            found.append(matching[0])
        if (rotations, split) == ("all", "test"):
            same = (torch.tensor(found).view(100, 5).diff(dim=1) == 0).all(dim=1).sum()
            assert same <= 4, "each class has a turn of its own: all five agree in one task of 256"
        return torch.bincount(torch.tensor(found), minlength=4)

    assert (turns("all", "train") > 90).all()
    assert (turns("all", "test") > 90).all()
    assert (turns("train", "train") > 90).all()
    assert turns("train", "test").tolist() == [500, 0, 0, 0]
    assert turns("none", "train").tolist() == [500, 0, 0, 0]


def test_a_task_is_a_function_of_seed_split_and_number(omniglot):
    source = omniglot()
    whole = source.sample(0, "test", torch.arange(40))
    for one in (0, 39):
        alone = source.sample(0, "test", torch.tensor([one]))
        assert all(torch.equal(a[0], b[one]) for a, b in zip(alone, whole, strict=True))
    other = source.sample(1, "test", torch.arange(40))
    assert not torch.equal(other.support_x, whole.support_x)


def test_zero_steps_and_random_labels_score_at_chance(omniglot):
    """Controls. After no inner step, and when support labels say nothing, 5-way accuracy is 20 %."""
    source = omniglot(shots=5, queries=5)
    with seeds.forked(0, "init"):
        algorithm = maml(Conv4((1, 28, 28), 5, filters=16), inner_lr=0.4)
    tasks = source.sample(0, "test", torch.arange(100))
    curve = Engine().adaptation_curves(algorithm, algorithm.init(), tasks).mean(dim=0)
    assert abs(curve[0] - 0.2) < 0.03
    assert curve[-1] > 0.5, "with labels, even an untrained network learns something"
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.stack([y[torch.randperm(25, generator=generator)] for y in tasks.support_y])
    curve = Engine().adaptation_curves(algorithm, algorithm.init(), tasks._replace(support_y=shuffled)).mean(dim=0)
    assert abs(curve[-1] - 0.2) < 0.04


@pytest.mark.parametrize(
    "bad",
    [
        {"ways": 1},
        {"ways": 101},
        {"shots": 0},
        {"shots": 11},
        {"shots": 1, "queries": 20},
        {"queries": 0},
        {"rotations": "some"},
        {"split_seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(SettingError):
        Omniglot(**bad)


# What is on disk


@pytest.fixture(scope="module")
def extracted(data_root, tmp_path_factory):
    """A data folder with the extracted images, for tests to spoil a copy of."""
    root = tmp_path_factory.mktemp("data")
    for name in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(data_root / "omniglot-py" / f"{name}.zip") as archive:
            archive.extractall(root / "omniglot-py")
    return root


@pytest.fixture
def spoiled(extracted, tmp_path):
    """A copy of the extracted folder, of hard links."""
    shutil.copytree(
        extracted / "omniglot-py",
        tmp_path / "omniglot-py",
        copy_function=os.link,
        ignore=shutil.ignore_patterns("metarun-*"),
    )
    return tmp_path


def test_extracted_folders_give_the_same_images_as_archives(extracted, data_root):
    assert np.array_equal(files.load(extracted, False), files.load(data_root, False))


def test_packed_once_and_again_when_damaged(extracted, monkeypatch):
    files.load(extracted, False)
    packed = extracted / "omniglot-py" / "metarun-omniglot-28.bin"
    good = packed.read_bytes()
    monkeypatch.setattr(files, "_decode", lambda sources: pytest.fail("decoded although packed"))
    files.load(extracted, False)
    monkeypatch.undo()
    for spoil in (good[:-1], good[:1000] + bytes([good[1000] ^ 1]) + good[1001:], b""):
        packed.write_bytes(spoil)
        files.load(extracted, False)
        assert packed.read_bytes() == good
    assert not list(packed.parent.glob("*.tmp"))


def test_missing_classes_and_drawings_are_named(spoiled):
    shutil.rmtree(spoiled / "omniglot-py" / "images_evaluation" / "Tengwar" / "character07")
    next((spoiled / "omniglot-py" / "images_evaluation" / "ULOG" / "character01").glob("*.png")).unlink()
    with pytest.raises(DataError, match=r"Tengwar/character07 \(0 of 20 drawings\), ULOG/character01 \(19 of 20"):
        files.load(spoiled, False)


def test_a_missing_half_is_named(spoiled):
    shutil.rmtree(spoiled / "omniglot-py" / "images_background")
    with pytest.raises(DataError, match=r"omniglot-py/images_background.zip"):
        files.load(spoiled, False)


@pytest.mark.parametrize("change", ["one pixel", "another drawing", "not a png", "huge", "other size"])
def test_altered_drawings_are_noticed(spoiled, change):
    folder = spoiled / "omniglot-py" / "images_background" / "Sanskrit" / "character42"
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
    with pytest.raises(DataError, match="Sanskrit"):
        files.load(spoiled, False)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more"])
def test_a_broken_archive_is_refused(tmp_path, data_root, content):
    (tmp_path / "omniglot-py").mkdir()
    (tmp_path / "omniglot-py" / "images_background.zip").write_bytes(content)
    shutil.copy(data_root / "omniglot-py" / "images_evaluation.zip", tmp_path / "omniglot-py")
    with pytest.raises(DataError, match="not a readable zip"):
        files.load(tmp_path, False)


def test_a_read_only_data_folder_is_packed_in_the_cache(spoiled, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    (spoiled / "omniglot-py").chmod(0o555)
    try:
        files.load(spoiled, False)
    finally:
        (spoiled / "omniglot-py").chmod(0o755)
    assert len(list((cache / "metarun").glob("*-metarun-omniglot-28.bin"))) == 1
    assert not list((spoiled / "omniglot-py").glob("*.bin"))


def test_processes_starting_together_pack_once(spoiled):
    code = (
        "import sys; from pathlib import Path; from metarun.data import omniglot_files as f; original = f._decode\n"
        "def decode(sources):\n    print('decoding', flush=True)\n    return original(sources)\n"
        "f._decode = decode; print(f.load(Path(sys.argv[1]), False).sum())"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(spoiled)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    lines = [line for process in processes for line in process.communicate()[0].split("\n") if line]
    assert lines.count("decoding") == 1
    assert len(set(lines)) == 2
    assert len(lines) == 5


def test_a_torchvision_that_does_not_fit_is_named(tmp_path, monkeypatch):
    """The wrong build raises RuntimeError on import; stood in for by a module that does the same."""
    broken = tmp_path / "broken" / "torchvision"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(broken.parent))
    with pytest.raises(DataError, match="reinstall both together: pip install"):
        files.load(Path(tmp_path), download=True)


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
        list(pool.map(lambda _: files._sources(tmp_path / "new", True), range(8)))
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"omniglot-py"}
    assert sorted(brought) == ["images_background", "images_evaluation"]
    assert {p.name for p in (tmp_path / "new" / "omniglot-py").glob("images*")} == {
        "images_background.zip",
        "images_evaluation.zip",
    }
