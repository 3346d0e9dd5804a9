"""Data folders with images in arrays: the pickles of miniImageNet, CIFAR-FS and FC100, and .npz.

Pickles are read by metarun.data.pickles, and .npz without its pickles: no code in them runs.
"""

import re
import zipfile
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from metarun.data.found import SPLIT_NAMES, Found, find_parts, join_splits, refuse, require_all
from metarun.data.pickles import load_pickle
from metarun.text import reason

PART = re.compile(rf"(^|[-_.])({'|'.join(name for names in SPLIT_NAMES.values() for name in names)})$", re.IGNORECASE)
MORE_OF_TRAIN = re.compile(r"train_phase_(val|test)$")  # miniImageNet: other images of the training classes
IMAGES, LABELS = ("x", "images", "data"), ("y", "labels")
DAMAGED = (ValueError, EOFError, AttributeError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error)  # of np.load
ARRAY = "uint8 of [n, H, W, C] with C of 1, 3 or 4, or [n, H, W]"


def fits_pickles(root: Path) -> bool:
    """Whether there is a pickle of a training split."""
    return bool(_pickles(root).get("train"))


def read_pickles(root: Path) -> Found:
    """The classes of three pickles.

    Their keys are data and labels, as MetaOptNet has them, or image_data and class_dict, as Ren et al. and learn2learn.
    """
    parts = _pickles(root)
    notes = [f"left aside, as more images of training classes: {path.name}" for path in parts.pop("", [])]
    for paths in parts.values():
        if len(paths) > 1:
            what = f"{paths[0]} and {paths[1].name}: the same part of two sets"
            raise refuse(what, "one set in a folder", "move one of them")
    require_all(root, parts, "add its pickle")
    files, splits = join_splits(root, {split: _read_pickle(path) for split, (path,) in parts.items()})
    return Found("pickles", arrays=files, splits=splits, notes=notes)


def fits_npz(root: Path) -> bool:
    """Whether there is an .npz: of the training split, or only one."""
    return "train" in find_parts(root, ".npz") or len(_npz(root)) == 1


def read_npz(root: Path) -> Found:
    """The classes of {train,val,test}.npz, or of one .npz whose classes are in no split yet."""
    parts = find_parts(root, ".npz")
    if "train" in parts:
        require_all(root, parts, "add it")
        arrays, splits = join_splits(root, {split: _read_npz(path) for split, path in parts.items()})
        return Found("npz", arrays=arrays, splits=splits)
    return Found("npz", arrays=_read_npz(_npz(root)[0]))


def _pickles(root: Path) -> dict[str, list[Path]]:
    """The pickles by split, by the ends of their names; under "" more images of training classes."""
    parts: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(root.glob("*")):
        if path.suffix in (".pickle", ".pkl") and (part := PART.search(path.stem)):
            split = next(s for s, names in SPLIT_NAMES.items() if part[2].lower() in names)
            parts["" if MORE_OF_TRAIN.search(path.stem) else split].append(path)
    return dict(parts)


def _npz(root: Path) -> list[Path]:
    return sorted(root.glob("*.npz"))


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    """{class: its images} of one pickle."""
    content = load_pickle(path)
    keys = content if isinstance(content, dict) else {}
    if "data" in keys and "labels" in keys:
        return _by_label(path, _images(path, keys["data"]), keys["labels"])
    if "image_data" in keys and isinstance(keys.get("class_dict"), dict):
        images = _images(path, keys["image_data"])
        return {str(name): _take(path, images, places) for name, places in keys["class_dict"].items()}
    raise refuse(f"{path} has other keys", "data and labels, or image_data and class_dict", "save it with these")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """{class: its images} of one .npz."""
    try:
        with np.load(path, allow_pickle=False) as content:
            names = {name.lower(): name for name in content.files}
            found = [next((names[name] for name in known if name in names), None) for known in (IMAGES, LABELS)]
            if None not in found:
                images, labels = (content[name] for name in found)
                return _by_label(path, _images(path, images), labels)
    except DAMAGED as error:
        objects = "allow_pickle" in str(error)
        what = "has arrays of objects, which are pickles" if objects else f"is no readable .npz ({reason(error)})"
        raise refuse(f"{path} {what}", "arrays of numbers", "save images as uint8 and labels as integers") from error
    rule = f"{', '.join(IMAGES[:-1])} or {IMAGES[-1]}, and {' or '.join(LABELS)}"
    raise refuse(f"{path} has the arrays {', '.join(names)}", rule, "rename them")


def _images(path: Path, images: Any) -> np.ndarray:
    """uint8 [n, H, W, C], C of 1, 3 or 4; channels that come first are moved last."""
    shape = images.shape if isinstance(images, np.ndarray) else ()
    if len(shape) == 3:
        images, shape = images[..., None], (*shape, 1)
    if len(shape) == 4 and shape[3] not in (1, 3, 4) and shape[1] in (1, 3):
        images, shape = images.transpose(0, 2, 3, 1), (shape[0], shape[2], shape[3], shape[1])
    if len(shape) != 4 or images.dtype != np.uint8 or shape[3] not in (1, 3, 4) or 0 in shape:
        there = f"{images.dtype} of {list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
        raise refuse(f"{path}: the images are {there}", ARRAY, "convert them")
    return images


def _by_label(path: Path, images: np.ndarray, labels: Any) -> dict[str, np.ndarray]:
    """{label: its images}; the name of a class is its label, written."""
    labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(labels, list) or len(labels) != len(images):
        there = f"{len(labels)} labels" if isinstance(labels, list) else f"labels that are {type(labels).__name__}"
        raise refuse(f"{path}: {there} for {len(images)} images", "a label for every image", "mend it")
    places: dict[str, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        if not isinstance(label, (int, str, np.integer)):
            raise refuse(f"{path}: a label is {type(label).__name__}", "integers or texts", "convert them")
        places[str(label)].append(place)
    return {name: images[chosen] for name, chosen in places.items()}


def _take(path: Path, images: np.ndarray, places: Any) -> np.ndarray:
    """The images at these places."""
    chosen = places.tolist() if isinstance(places, np.ndarray) else places
    known = range(len(images))
    if not isinstance(chosen, list) or not chosen or not all(type(n) is int and n in known for n in chosen):
        rule = f"lists of numbers from 0 to {len(images) - 1}"
        raise refuse(f"{path}: class_dict has other than numbers of images", rule, "mend it")
    return images[chosen]
