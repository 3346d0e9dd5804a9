"""Data folders with files that say which image or class is in which class or split: CSV, lists, JSON.

What such a file names has to lie inside the data folder: it may come from a stranger.
"""

import csv
import io
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from metarun.data.found import (
    Found,
    Tally,
    find_parts,
    forbid_shared_files,
    images_of_classes,
    join_splits,
    list_folder,
    refuse,
    require_all,
)
from metarun.data.frames import GAPS, find_delimiter
from metarun.errors import SettingError, one_of
from metarun.text import reason

CSV_COLUMNS = (("label", "filename"), ("class_name", "image_name"))  # of Ravi & Larochelle, of easy-few-shot-learning
JSON_NAMES = {"train": ("train", "base"), "val": ("val", "valid", "validation"), "test": ("test", "novel")}
ALBUM = {"category": "CATEGORY", "image": "FILE_NAME", "super_category": "SUPER_CATEGORY"}
Rows = Iterable[tuple[str, str]]  # class, image


def fits_csv_files(root: Path) -> bool:
    """Whether there is a train.csv with columns that metarun knows, and another part."""
    parts = find_parts(root, ".csv")
    return "train" in parts and len(parts) > 1 and _csv_columns(parts["train"]) is not None


def read_csv_files(root: Path) -> Found:
    """The images that {train,val,test}.csv name, in images/, in images/CLASS/, or beside the files."""
    parts = find_parts(root, ".csv")
    require_all(root, parts, "write it, of the same columns")
    images = root / "images"
    splits = {}
    for split, source in parts.items():
        if (columns := _csv_columns(source)) is None:
            rule = " or ".join(f"{image},{name}" for name, image in CSV_COLUMNS)
            raise refuse(f"{source} has other columns", rule, "rename them")
        rows = ((row[0], row[1]) for row in _read_table(source, columns))
        splits[split] = _images(root, source, rows, lambda name: (images, images / name, root, root / name))
    files, names = join_splits(root, splits)
    return Found("csv_files", files, splits=names)


def fits_lists(root: Path) -> bool:
    """Whether there are lists of classes beside a folder of classes."""
    return bool(_list_folders(root)) and (root / "data").is_dir()


def read_lists(root: Path, split: str | None = None) -> Found:
    """The classes in data/ that splits/NAME/{train,val,test}.txt name, a class on a line."""
    folders = _list_folders(root)
    if split is not None:
        one_of("split", split, folders)
    elif len(folders) > 1:
        raise SettingError(None, "split", f"one of {', '.join(folders)}, the splits in {root / 'splits'}")
    home = folders[split or next(iter(folders))]
    parts = find_parts(home, ".txt")
    require_all(home, parts, "write it, a class on a line")
    data, tally, splits = root / "data", Tally(), {}
    for name, source in parts.items():
        classes = dict.fromkeys(line.strip() for line in _read_text(source).split("\n") if line.strip())
        splits[name] = {}
        for folder in _find_all(data, source, [(written, (data,)) for written in classes]):
            group = folder.relative_to(data).parent
            prefix = "" if group == Path() else f"{group.as_posix()}/"
            splits[name] |= images_of_classes([folder], prefix, tally)
    files, names = join_splits(root, splits)
    return Found("lists", files, splits=names, notes=tally.notes())


def fits_json_files(root: Path) -> bool:
    """Whether there is a JSON file of the training split, with keys that metarun knows."""
    parts = find_parts(root, ".json", JSON_NAMES)
    return "train" in parts and len(parts) > 1 and _json_reader(_read_json(parts["train"])) is not None


def read_json_files(root: Path) -> Found:
    """The classes of easy-few-shot's JSON, by folders, or of CloserLookFewShot's, by images.

    Paths in it are relative to the data folder or to a folder above it, as the programs that wrote them have it.
    """
    parts = find_parts(root, ".json", JSON_NAMES)
    require_all(root, parts, "write it, with the same keys")
    tally, splits = Tally(), {}
    for split, source in parts.items():
        content = _read_json(source)
        if (reader := _json_reader(content)) is None:
            rule = "class_names and class_roots, or label_names, image_names and image_labels"
            raise refuse(f"{source} has other keys, or values that do not go together", rule, "mend it")
        splits[split] = reader(root, source, content, tally)
    files, names = join_splits(root, splits)
    return Found("json_files", files, splits=names, notes=tally.notes())


def fits_meta_album(root: Path) -> bool:
    """Whether there is a labels.csv, with the columns of Meta-Album or those of info.json."""
    return (root / "labels.csv").is_file() and _has(root / "labels.csv", _album_columns(root)[:2])


def read_meta_album(root: Path) -> Found:
    """The images that labels.csv names, in images/ or beside it; a class in a super-category is named SUPER/CLASS."""
    source = root / "labels.csv"
    columns = _album_columns(root)
    *_, above = columns
    grouped = _has(source, [above]) and {cell for [cell] in _read_cells(source, [above])} - {*GAPS, "NAN"}
    table = list(_read_table(source, columns if grouped else columns[:2]))
    names = ["/".join(reversed((name, *above))) for name, _, *above in table]  # SUPER_CATEGORY/CATEGORY, if it has both
    rows = zip(names, (row[1] for row in table), strict=True)
    files = _images(root, source, rows, lambda _: (root / "images", root))
    forbid_shared_files(files, {})
    return Found("meta_album", files)


def _csv_columns(source: Path) -> tuple[str, str] | None:
    """The columns of class and image; None if the file has others."""
    return next((columns for columns in CSV_COLUMNS if _has(source, columns)), None)


