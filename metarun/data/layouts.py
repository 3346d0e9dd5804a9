"""The layouts of data folders that people have, told apart by what lies there.

    folders        root/CLASS/*
    groups         root/GROUP/CLASS/*
    split_folders  root/{train,val,test}/CLASS/*
    csv_files      root/{train,val,test}.csv beside root/images/
    lists          root/splits/NAME/{train,val,test}.txt beside root/data/CLASS/*
    json_files     root/{train,val,test}.json or root/{base,val,novel}.json
    meta_album     root/labels.csv beside root/images/
    pickles        root/*{train,val,test}.pickle or .pkl
    npz            root/{train,val,test}.npz, or one .npz

Nothing is ever written there.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from metarun.data import array_files, split_files
from metarun.data.found import (
    Found,
    Tally,
    check_classes,
    classes_of_folder,
    find_parts,
    join_splits,
    list_folder,
    refuse,
    require_all,
)
from metarun.errors import DataError, SettingError, one_of
from metarun.text import reason


@dataclass(frozen=True)
class Layout:
    """A layout: what it looks like, whether a folder has it, and how it is read."""

    looks_like: str
    fits: Callable[[Path], bool]
    read: Callable[..., Found]


def find_layout(root: Path, layout: str | None = None, split: str | None = None) -> Found:
    """The classes of a data folder.

    Args:
        root: the folder.
        layout: a name of LAYOUTS; None: the one that fits what lies there.
        split: of layout `lists`, the NAME of the split; None: the only one.

    Raises:
        DataError: no layout fits, or several do; or the folder is not as its layout has to be.
        SettingError: there is no such layout, or a split is named where splits have no names.
    """
    if layout is not None:
        one_of("layout", layout, LAYOUTS)
    root = Path(os.path.abspath(root))
    try:
        name = _name_layout(root, layout)
        if split is not None and name != "lists":
            raise SettingError(split, "split", f"null, as {root} is read as {name}; only data.layout=lists has names")
        found = LAYOUTS[name].read(root, **({} if split is None else {"split": split}))
    except OSError as error:
        raise refuse(
            f"{error.filename or root} cannot be read: {reason(error)}", "a folder that can be read", "mend that"
        ) from error
    classes = sorted(found.files or found.arrays)
    check_classes(root, classes)
    files, arrays = ({c: kind[c] for c in classes if c in kind} for kind in (found.files, found.arrays))
    return replace(found, files=files, arrays=arrays)


def _name_layout(root: Path, layout: str | None) -> str:
    """The layout that was asked for if it fits, else the only one that fits."""
    if not root.exists():
        raise refuse(f"{root} is not there", "a folder of images", "set data.root")
    if not root.is_dir():
        raise refuse(f"{root} is a file", "a folder", "unpack it if it is an archive, or set data.root")
    if layout is not None:
        if not LAYOUTS[layout].fits(root):
            rule = LAYOUTS[layout].looks_like
            raise DataError(f"{root} is not laid out as {layout} (data.layout): expected {rule}; leave data.layout out")
        return layout
    fitting = [name for name, kind in LAYOUTS.items() if kind.fits(root)]
    fitting = [name for name in fitting if not any(name in HIDES.get(other, ()) for other in fitting)]
    if not fitting:
        there = ", ".join(sorted(os.listdir(root))[:5])
        what = f"no images that metarun finds in {root}, with {there} in it" if there else f"{root} is empty"
        raise refuse(
            what,
            f"folders of images (CLASS/, GROUP/CLASS/ or train/CLASS/), or one of {', '.join(list(LAYOUTS)[3:])}",
            "set data.root; with data.layout=NAME metarun says what is missing",
        )
    if len(fitting) > 1:
        raise refuse(f"{root} fits several layouts", f"one of {', '.join(fitting)}", "say which: data.layout=NAME")
    return fitting[0]


def _subfolders(folder: Path) -> list[Path]:
    return list_folder(folder).folders if folder.is_dir() else []


def _fits_folders(root: Path) -> bool:
    return any(list_folder(folder).images for folder in _subfolders(root))


def _fits_groups(root: Path) -> bool:
    return any(_fits_folders(group) for group in _subfolders(root))


def _fits_split_folders(root: Path) -> bool:
    parts = find_parts(root, "") if root.is_dir() else {}
    return len(parts) > 1 and "train" in parts and bool(_subfolders(parts["train"]))


def _read_folders(root: Path) -> Found:
    tally = Tally()
    files = classes_of_folder(root, "", tally)
    return Found("folders", files, notes=tally.notes())


def _read_groups(root: Path) -> Found:
    listing, tally, files = list_folder(root), Tally(), {}
    tally.files.update(listing.aside)
    tally.files["images beside the group folders"] = len(listing.images)
    for group in listing.folders:
        files |= classes_of_folder(group, f"{group.name}/", tally)
    return Found("groups", files, notes=tally.notes())


def _read_split_folders(root: Path) -> Found:
    parts = find_parts(root, "")
    anew = f"move a part of the classes there; or set data.root={parts['train']}, whose classes are then split"
    require_all(root, parts, anew)
    tally = Tally()
    files, splits = join_splits(root, {split: classes_of_folder(part, "", tally) for split, part in parts.items()})
    tally.files["folders beside the splits"] = len(_subfolders(root)) - len(parts)
    return Found("split_folders", files, splits=splits, notes=tally.notes())


LAYOUTS = {
    "folders": Layout("CLASS/ with images in it", _fits_folders, _read_folders),
    "groups": Layout("GROUP/CLASS/ with images in it", _fits_groups, _read_groups),
    "split_folders": Layout("train/CLASS/, val/CLASS/ and test/CLASS/", _fits_split_folders, _read_split_folders),
    "csv_files": Layout(
        "train.csv, val.csv and test.csv with the columns filename,label or class_name,image_name beside images/",
        split_files.fits_csv_files,
        split_files.read_csv_files,
    ),
    "lists": Layout(
        "splits/NAME/ with train.txt, val.txt and test.txt beside data/CLASS/",
        split_files.fits_lists,
        split_files.read_lists,
    ),
    "json_files": Layout(
        "train.json, val.json and test.json (or base, val, novel) with class_names and class_roots, or with "
        "label_names, image_names and image_labels",
        split_files.fits_json_files,
        split_files.read_json_files,
    ),
    "meta_album": Layout(
        "labels.csv with the columns FILE_NAME and CATEGORY, or those that info.json names, beside images/",
        split_files.fits_meta_album,
        split_files.read_meta_album,
    ),
    "pickles": Layout(
        "three files *train.pickle, *val.pickle and *test.pickle, or .pkl",
        array_files.fits_pickles,
        array_files.read_pickles,
    ),
    "npz": Layout(
        "train.npz, val.npz and test.npz, or one .npz, with arrays x and y", array_files.fits_npz, array_files.read_npz
    ),
}
_FOLDERS = ("folders", "groups")
HIDES = {  # layouts that use folders, and the plainer ones that these folders look like
    "split_folders": _FOLDERS,
    **dict.fromkeys(("csv_files", "lists", "json_files", "meta_album"), (*_FOLDERS, "split_folders")),
}
