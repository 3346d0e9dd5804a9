"""What lies in a data folder: the names of its classes, their examples, and the splits that its maker chose."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from metarun.data.decode import SUFFIXES
from metarun.errors import DataError
from metarun.text import reason

LOOKED_AT = 200  # entries of a folder into which something would be downloaded
SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
Examples = TypeVar("Examples", list[Path], np.ndarray)


@dataclass(frozen=True)
class Found:
    """The classes of a data folder, sorted by name.

    Attributes:
        layout: the name of the layout, as typed in data.layout.
        files: the image files of every class, sorted; empty where the images are in arrays.
        arrays: the images of every class, uint8 [n, H, W, C]; empty where they are in files.
        splits: the sorted class names of train, val and test where the layout has splits, else None.
        notes: what was left aside and why, a line each.
    """

    layout: str
    files: dict[str, list[Path]] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    splits: dict[str, list[str]] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Listing:
    """The folders and images of a folder, sorted by name, and how many files of a kind were left aside."""

    folders: list[Path] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    aside: Counter[str] = field(default_factory=Counter)


@dataclass
class Tally:
    """What was left aside while a data folder was read: how many files of a kind, and the classes without images."""

    files: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """A line for the files and a line for the classes, where there were any."""
        files = ", ".join(f"{kind} ({count})" for kind, count in sorted(self.files.items()) if count)
        more = f" and {len(self.empty) - 5} more" if len(self.empty) > 5 else ""
        lines = [f"dropped, as they hold no images: {', '.join(self.empty[:5])}{more}"] if self.empty else []
        return lines + ([f"left aside: {files}"] if files else [])


def refuse(what: str, expected: str, remedy: str, where: str = "data.root") -> DataError:
    """The error of a data folder that a setting names, for the caller to raise."""
    return DataError(f"{what} ({where}): expected {expected}; {remedy}")


def list_folder(folder: Path, where: str = "data.root") -> Listing:
    """What is in a folder that a setting names; links are followed.

    Raises:
        DataError: a link in it leads nowhere.
        OSError: it cannot be read.
    """
    listing, broken = Listing(), []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                listing.aside["hidden files"] += 1
            elif entry.is_dir():
                listing.folders.append(path)
            elif entry.is_symlink() and not path.exists():
                broken.append(path)
            elif path.suffix.lower() in SUFFIXES and entry.is_file():
                listing.images.append(path)
            else:
                listing.aside[path.suffix.lower() or "without a suffix"] += 1
    if broken:
        more = f" and {len(broken) - 1} more" if broken[1:] else ""
        raise refuse(f"{broken[0]}{more}: a broken link", "it to lead to an image", "mend or remove it", where)
    return listing


def images_of_classes(folders: Iterable[Path], prefix: str, tally: Tally) -> dict[str, list[Path]]:
    """{prefix + folder name: its images}; a folder without images is dropped."""
    classes: dict[str, list[Path]] = {}
    for folder in folders:
        listing = list_folder(folder)
        tally.files.update(listing.aside)
        tally.files["folders inside class folders"] += len(listing.folders)
        if listing.images:
            classes[prefix + folder.name] = listing.images
        else:
            tally.empty.append(prefix + folder.name)
    return classes


def classes_of_folder(folder: Path, prefix: str, tally: Tally) -> dict[str, list[Path]]:
    """{prefix + CLASS: its images} of folder/CLASS/*."""
    listing = list_folder(folder)
    tally.files.update(listing.aside)
    tally.files["images beside the class folders"] += len(listing.images)
    return images_of_classes(listing.folders, prefix, tally)


def find_parts(root: Path, suffix: str, names: Mapping[str, Sequence[str]] = SPLIT_NAMES) -> dict[str, Path]:
    """{split: root/NAME + suffix} for the splits that have a file or folder there; Train is train.

    Raises:
        DataError: a split has two.
    """
    parts: dict[str, Path] = {}
    there = sorted(root.iterdir()) if root.is_dir() else []
    for split, spellings in names.items():
        known = [f"{name}{suffix}" for name in spellings]
        paths = [path for path in there if path.name.lower() in known]
        if len(paths) > 1:
            raise refuse(f"{paths[0]} and {paths[1].name}: two for {split}", "only one", "remove one of them")
        if paths:
            parts[split] = paths[0]
    return parts


def require_all(root: Path, parts: Mapping[str, object], remedy: str) -> None:
    """Raises DataError, with the remedy, unless train, val and test are all there."""
    if missing := [split for split in SPLIT_NAMES if split not in parts]:
        there = " and ".join(split for split in SPLIT_NAMES if split in parts)
        raise refuse(f"{root} has {there} and no {' and no '.join(missing)}", "all three", remedy)


def join_splits(
    root: Path, parts: Mapping[str, Mapping[str, Examples]]
) -> tuple[dict[str, Examples], dict[str, list[str]]]:
    """All classes, and the class names by split.

    Raises:
        DataError: a split is empty; or a class or a file is in two.
    """
    owner: dict[str, str] = {}
    for split in SPLIT_NAMES:
        for name in parts[split]:
            if owner.setdefault(name, split) != split:
                shared = [n for n in parts[owner[name]] if n in parts[split]]
                more = f" and {len(shared) - 1} more" if shared[1:] else ""
                raise refuse(
                    f"{root}: both in {owner[name]} and in {split}: class {name}{more}",
                    "every class in one split, as test classes have to be new",
                    "split classes, not images; or set data.root to one folder of classes, which are then split",
                )
        if not parts[split]:
            raise refuse(f"{root}: no class with images in {split}", "classes in train, val and test", "add some")
    classes = {name: examples for split in SPLIT_NAMES for name, examples in parts[split].items()}
    forbid_shared_files(classes, owner)
    return classes, {split: sorted(parts[split]) for split in SPLIT_NAMES}


def forbid_shared_files(classes: Mapping[str, Examples], split_of: Mapping[str, str]) -> None:
    """Raises DataError if two classes have the same file; names both, and their splits where there are splits."""
    owner: dict[Path, str] = {}
    for name, examples in classes.items():
        for path in examples if isinstance(examples, list) else []:
            first = owner.setdefault(path, name)
            if first != name:
                places = [f"{split_of[c]}, class {c}" if c in split_of else f"class {c}" for c in (first, name)]
                raise refuse(
                    f"{path} is listed twice: in {places[0]} and in {places[1]}",
                    "every image in one class of one split",
                    "remove one of the two",
                )


def check_classes(root: Path, names: Iterable[str], where: str = "data.root") -> None:
    """Raises DataError unless there are two classes, whose names can be written down; `where` names the setting."""
    names = list(names)
    for name in names:
        if any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
            raise refuse(f"{root}: class {name!r}", "a name in UTF-8 without control characters", "rename it", where)
    if len(names) < 2:
        there = f"only one class, {names[0]}," if names else "no class with images"
        rule = "at least two, of a folder of images each"
        raise refuse(f"{there} in {root}", rule, f"add classes, or set {where}", where)


def check_download(root: Path) -> None:
    """Refuses a folder with images of the user's, in it or in two of its folders, as the place of a data set.

    Raises:
        DataError: there are such images; or the folder cannot be read.
    """
    if not root.is_dir():
        return
    try:
        entries = list(islice(os.scandir(root), LOOKED_AT))
        inside = [list(islice(os.scandir(entry), LOOKED_AT)) for entry in entries if entry.is_dir()]
    except OSError as error:
        raise DataError(f"{root}: {reason(error)} (data.root): expected a folder that can be read") from error
    if _has_image(entries) or sum(map(_has_image, inside)) > 1:
        raise DataError(
            f"{root}: holds images, and not the data set (data.root): expected that, or a folder to download it to; "
            f"for images of your own: data=images data.root={root}"
        )


def _has_image(entries: list[os.DirEntry[str]]) -> bool:
    return any(Path(entry.name).suffix.lower() in SUFFIXES for entry in entries)