def _album_columns(root: Path) -> list[str]:
    """The columns of class, image and super-category, which info.json may rename."""
    info = _read_json(root / "info.json") if (root / "info.json").is_file() else {}
    info = info if isinstance(info, dict) else {}
    return [str(info.get(f"{kind}_column_name") or column) for kind, column in ALBUM.items()]


def _list_folders(root: Path) -> dict[str, Path]:
    """The folders in splits/ that hold a train.txt, by name."""
    splits = root / "splits"
    folders = list_folder(splits).folders if splits.is_dir() else []
    return {folder.name: folder for folder in folders if (folder / "train.txt").is_file()}


def _json_reader(content: Any) -> Callable[..., dict[str, list[Path]]] | None:
    """The reader for these keys; None if there is none, or the values are not what goes with them."""
    if not isinstance(content, dict):
        return None

    def texts(key: str) -> bool:
        value = content.get(key)
        return isinstance(value, list) and all(isinstance(item, str) for item in value)

    if texts("class_names") and texts("class_roots") and len(content["class_names"]) == len(content["class_roots"]):
        return _by_folders
    labels = content.get("image_labels")
    if texts("label_names") and texts("image_names") and isinstance(labels, list):
        known = range(len(content["label_names"]))
        if len(labels) == len(content["image_names"]) and all(type(n) is int and n in known for n in labels):
            return _by_images
    return None


def _by_folders(root: Path, source: Path, content: dict[str, list[str]], tally: Tally) -> dict[str, list[Path]]:
    """The images of the class_roots; several may belong to one class."""
    folders = _find_all(root, source, [(written, (root, *root.parents)) for written in content["class_roots"]])
    classes: dict[str, set[Path]] = defaultdict(set)
    for name, folder in zip(content["class_names"], folders, strict=True):
        for images in images_of_classes([folder], "", tally).values():
            classes[name].update(images)
    return {name: sorted(images) for name, images in classes.items()}


def _by_images(root: Path, source: Path, content: dict[str, list[Any]], tally: Tally) -> dict[str, list[Path]]:
    """The images of image_names; label_names may have classes of other splits too."""
    names = (content["label_names"][label] for label in content["image_labels"])
    rows = zip(names, content["image_names"], strict=True)
    return _images(root, source, rows, lambda _: (root, *root.parents))


def _images(root: Path, source: Path, rows: Rows, places: Callable[[str], Sequence[Path]]) -> dict[str, list[Path]]:
    """{class: its images}, each looked for in the places that its class gives."""
    rows = list(dict.fromkeys(rows))
    found = _find_all(root, source, [(image, places(name)) for name, image in rows])
    classes: dict[str, set[Path]] = defaultdict(set)  # a path may be written in two ways
    for (name, _), path in zip(rows, found, strict=True):
        classes[name].add(Path(os.path.normpath(path)))
    return {name: sorted(paths) for name, paths in classes.items()}


def _find_all(bound: Path, source: Path, wanted: Sequence[tuple[str, Sequence[Path]]]) -> list[Path]:
    """The path of everything that a file names, each looked for in its places, and all inside of `bound`.

    Raises:
        DataError: a name leads out of there; or nothing is there: the first such name, and how many there are.
    """
    found, missing = [], []
    for name, places in wanted:
        paths = [place / name for place in places]
        inside = [path for path in paths if path.is_relative_to(bound) and path != bound and ".." not in path.parts]
        if not inside:
            raise refuse(f"{source} names {name}", f"a path inside {bound}", "write it relative to that folder")
        path = next((path for path in inside if path.exists()), None)
        (missing if path is None else found).append(path or name)
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        what = f"{source} names what is not there: {missing[0]}{more}"
        raise refuse(what, f"them inside {bound}", "add them, or take them out of the file")
    return found


def _has(source: Path, columns: Sequence[str]) -> bool:
    """Whether the first line of a table names these columns, in capitals or not."""
    return {column.casefold() for column in columns} <= {*_names(next(_rows(source), []))}


def _read_table(source: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    """These columns of all rows. Raises DataError where a row has no value."""
    for values in _read_cells(source, columns):
        if not all(values):
            raise refuse(f"{source}: a row without {' or '.join(columns)}", "a value in each", "mend that row")
        yield values


def _read_cells(source: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    """The cells of columns that are there, row by row; '' where a row is too short."""
    rows = _rows(source)
    names = _names(next(rows))
    places = [names.index(column.casefold()) for column in columns]
    for row in filter(None, rows):
        yield [row[place].strip() if len(row) > place else "" for place in places]


def _names(first: list[str]) -> list[str]:
    return [name.strip().casefold() for name in first]


def _rows(source: Path) -> Iterator[list[str]]:
    """The rows of a table, its first line included. Raises DataError: it is none."""
    text = _read_text(source)
    try:
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=find_delimiter(text.partition("\n")[0]))
    except csv.Error as error:
        raise refuse(f"{source}: {reason(error)}", "a table", "mend it") from error


def _read_json(source: Path) -> Any:
    try:
        return json.loads(_read_text(source))
    except (ValueError, RecursionError) as error:
        raise refuse(f"{source}: {reason(error)}", "JSON", "mend it") from error


def _read_text(source: Path) -> str:
    """The text of a file of a data folder; raises DataError if it is not in UTF-8."""
    try:
        return source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise refuse(f"{source}: {reason(error)}", "text in UTF-8", "convert it") from error
