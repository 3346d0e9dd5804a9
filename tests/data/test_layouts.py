"""Data folders as people have them: found, told apart, and refused in a line where they are not as they have to be."""

import csv
import json
import os
import pickle
import re
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

from metarun.data import found as found_module
from metarun.data.layouts import LAYOUTS, find_layout
from metarun.errors import DataError, MetarunError, SettingError

SPLITS = {"train": ["ant", "eel"], "val": ["cat"], "test": ["bee", "dog"]}
NAMES = sorted(name for names in SPLITS.values() for name in names)


def _image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), 100).save(path)


def _class(folder, count=2):
    for n in reversed(range(count)):
        _image(folder / f"{n}.png")


def _table(path, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


def _folders(root):
    for name in NAMES:
        _class(root / name)


def _groups(root):
    for name in NAMES:
        _class(root / f"group {name < 'c'}" / name)


def _split_folders(root, splits=("train", "val", "test")):
    for split, names in zip(splits, SPLITS.values(), strict=True):
        for name in names:
            _class(root / split / name)


def _ravi(root):
    for split, names in SPLITS.items():
        rows = [(f"{name}{n}.png", name) for name in names for n in range(2)]
        for image, _ in rows:
            _image(root / "images" / image)
        _table(root / f"{split}.csv", [("filename", "label"), *rows, rows[0]])


def _easy_csv(root):
    """easy-few-shot-learning's miniImageNet: the same image names in several classes."""
    for split, names in SPLITS.items():
        rows = [(name, f"{n}.png") for name in names for n in range(2)]
        for name, image in rows:
            _image(root / "images" / name / image)
        _table(root / f"{split}.csv", [("class_name", "image_name"), *rows])


def _lists(root, *splits):
    """As R2-D2 and prototypical networks have it."""
    for name in NAMES:
        _class(root / "data" / name)
    for folder in splits or ["ravi"]:
        for split, names in SPLITS.items():
            path = root / "splits" / folder / f"{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(names) + "\n")


def _easy_json(root):
    """As easy-few-shot-learning's CUB: paths from where its program is run, two folders above the images."""
    for split, names in SPLITS.items():
        for name in names:
            _class(root / "images" / f"001.{name}")
        roots = [f"./{root.parent.name}/{root.name}/images/001.{name}" for name in names]
        (root / f"{split}.json").write_text(json.dumps({"class_names": names, "class_roots": roots}))


def _closer_look(root):
    """As CloserLookFewShot's programs write it: whole paths, and the names of all classes in every file."""
    for part, names in zip(("base", "val", "novel"), SPLITS.values(), strict=True):
        rows = [(name, root / "CUB" / name / f"{n}.png") for name in names for n in range(2)]
        for _, path in rows:
            _image(path)
        content = {
            "label_names": NAMES,
            "image_names": [str(path) for _, path in rows],
            "image_labels": [NAMES.index(name) for name, _ in rows],
        }
        (root / f"{part}.json").write_text(json.dumps(content))


def _album(root):
    rows = [(f"{name}{n}.png", name, "insect" if name < "c" else "other") for name in NAMES for n in range(2)]
    for image, *_ in rows:
        _image(root / "images" / image)
    _table(root / "labels.csv", [("FILE_NAME", "CATEGORY", "SUPER_CATEGORY"), *rows])


def _renamed_album(root):
    rows = [(name, f"{name}{n}.png") for name in NAMES for n in range(2)]
    for _, image in rows:
        _image(root / "images" / image)
    _table(root / "labels.csv", [("art", "bild"), *rows], "\t")
    (root / "info.json").write_text(json.dumps({"image_column_name": "bild", "category_column_name": "art"}))


def _arrays(names):
    """(uint8 [2 len(names), 8, 6, 3], labels): every class filled with its own number, the classes taking turns."""
    labels = [name for _ in range(2) for name in names]
    return np.stack([np.full((8, 6, 3), NAMES.index(name), np.uint8) for name in labels]), labels


def _metaoptnet(root):
    for part, names in SPLITS.items():
        images, labels = _arrays(names)
        part = f"train_phase_{part}" if part == "train" else part
        content = {"data": images, "labels": [NAMES.index(name) for name in labels]}
        (root / f"miniImageNet_category_split_{part}.pickle").write_bytes(pickle.dumps(content, 2))
    for part in ("val", "test"):
        (root / f"miniImageNet_category_split_train_phase_{part}.pickle").write_bytes(b"not read")


def _cache(root):
    for split, names in SPLITS.items():
        images, labels = _arrays(names)
        places = {name: [n for n, label in enumerate(labels) if label == name] for name in names}
        content = {"image_data": images, "class_dict": places}
        (root / f"mini-imagenet-cache-{split}.pkl").write_bytes(pickle.dumps(content, 2))


def _npz(root):
    for split, names in SPLITS.items():
        images, labels = _arrays(names)
        np.savez(root / f"{split}.npz", x=images.transpose(0, 3, 1, 2), y=labels)


def _one_npz(root):
    images, labels = _arrays(NAMES)
    np.savez_compressed(root / "letters.npz", images=images[..., 0], labels=labels)


MAKERS = {  # maker: (layout, has splits)
    _folders: ("folders", False),
    _groups: ("groups", False),
    _split_folders: ("split_folders", True),
    _ravi: ("csv_files", True),
    _easy_csv: ("csv_files", True),
    _lists: ("lists", True),
    _easy_json: ("json_files", True),
    _closer_look: ("json_files", True),
    _album: ("meta_album", False),
    _renamed_album: ("meta_album", False),
    _metaoptnet: ("pickles", True),
    _cache: ("pickles", True),
    _npz: ("npz", True),
    _one_npz: ("npz", False),
}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "above" / "my data"
    folder.mkdir(parents=True)
    return folder


def _tree(root):
    return sorted((str(path), path.lstat().st_mtime_ns) for path in root.rglob("*"))


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_layout_is_found_by_what_lies_there_and_by_its_name(root, make):
    make(root)
    layout, has_splits = MAKERS[make]
    before = _tree(root)
    found = find_layout(root)
    assert found.layout == layout
    assert list(found.files or found.arrays) == sorted(found.files or found.arrays)
    bare = {name.rpartition("/")[2]: name for name in (found.files or found.arrays)}
    bare = dict(sorted(bare.items()))
    expected = [str(n) for n in range(5)] if make is _metaoptnet else NAMES
    assert list(bare) == expected
    names = dict(zip(NAMES, bare.values(), strict=True))
    for name, number in zip(names, range(5), strict=True):
        if found.files:
            paths = found.files[names[name]]
            assert len(set(paths)) == len(paths) == 2
            assert paths == sorted(paths)
            assert all(path.is_file() and name in str(path.relative_to(root)) for path in paths)
        else:
            images = found.arrays[names[name]]
            assert images.shape == (2, 8, 6, 1 if make is _one_npz else 3)
            assert set(images.ravel().tolist()) == {number}
    assert found.splits == ({s: [names[n] for n in part] for s, part in SPLITS.items()} if has_splits else None)
    assert all(("/" in name) == (make in (_groups, _album)) for name in found.files)
    assert _tree(root) == before
    again = find_layout(root, layout)
    assert (again.files, list(again.arrays), again.splits) == (found.files, list(found.arrays), found.splits)


def test_every_layout_is_tried():
    assert {layout for layout, _ in MAKERS.values()} == set(LAYOUTS)


def test_a_layout_by_a_name_that_does_not_fit_says_what_was_looked_for(root):
    _folders(root)
    for name, layout in LAYOUTS.items():
        if name != "folders":
            with pytest.raises(DataError, match=re.escape(layout.looks_like)) as refused:
                find_layout(root, name)
            assert f"not laid out as {name} (data.layout)" in str(refused.value)
    with pytest.raises(SettingError, match=r"one of folders, groups.*did you mean folders"):
        find_layout(root, "folder")


def test_what_fits_several_layouts_is_read_by_name(root):
    _folders(root)
    _one_npz(root)
    with pytest.raises(DataError, match=r"several layouts.*one of folders, npz.*data\.layout=NAME"):
        find_layout(root)
    assert find_layout(root, "npz").arrays
    assert find_layout(root, "folders").files


def test_of_several_splits_by_lists_a_name_chooses(root):
    _lists(root, "ravi", "own")
    (root / "splits" / "own" / "val.txt").write_text("dog\n")
    (root / "splits" / "own" / "test.txt").write_text("cat\n")
    with pytest.raises(SettingError, match=r"\(split\): expected one of own, ravi"):
        find_layout(root)
    assert find_layout(root, split="own").splits == {"train": ["ant", "eel"], "val": ["dog"], "test": ["cat"]}
    with pytest.raises(SettingError, match="did you mean ravi"):
        find_layout(root, split="rav")


def test_a_split_is_named_only_for_lists(root):
    _folders(root)
    with pytest.raises(SettingError, match=r"only data\.layout=lists"):
        find_layout(root, split="ravi")


def test_lists_may_name_classes_in_groups(root):
    for name in ("latin/a", "latin/b", "greek/a", "greek/b"):
        _class(root / "data" / name)
    splits = root / "splits" / "x"
    splits.mkdir(parents=True)
    for split, text in {"train": "latin/a\nlatin/b/\n\n", "val": "greek/a\r\n", "test": "greek/b"}.items():
        (splits / f"{split}.txt").write_text(text)
    found = find_layout(root)
    assert found.splits == {"train": ["latin/a", "latin/b"], "val": ["greek/a"], "test": ["greek/b"]}


@pytest.mark.parametrize("spelling", ["valid", "validation"])
def test_validation_may_be_spelled_otherwise(root, spelling):
    _split_folders(root, ("train", spelling, "test"))
    (root / "more").mkdir()
    found = find_layout(root)
    assert found.splits["val"] == ["cat"]
    assert found.notes == ["left aside: folders beside the splits (1)"]


@pytest.mark.parametrize("names", [("Train", "Val", "TEST"), ("training", "validation", "testing")])
def test_splits_may_be_spelled_otherwise(root, names):
    """Else these would be groups, whose classes are split anew: the same class in training and test."""
    _split_folders(root, names)
    assert find_layout(root).splits == SPLITS
    (root / names[1]).rename(root / "more")
    with pytest.raises(DataError, match=f"train and test and no val.*data.root=.*/{names[0]}, whose classes"):
        find_layout(root)


def test_columns_may_have_blanks_and_capitals(root):
    _ravi(root)
    for split in SPLITS:
        text = (root / f"{split}.csv").read_text(encoding="utf-8-sig")
        (root / f"{split}.csv").write_text(text.replace("filename,label", "Filename, Label"))
    assert find_layout(root).splits == SPLITS


@pytest.mark.parametrize("above", ["", "NAN"])
def test_an_album_without_super_categories_has_plain_names(root, above):
    _album(root)
    text = (root / "labels.csv").read_text(encoding="utf-8-sig")
    (root / "labels.csv").write_text(text.replace(",insect", f",{above}").replace(",other", f",{above}"))
    assert sorted(find_layout(root).files) == NAMES


def test_an_image_that_is_named_in_two_ways_is_one(root):
    _ravi(root)
    with (root / "val.csv").open("a") as file:
        file.write("./cat0.png,cat\n")
    assert [path.name for path in find_layout(root).files["cat"]] == ["cat0.png", "cat1.png"]


def test_labels_of_a_pickle_may_be_an_array(root):
    for split, names in SPLITS.items():
        x, y = _arrays(names)
        (root / f"{split}.pickle").write_bytes(pickle.dumps({"data": x, "labels": np.array(y)}))
    assert find_layout(root).splits == SPLITS


def test_folders_called_train_and_test_may_be_classes(root):
    _class(root / "train")
    _class(root / "test")
    assert list(find_layout(root).files) == ["test", "train"]


def test_odd_names_work(root):
    names = ["Übung", "üb ung", "-rf", "🦊👩‍🔬", "Cat", "cat", "a'b\"c", "$(x)", "*", "train;val"]
    for name in names:
        _class(root / name)
        _image(root / name / "-ä 🦊.PNG")
    found = find_layout(root)
    assert list(found.files) == sorted(names)
    assert all(len(paths) == 3 for paths in found.files.values())


def test_what_is_left_aside_is_counted(root):
    _folders(root)
    for name in (".DS_Store", "ant/.hidden.png", "ant/Thumbs.db", "bee/notes.txt", "cat/notes.txt", "cat/README"):
        (root / name).write_text("x")
    (root / "hollow").mkdir()
    _image(root / "loose.png")
    _class(root / "ant" / "thumbs")
    os.mkfifo(root / "ant" / "pipe.png")
    with pytest.raises(DataError, match=r"several layouts.*folders, groups"):  # because of the thumbs
        find_layout(root)
    found = find_layout(root, "folders")
    assert list(found.files) == NAMES
    assert all(len(paths) == 2 for paths in found.files.values())
    dropped, aside = found.notes
    assert dropped == "dropped, as they hold no images: hollow"
    for kind in ("hidden files (2)", ".db (1)", ".txt (2)", "without a suffix (1)", ".png (1)"):
        assert kind in aside
    assert "images beside the class folders (1)" in aside
    assert "folders inside class folders (1)" in aside


def test_other_pickles_of_mini_imagenet_are_left_aside(root):
    _metaoptnet(root)
    notes = " ".join(find_layout(root).notes)
    assert "train_phase_val.pickle" in notes
    assert "train_phase_test.pickle" in notes


def _write(name, text):
    def spoil(root):
        (root / name).write_text(text) if isinstance(text, str) else (root / name).write_bytes(text)

    return spoil


def _savez(**arrays):
    return lambda root: np.savez(root / "train.npz", **arrays)


def _dump(name, value):
    return lambda root: (root / name).write_bytes(pickle.dumps(value))


X, Y = _arrays(["ant", "bee"])
OBJECTS = np.array([None, 1], object)
ALBUM_HEAD = "FILE_NAME,CATEGORY\n"
JSON_EMPTY = {"class_names": ["fox"], "class_roots": ["../fox"]}
CACHE, PART = "mini-imagenet-cache-train.pkl", "miniImageNet_category_split_val.pickle"
BAD = {
    "missing": (None, lambda root: root.rmdir(), "is not there"),
    "empty": (None, lambda root: None, "is empty.*CLASS/.*or one of csv_files, lists"),
    "nothing known": (None, _write("notes.txt", ""), "no images that metarun finds.*notes.txt"),
    "one class": (None, lambda root: _class(root / "ant"), "only one class, ant,.*at least two"),
    "broken link": (_folders, lambda root: (root / "bee" / "x.png").symlink_to("nowhere"), "bee/x.png: a broken link"),
    "link to itself": (_folders, lambda root: (root / "bee" / "x").symlink_to("x"), "bee/x cannot be read: Too many levels"),
    "broken folder link": (_folders, lambda root: (root / "fox").symlink_to("nowhere"), "fox: a broken link"),
    "line break": (_folders, lambda root: _class(root / "a\nb"), r"class 'a\\nb'.*control characters"),
    "not UTF-8": (_folders, lambda root: _class(root / os.fsdecode(b"a\xff")), r"class 'a\\udcff'.*UTF-8"),
    "class in two splits": (_split_folders, lambda root: _class(root / "test" / "ant"), "both in train and in test: class ant"),
    "no val": (_split_folders, lambda root: (root / "val").rename(root / "more"), r"train and test and no val.*data\.root=.*/train"),
    "two vals": (_split_folders, lambda root: (root / "valid").mkdir(), "val and valid: two for val"),
    "empty val": (_split_folders, lambda root: [p.unlink() for p in (root / "val" / "cat").iterdir()], "no class with images in val"),
    "csv: no val": (_ravi, lambda root: (root / "val.csv").unlink(), "no val"),
    "csv: other columns": (_ravi, _write("val.csv", "a,b\n"), "val.csv has other columns.*filename,label"),
    "csv: not there": (_ravi, _write("val.csv", "filename,label\nx.png,cat\ncat0.png,cat\ny.png,cat"), "val.csv names what is not there: x.png and 1 more"),
    "csv: above": (_ravi, _write("val.csv", "filename,label\n../x.png,cat\n"), r"names \.\./x.png.*inside"),
    "csv: absolute": (_ravi, _write("val.csv", "filename,label\n/etc/passwd,cat\n"), "names /etc/passwd.*inside"),
    "csv: class above": (_easy_csv, lambda root: [_image(root.parent / "0.png"), _write("val.csv", "class_name,image_name\n../..,0.png\n")(root)], r"not there: 0.png"),
    "csv: line of another kind": (_ravi, _write("val.csv", "filename,label\nx\u2028y.png,cat\n"), "not there: x\u2028y.png"),
    "csv: gap": (_ravi, _write("val.csv", "filename,label\ncat0.png\n"), "a row without label or filename"),
    "csv: endless": (_ravi, _write("val.csv", "filename,label," + "x" * 140_000 + "\n"), "val.csv: field larger than"),
    "csv: latin-1": (_ravi, _write("val.csv", b"filename,label\n\xff.png,cat\n"), "UTF-8"),
    "csv: file in two splits": (_ravi, _write("val.csv", "filename,label\nant0.png,fox\n"), "ant0.png is listed twice: in train, class ant and in val, class fox"),
    "csv: class in two splits": (_ravi, _write("val.csv", "filename,label\ncat0.png,ant\n"), "both in train and in val: class ant"),
    "csv: empty": (_ravi, _write("val.csv", "filename,label\n"), "no class with images in val"),
    "lists: not there": (_lists, _write("splits/ravi/val.txt", "cat\nfox\n"), "val.txt names what is not there: fox "),
    "lists: above": (_lists, _write("splits/ravi/val.txt", "../data/cat\n"), r"names \.\./data/cat"),
    "lists: twice": (_lists, _write("splits/ravi/val.txt", "ant\n"), "both in train and in val: class ant"),
    "lists: no val": (_lists, lambda root: (root / "splits" / "ravi" / "val.txt").unlink(), "no val"),
    "json: damaged": (_easy_json, _write("val.json", "{"), "val.json.*expected JSON"),
    "json: deep": (_easy_json, _write("val.json", "[" * 100_000), "val.json.*expected JSON"),
    "json: other keys": (_easy_json, _write("val.json", "{}"), "val.json has other keys"),
    "json: above": (_easy_json, _write("val.json", json.dumps(JSON_EMPTY)), r"names \.\./fox"),
    "json: labels": (_closer_look, _write("val.json", json.dumps({"label_names": ["a"], "image_names": ["a"], "image_labels": [-1]})), "other keys, or values"),
    "album: not there": (_album, _write("labels.csv", ALBUM_HEAD + "x.png,ant\n"), "not there: x.png"),
    "album: two classes": (_album, _write("labels.csv", ALBUM_HEAD + "ant0.png,a\nant0.png,b\n"), "listed twice: in class a and in class b"),
    "pickle: other keys": (_cache, _dump(CACHE, {"x": 1}), "other keys"),
    "pickle: no dict": (_cache, _dump(CACHE, [1]), "other keys"),
    "pickle: code": (_cache, _dump(CACHE, {"x": print}), "print.*nothing of it was run"),
    "pickle: no number": (_cache, _dump(CACHE, {"image_data": X, "class_dict": {"a": [-1]}}), "from 0 to 3"),
    "pickle: no val": (_cache, lambda root: (root / "mini-imagenet-cache-val.pkl").unlink(), "no val"),
    "pickle: labels": (_metaoptnet, _dump(PART, {"data": X, "labels": [1]}), "1 labels for 4 images"),
    "pickle: in two": (_metaoptnet, _dump(PART, {"data": X, "labels": [0, 0, 9, 9]}), "both in train and in val: class 0"),
    "pickle: floats": (_metaoptnet, _dump(PART, {"data": X / 255, "labels": Y}), r"float64 of \[4, 8, 6, 3\].*uint8"),
    "pickle: two sets": (_metaoptnet, _dump("FC100_train.pickle", 1), "same part of two sets"),
    "npz: objects": (_npz, _savez(x=OBJECTS, y=[1, 2]), "arrays of objects, which are pickles"),
    "npz: objects as labels": (_npz, _savez(x=X, y=np.array(Y, object)), "arrays of objects"),
    "npz: a pickle": (_npz, _dump("train.npz", {"x": 1}), "train.npz.*pickles"),
    "npz: damaged": (_npz, _write("train.npz", b"PK\3\4 no zip"), "no readable .npz"),
    "npz: an npy": (_npz, lambda root: np.save((root / "train.npz").open("wb"), X), "no readable .npz"),
    "npz: other names": (_npz, _savez(a=X, b=Y), "has the arrays a, b.*expected x, images or data, and y or labels"),
    "npz: labels": (_npz, _savez(x=X, y=np.array([0.5] * 4)), "a label is float"),
    "npz: no val": (_npz, lambda root: (root / "val.npz").unlink(), "no val"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_folder_is_said_in_a_line(root, case):
    make, spoil, words = BAD[case]
    if make:
        make(root)
    spoil(root)
    with pytest.raises(MetarunError, match=words) as refused:
        find_layout(root, MAKERS[make][0] if make else None)
    message = str(refused.value)
    assert re.search(r"\(data\.root\): expected .+; ", message)
    assert "\n" not in message


def test_a_folder_that_cannot_be_read_is_named(root, monkeypatch):
    _folders(root)
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("bee"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(found_module.os, "scandir", refuse)
    with pytest.raises(DataError, match=r"bee cannot be read: Permission denied \(data\.root\)"):
        find_layout(root)


def test_the_order_is_by_name_and_not_the_disks(root, monkeypatch):
    _folders(root)
    scandir = os.scandir
    order = {"key": lambda entry: entry.name, "reverse": True}
    monkeypatch.setattr(found_module.os, "scandir", lambda folder: nullcontext(sorted(scandir(folder), **order)))
    assert [path.name for path in find_layout(root).files["ant"]] == ["0.png", "1.png"]


def test_an_archive_is_to_be_unpacked(root):
    (root / "a.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"is a file.*unpack it"):
        find_layout(root / "a.zip")
