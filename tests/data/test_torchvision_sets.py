"""Data sets of torchvision: their parts together, their classes split, by published lists where there are any."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from metarun.data.packing import Packed
from metarun.data.torchvision_sets import TorchvisionSet
from metarun.errors import DataError, SettingError


def _write_mnist(root, name, images):
    """MNIST's own files; image n has label n mod 10."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.arange(len(images), dtype=np.uint8) % 10
    head = struct.pack(">IIII", 2051, len(images), *images.shape[1:])
    (folder / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, len(labels)) + labels.tobytes())


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """A folder with MNIST's four files, of random images; and those."""
    root = tmp_path_factory.mktemp("mnist")
    images = np.random.default_rng(0).integers(0, 256, (70, 28, 28), np.uint8)
    _write_mnist(root, "train", images[:50])
    _write_mnist(root, "t10k", images[50:])
    return root, images


def _of(**settings):
    return TorchvisionSet(**{"ways": 2, "download": False, **settings})


def test_the_parts_are_pooled_by_class(mnist):
    root, images = mnist
    source = _of(dataset="MNIST", root=str(root))
    source.prepare(torch.device("cpu"))
    assert source.input_shape == (1, 28, 28)
    assert [source.split_sizes[split] for split in ("train", "val", "test")] == [6, 2, 2]
    for n, name in enumerate(sorted(source.packed)):
        assert name.startswith(str(n)), "the data set's own names"
        assert np.array_equal(source.packed[name][:, 0], images[n::10])
    assert source.facts()["more"]["layout"] == "MNIST"


def test_images_without_a_class_are_of_none(mnist, monkeypatch):
    """Torchvision labels those of STL10's unlabelled part -1, which is the last of a list."""
    monkeypatch.setattr(TorchvisionSet, "_read", lambda self, part, n: (part[n][0], -1))
    with pytest.raises(DataError, match=r"-1 \(label of MNIST, data.dataset\): expected a class of each image"):
        _of(dataset="MNIST", root=str(mnist[0]), size=14).prepare(torch.device("cpu"))


def test_all_classes_can_be_for_the_test(mnist):
    source = _of(dataset="MNIST", root=str(mnist[0]), ways=10, splits=[0, 0, 1])
    source.prepare(torch.device("cpu"))
    assert source.sample(0, "test", torch.arange(2)).support_y[0].tolist() == list(range(10))


def test_cifar_splits_are_those_published(monkeypatch):
    """64/16/20 and 60/20/20 of the 100 classes; FC100's by whole superclasses."""
    from metarun.data import torchvision_sets as sets

    held_out = {name for part in sets.FC100.values() for name in part.split()}
    others = {f"other{n}" for n in range(100 - len(held_out | {n for p in sets.CIFAR_FS.values() for n in p.split()}))}
    names = sorted(held_out | others | {n for part in sets.CIFAR_FS.values() for n in part.split()})
    examples = Packed.of({name: np.zeros((2, 3, 4, 4), np.uint8) for name in names})
    for split, counts in {"cifar_fs": (64, 16, 20), "fc100": (60, 20, 20)}.items():
        source = _of(dataset="CIFAR100", split=split)
        monkeypatch.setattr(source, "load", lambda: examples)
        parts = [source.classes(part) for part in ("train", "val", "test")]
        assert tuple(map(len, parts)) == counts
        assert sorted(name for part in parts for name in part) == names


def test_what_is_there_needs_no_download_whatever_lies_beside_it(mnist, tmp_path):
    import shutil

    shutil.copytree(mnist[0], tmp_path, dirs_exist_ok=True)
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "0.png")
    assert len(_of(dataset="MNIST", root=str(tmp_path), download=True).packed.examples) == 70
    shutil.rmtree(tmp_path / "MNIST")
    with pytest.raises(DataError, match="holds images, and not the data set"):
        _ = _of(dataset="MNIST", root=str(tmp_path), download=True, size=9).packed


def test_options_are_the_data_sets_own():
    source = _of(dataset="FakeData", options={"size": 60, "num_classes": 6, "image_size": [3, 9, 12]}, shots=2)
    source.prepare(torch.device("cpu"))
    assert source.input_shape == (3, 9, 9)
    assert len(source.packed.examples) == 60


@pytest.mark.parametrize(
    ("settings", "error", "line"),
    [
        ({}, SettingError, r"null \(dataset\): expected a data set of torchvision"),
        ({"dataset": "../../MNIST"}, SettingError, r"MNIST' \(dataset\): expected a data set of torchvision"),
        ({"dataset": "MNIST", "split": "fc100"}, SettingError, r"'fc100' \(split\): expected null for MNIST"),
        ({"dataset": "CIFAR100", "split": "fs"}, SettingError, r"expected null or cifar_fs or fc100 for CIFAR100"),
        ({"dataset": "MNST"}, DataError, r"'MNST' \(data.dataset\): .*did you mean .*MNIST\?"),
        ({"dataset": "VisionDataset"}, DataError, r"'VisionDataset' \(data.dataset\): expected a class"),
        (
            {"dataset": "MNIST", "root": "/absent"},
            DataError,
            r"MNIST \(data.dataset\): torchvision cannot make it from",
        ),
        ({"dataset": "MNIST", "options": {"what": 1}}, DataError, r"unexpected keyword argument.*or data.options"),
        (
            {"dataset": "FakeData", "options": {"size": 5, "num_classes": 2}, "splits": [0, 0, 1], "ways": 3},
            None,
            "",
        ),
    ],
)
def test_what_cannot_be_read_is_said(settings, error, line):
    if error is None:
        assert _of(**settings).split_sizes["test"] == 2
        return
    with pytest.raises(error, match=line):
        _ = _of(**settings).packed


def test_images_of_all_modes_are_read(monkeypatch):
    """In a set of files some are of a palette, whose numbers are no colours."""
    red = Image.new("RGB", (9, 9), "red")
    modes = [red, red.convert("P"), red.convert("CMYK"), red.convert("RGBA")]
    source = _of(dataset="Flowers102", channels=3, splits=[0, 0, 1])
    monkeypatch.setattr(source, "_parts", lambda: [[(image, n) for n, image in enumerate(modes)]])
    assert [source.packed[name][0, :, 4, 4].tolist() for name in source.packed] == [[255, 0, 0]] * len(modes)


def test_an_image_that_cannot_be_read_is_named(monkeypatch):
    class Damaged(list):
        def __getitem__(self, n):
            raise OSError("image file is truncated")

    source = _of(dataset="Flowers102")
    monkeypatch.setattr(source, "_parts", lambda: [Damaged([0])])
    with pytest.raises(DataError, match=r"Flowers102 \(data.dataset\): image 0 cannot be read \(image file is trunc"):
        _ = source.packed


def test_a_download_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fail)
    with pytest.raises(DataError, match=r"no network; expected its files there"):
        _ = _of(dataset="KMNIST", root=str(tmp_path / "new" / "folder"), download=True).packed
    assert not (tmp_path / "new" / "folder").exists()
