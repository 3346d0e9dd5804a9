"""The image files that a user gives to a trained learner: to learn from, and to ask for."""

import logging
from collections.abc import Sequence
from pathlib import Path

from metarun.data.found import Listing, check_classes, list_folder
from metarun.errors import DataError
from metarun.text import reason

log = logging.getLogger("metarun")


def list_classes(root: Path) -> list[tuple[Path, str]]:
    """The images in the class folders of a support set, each with its class.

    Raises:
        DataError: it is no folder of at least two folders of images, and nothing else.
    """
    rule = "a folder with a folder of images for each class"
    if not root.is_dir():
        why = "is no folder" if root.exists() else "is not there"
        raise DataError(f"{root} {why} (support): expected {rule}; give that")
    listing = _list_folder(root, "support")
    if listing.images:
        raise DataError(f"{listing.images[0]} (support): is in no class: expected {rule}; move it into one, or away")
    files: list[tuple[Path, str]] = []
    for folder in listing.folders:
        if not (images := _list_folder(folder, "support").images):
            raise DataError(f"{folder} (support): holds no images: expected some of that class; add them, or remove it")
        files += [(path, folder.name) for path in images]
    check_classes(root, [folder.name for folder in listing.folders], "support")
    return files


def list_images(paths: Sequence[Path]) -> list[tuple[Path, str | None]]:
    """The images that are asked for: files, and those in folders; those in class folders with their classes.

    Raises:
        DataError: there are none, or both images and class folders in a folder.
    """
    files: list[tuple[Path, str | None]] = []
    for path in paths:
        if not path.is_dir():
            files.append((path, None))  # whatever is wrong with it is found where it is decoded
            continue
        listing = _list_folder(path, "query")
        inner = [(image, f.name) for f in listing.folders for image in _list_folder(f, "query").images]
        if listing.images and inner:
            raise DataError(
                f"{path} (query): holds images, and folders of images: expected either images, or a folder for each "
                "class; give them apart"
            )
        files += [(image, None) for image in listing.images] or inner
    if not files:
        raise DataError(f"{', '.join(map(str, paths))} (query): holds no images: expected some to ask for")
    return files


def _list_folder(folder: Path, where: str) -> Listing:
    """What lies in a folder; says what of it is left aside."""
    try:
        listing = list_folder(folder, where)
    except OSError as error:
        raise DataError(
            f"{folder} ({where}): {reason(error)}: expected a folder that can be read; mend that"
        ) from error
    if aside := ", ".join(f"{kind} ({count})" for kind, count in sorted(listing.aside.items())):
        log.info("%s: %s: left aside: %s", where, folder, aside)
    return listing
