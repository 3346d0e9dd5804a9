"""Images of a folder: decoded to one size, packed once, changed in training only; copies in two splits are refused."""

import logging
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from metarun.data import images
from metarun.data.images import Images
from metarun.errors import DataError, SettingError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten classes of four colour images of 20x16 pixels."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for n in range(10):
        (root / f"class {n}").mkdir()
        for k in range(4):
            pixels = generator.integers(0, 256, (20, 16, 3), np.uint8)
            Image.fromarray(pixels).save(root / f"class {n}" / f"{k}.png")
    return root


def _prepared(root, **settings):
    source = Images(root=str(root), **{"ways": 2, "shots": 2, "queries": 2, **settings})
    source.prepare(torch.device("cpu"))
    return source


def test_tasks_are_made_of_the_files_of_their_classes(folder, caplog):
    caplog.set_level(logging.INFO, "metarun")
    source = _prepared(folder)
    assert source.input_shape == (3, 16, 16)
    task = source.sample(0, "train", torch.arange(5))
    for t, classes in enumerate(source.clusters(0, "train", torch.arange(5)).tolist()):
        for label, number in enumerate(classes):
            files = sorted((folder / list(source.packed)[number]).glob("*.png"))
            known = [np.asarray(Image.open(file))[2:18].transpose(2, 0, 1) for file in files]  # the middle
            images = torch.cat([task.support_x[t], task.query_x[t]])
            labels = torch.cat([task.support_y[t], task.query_y[t]])
            drawn = [(image * 255).round().byte().numpy() for image in images[labels == label]]
            found = [next(n for n, pixels in enumerate(known) if np.array_equal(pixels, image)) for image in drawn]
            assert sorted(found) == [0, 1, 2, 3]
    assert "layout folders" in caplog.text
    assert source.facts()["more"] == {"layout": "folders", "size": "16x16x3", "classes": "6/2/2"}


def test_size_colour_and_inversion_are_settings(folder):
    source = _prepared(folder, size=8, channels=1, invert=True)
    assert source.input_shape == (1, 8, 8)
    straight = _prepared(folder, size=8, channels=1).packed
    assert np.array_equal(source.packed.examples, 255 - straight.examples)


def test_shares_have_no_effect_on_splits_that_the_folder_has(folder, tmp_path, caplog):
    for n, part in enumerate(["train"] * 4 + ["val"] * 3 + ["test"] * 3):
        shutil.copytree(folder / f"class {n}", tmp_path / part / f"class {n}")
    source = _prepared(tmp_path)
    assert "no effect" not in caplog.text
    assert _prepared(tmp_path, splits=[0, 0, 1]).split_sizes == source.split_sizes == {"train": 4, "val": 3, "test": 3}
    assert "[0, 0, 1] (data.splits), 0 (data.split_seed): have no effect" in caplog.text
    assert source.has_own_splits
    assert not _prepared(folder, split_seed=1).has_own_splits
    assert caplog.text.count("no effect") == 1


def test_grey_images_have_one_channel_and_large_ones_are_shrunk(tmp_path):
    for n in range(3):
        (tmp_path / f"{n}").mkdir()
        Image.new("L", (200, 100), n).save(tmp_path / f"{n}" / "a.png")
    assert Images(root=str(tmp_path)).input_shape == (1, 84, 84)


def _facts(root):
    return Images(root=str(root)).packed.facts["notes"]


def test_images_of_several_sizes_are_said_to_become_one(folder, tmp_path, caplog):
    caplog.set_level(logging.INFO, "metarun")
    shutil.copytree(folder, tmp_path / "all")
    _prepared(tmp_path / "all")
    assert "several sizes" not in caplog.text
    Image.new("RGB", (30, 12), "red").save(tmp_path / "all" / "class 0" / "0.png")
    _prepared(tmp_path / "all", size=9)
    assert "several sizes" not in caplog.text
    caplog.clear()
    _prepared(tmp_path / "all")
    assert "images of several sizes, such as 12x30 and 20x16, become 12x12, by the smallest; see" in caplog.text
    for n, width in enumerate((100, 200)):
        (tmp_path / "large" / f"{n}").mkdir(parents=True)
        Image.new("L", (width, width), n).save(tmp_path / "large" / f"{n}" / "a.png")
    assert "such as 100x100 and 200x200, become 84x84, the most without data.size" in str(_facts(tmp_path / "large"))


def test_images_that_are_made_grey_as_the_first_ones_are_are_named(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "metarun")
    monkeypatch.setattr(images, "LOOKED_AT", 6)  # two of each class
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for n in range(3):
        (tmp_path / "all" / f"{n}").mkdir(parents=True)
        for k in range(4):
            image = Image.new("L", (9, 9), 10 * n + k)
            if k == 3:  # one with colours, one that might have some, one with a second channel that is no colour
                image = {0: image.convert("RGB"), 1: Image.new("RGB", (9, 9), "red"), 2: image.convert("LA")}[n]
            image.save(tmp_path / "all" / f"{n}" / f"{k}.png")
    line = "1 image made grey, such as 1/3.png"
    for _ in range(2):  # from the cache too
        caplog.clear()
        _prepared(tmp_path / "all", splits=[0, 0, 1], shots=1, queries=1)
        assert caplog.text.count(line) == 1
    caplog.clear()
    for settings in ({"channels": 1}, {"channels": 3}):
        _prepared(tmp_path / "all", splits=[0, 0, 1], shots=1, queries=1, **settings)
    assert line not in caplog.text


def test_decoded_once_and_again_when_a_file_changes(folder, tmp_path, monkeypatch):
    import os
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(folder, root)
    before = _prepared(root).identity()
    with monkeypatch.context() as patch:
        patch.setattr("metarun.data.images.find_layout", lambda *_: pytest.fail("read although packed"))
        assert _prepared(root).identity() == before
    Image.new("RGB", (16, 20), "red").save(root / "class 3" / "1.png")
    changed = _prepared(root).identity()
    assert changed["data_digest"] != before["data_digest"]
    assert changed["split_hash"] == before["split_hash"]
    os.rename(root, tmp_path / "moved")
    assert _prepared(tmp_path / "moved").identity() == changed, "where it lies plays no part"


def test_augmentation_changes_training_images_only(folder):
    plain, crop, flip = (_prepared(folder, augment=augment) for augment in ("none", "crop", "flip"))
    index = torch.arange(40)
    for split in ("val", "test"):
        for source in (crop, flip):
            assert torch.equal(source.sample(0, split, index).query_x, plain.sample(0, split, index).query_x)
    straight = plain.sample(0, "train", index).support_x.flatten(0, 1)
    mirrored = [
        torch.equal(image, whole.flip(-1))
        for image, whole in zip(flip.sample(0, "train", index).support_x.flatten(0, 1), straight, strict=True)
        if not torch.equal(image, whole)
    ]
    assert all(mirrored)
    assert 50 < len(mirrored) < 110, "about half of 160"
    moves = []
    for image, whole in zip(crop.sample(0, "train", index).support_x.flatten(0, 1), straight, strict=True):
        padded = torch.nn.functional.pad(whole, (2, 2, 2, 2), mode="replicate")  # an eighth of 16
        found = [
            (y, x, turned)
            for y in range(5)
            for x in range(5)
            for turned in (False, True)
            for piece in [padded[:, y : y + 16, x : x + 16]]
            if torch.equal(image, piece.flip(-1) if turned else piece)
        ]
        assert len(found) == 1
        moves += found
    assert len({move[:2] for move in moves}) == 25, "all moves occur"
    again = crop.sample(0, "train", torch.tensor([7]))
    assert torch.equal(again.support_x[0], crop.sample(0, "train", index).support_x[7])


def test_a_change_is_seen_however_deep_it_lies(folder, tmp_path):
    """CloserLookFewShot's miniImageNet lies five folders deep; a link may lead back to a folder around it."""
    import json
    import shutil

    deep = tmp_path / "ILSVRC2015/Data/CLS-LOC/train"
    shutil.copytree(folder, deep)
    (deep / "back").symlink_to(tmp_path)
    names = [f"class {n}" for n in range(10)]
    for part, chosen in (("base", names[:5]), ("val", names[5:7]), ("novel", names[7:])):
        rows = [(name, path) for name in chosen for path in sorted((deep / name).glob("*.png"))]
        content = {
            "label_names": names,
            "image_names": [str(path) for _, path in rows],
            "image_labels": [names.index(name) for name, _ in rows],
        }
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
    before = Images(root=str(tmp_path), ways=2).identity()
    Image.new("RGB", (16, 20), "red").save(deep / "class 3" / "1.png")
    assert Images(root=str(tmp_path), ways=2).identity() != before


def test_the_same_image_in_two_splits_is_refused_with_both_names(folder, tmp_path, caplog):
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    root = tmp_path / "copy"
    source = Images(root=str(root), ways=2)
    train, test = source.classes("train")[0], source.classes("test")[0]
    shutil.copy(root / train / "0.png", root / train / "again.png")
    _prepared(root)  # copies within a split leak nothing,
    twins = f"{train}/0.png and {train}/again.png are the same image (data): expected different ones in a class"
    assert twins in caplog.text  # but a task may ask for what it has shown
    shutil.copy(root / train / "0.png", root / test / "copy.png")
    with pytest.raises(DataError, match=r"are the same image \(data.root\): expected no image in two splits") as caught:
        _prepared(root)
    assert f"{test}/copy.png of test" in str(caught.value)
    assert train in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"root": None}, r"null \(root\): expected the folder"),
        ({"size": 0}, r"0 \(size\)"),
        ({"size": 5000}, r"5000 \(size\): expected at most"),
        ({"channels": 2}, r"2 \(channels\): expected 1 for grey, 3 for colour"),
        ({"augment": "some"}, r"'some' \(augment\): expected one of"),
        ({"invert": 1}, r"1 \(invert\)"),
        ({"layout": "folder"}, r"'folder' \(layout\): expected one of folders, groups.*did you mean folders\?"),
    ],
)
def test_settings_out_of_range_are_refused(settings, line):
    with pytest.raises(SettingError, match=line):
        Images(**{"root": "here", **settings})


def test_a_split_that_the_folder_lacks_is_an_error_of_the_data(folder):
    with pytest.raises(DataError, match=r"'novel' \(data.split\): expected null"):
        _prepared(folder, split="novel")


def test_a_folder_that_is_missing_or_unreadable_is_named(folder, tmp_path, monkeypatch):
    (tmp_path / "all.npz").touch()
    with pytest.raises(DataError, match=rf"expected a folder with images; set the folder that it is in: .*={tmp_path}"):
        Images(root=str(tmp_path / "all.npz")).load()
    with pytest.raises(DataError, match=r"absent \(data.root\): expected a folder with images"):
        _prepared(tmp_path / "absent")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"gone.png: a broken link \(data.root\)"):
        _prepared(tmp_path)

    def listing(*_):
        raise PermissionError(13, "Permission denied", "secret")

    monkeypatch.setattr("os.scandir", listing)
    with pytest.raises(DataError, match=r"secret: Permission denied \(data.root\)"):
        _prepared(folder, size=7)
