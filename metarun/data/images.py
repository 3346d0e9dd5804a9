"""Images of your own: a folder as people have it on disk, in one of the layouts of data/layouts.py.

Images are decoded once, to one size, into a packed file in the cache folder. Nothing is written into the data folder.

T tasks, N ways, E examples of a class, C channels, H and W pixels.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarun import seeds
from metarun.data.classes import ClassSource, log
from metarun.data.decode import Size, decode_all, digest, has_colours, image_size, is_grey, resize
from metarun.data.layouts import LAYOUTS, Found, find_layout
from metarun.data.packing import Chunks, Packed, describe_files, expand, load_packed
from metarun.data.splitting import FRACTIONS
from metarun.errors import DataError, SettingError, at_least, boolean, one_of
from metarun.tasks import SPLITS, Split
from metarun.text import count_of

LARGEST_SIZE = 84  # pixels, of images whose size nobody has set
NOTES = 2  # raised where the facts of older packed files lack notes, so that they are packed again
LOOKED_AT = 100  # files of which colour and size are looked at where they are not set
CHUNK = 256  # images that are packed at once


class ImageSource(ClassSource):
    """What all sources of images share: one size for all, changes of training images, a check for copies.

    Their load() gives Packed, whose facts are layout, splits, notes, and digest and name of each example.

    Args:
        size: H and W in pixels: the shorter side is scaled to it, and the middle cut out; None: as the images are, but
            at most 84.
        channels: 1 for grey, 3 for colour; None: grey where the first images of all classes are.
        invert: whether dark becomes bright, as Omniglot's ink is.
        augment: how training images change, each time they are drawn: `none`; `flip`: mirrored at random; `crop`: also
            moved by up to an eighth of the side, with the edges repeated.
        settings: of ClassSource.
    """

    def __init__(
        self,
        size: int | None = None,
        channels: int | None = None,
        invert: bool = False,
        augment: str = "none",
        **settings: Any,
    ):
        super().__init__(**settings)
        if size is not None:
            at_least(1, size=size)
            if size > 1024:
                raise SettingError(size, "size", "at most 1024 pixels")
        if channels not in (None, 1, 3) or isinstance(channels, bool):
            raise SettingError(channels, "channels", "1 for grey, 3 for colour, or null")
        boolean(invert=invert)
        one_of("augment", augment, ["none", "flip", "crop"])
        self.size, self.channels, self.invert, self.augment = size, channels, invert, augment

    @property
    def form(self) -> tuple[int | None, int | None, bool]:
        """What decides the pixels of an image, beside itself."""
        return self.size, self.channels, self.invert

    def class_splits(self) -> Mapping[Split, Sequence[str]] | None:
        """See ClassSource."""
        return self.packed.facts["splits"]

    @property
    def has_own_splits(self) -> bool:
        """See ClassSource."""
        return self.class_splits() is not None

    def prepare(self, device: torch.device) -> None:
        """See TaskSource. Raises DataError: an image is in two splits."""
        for note in self.packed.facts["notes"]:
            log.info("%s: %s", self.name, note)
        if self.has_own_splits and (self.splits != FRACTIONS or self.split_seed):
            log.warning(
                f"{list(self.splits)} (data.splits), {self.split_seed} (data.split_seed): have no effect, for the data "
                "has splits of its own"
            )
        if (copies := _find_copies(self.packed, {split: self.classes(split) for split in SPLITS})) is not None:
            self.report_copies(copies)
        if twins := _find_twins(self.packed):
            more = f" and {len(twins) - 1} more" if twins[1:] else ""
            log.warning(
                f"{twins[0]} are the same image{more} (data): expected different ones in a class, for a task may ask "
                "for an example that it has shown; remove the copies"
            )
        super().prepare(device)

    def report_copies(self, copies: str) -> None:
        """Refuses data, in words, that has the same image in two splits. Raises DataError."""
        raise DataError(f"{copies} (data.root): expected no image in two splits; remove one of them")

    def transform(self, examples: Tensor, seed: int, split: Split, index: Tensor) -> Tensor:
        """See ClassSource."""
        if split != "train" or self.augment == "none":
            return examples
        tasks, ways, per_class, _, height, width = examples.shape
        words = seeds.words((seed, split, "augment"), index, ways * per_class * 3).view(tasks, ways, per_class, 3)
        most = torch.tensor([height // 8, width // 8], device=words.device) if self.augment == "crop" else 0
        moves = words[..., :2] % (2 * most + 1) - most  # down and to the right
        rows, columns = (torch.arange(n, device=words.device) for n in (height, width))
        rows = (rows - moves[..., :1]).clamp(0, height - 1)[..., None, :, None]
        columns = (columns - moves[..., 1:]).clamp(0, width - 1)
        columns = torch.where(words[..., 2:] % 2 == 1, columns.flip(-1), columns)[..., None, None, :]
        moved = examples.gather(-2, rows.expand_as(examples))
        return moved.gather(-1, columns.expand_as(examples))

    def details(self) -> dict[str, Any]:
        """See ClassSource."""
        channels, height, width = self.input_shape
        found = {"layout": self.packed.facts["layout"], "size": f"{height}x{width}x{channels}"}
        changes = {"inverted": "yes"} if self.invert else {}
        changes |= {"augment": self.augment} if self.augment != "none" else {}
        return found | changes | super().details()

    def preprocessing(self) -> dict[str, Any]:
        """What is done with new images, as plain data; see data/inputs.py."""
        return {"kind": "images", "invert": self.invert}

    def identity(self) -> dict[str, str]:
        """See TaskSource."""
        # The pixels depend on Pillow, and on the size; what the images are made of does not.
        content = "\n".join([f"{name} {n}" for name, n in self.packed.counts.items()] + self.packed.facts["digests"])
        known = {"data_digest": hashlib.sha256(content.encode()).hexdigest(), "pixels_digest": self.packed.digest}
        return super().identity() | known


class Images(ImageSource):
    """N-way K-shot classification of the images in a folder.

    Args:
        root: the folder.
        layout: how the images lie in it, see data/layouts.py; None: found by what lies there.
        split: the name of one of several splits that the folder has, such as NAME of splits/NAME.
        settings: of ImageSource and ClassSource.
    """

    name = "images"

    def __init__(
        self,
        root: str | None = None,
        layout: str | None = None,
        split: str | None = None,
        **settings: Any,
    ):
        super().__init__(**settings)
        if not isinstance(root, str) or not root:
            raise SettingError(root, "root", "the folder with the images, as in data.root=FOLDER")
        if layout is not None:
            one_of("layout", layout, LAYOUTS)
        self.root, self.layout, self.split = expand(root), layout, split

    def load(self) -> Packed:
        """See ImageSource."""
        if not self.root.is_dir():
            other = f"the folder that it is in: data.root={self.root.parent}" if self.root.is_file() else "data.root"
            raise DataError(f"{self.root} (data.root): expected a folder with images; set {other}")
        try:
            key = [NOTES, self.form, self.layout, self.split, describe_files(self.root, sorted(set(_walk(self.root))))]
        except OSError as error:
            raise DataError(
                f"{error.filename}: {error.strerror} (data.root): expected files that can be read; mend or remove it"
            ) from error
        return load_packed("images", key, self._pack)

    def _pack(self) -> Chunks:
        """The images of each class, decoded; the facts."""
        try:
            found = find_layout(self.root, self.layout, self.split)
        except SettingError as error:  # of a split, which only the folder knows
            raise DataError(f"{error.value!r} (data.{error.name}): expected {error.expected}") from error
        digests: list[str] = []
        sizes = _look_at_sizes(found) if self.size is None else []
        size, channels, invert = self._form_of(found, sizes)
        notes = [f"layout {found.layout}", *found.notes, *_describe_sizes(sizes, size)]
        if found.files:
            names = [path.relative_to(self.root).as_posix() for path in self._files(found)]
            yield from _decoded(found, (size, channels, invert))
            if self.channels is None and channels == 1:
                notes += _describe_greyed(names, self._files(found))
            digests = [digest(path).hex()[:32] for path in self._files(found)]
        else:
            names = [f"image {n} of {name}" for name in sorted(found.arrays) for n in range(len(found.arrays[name]))]
            for name in sorted(found.arrays):
                digests += [hashlib.sha256(image.tobytes()).hexdigest()[:32] for image in found.arrays[name]]
                yield name, resize(found.arrays[name], size, channels, invert)
        return {
            "layout": found.layout,
            "splits": found.splits,
            "notes": notes,
            "digests": digests,
            "names": names,
        }

    @staticmethod
    def _files(found: Found) -> Iterator[Path]:
        """All files, a class after the other."""
        return (path for name in sorted(found.files) for path in found.files[name])

    def _form_of(self, found: Found, sizes: list[Size]) -> tuple[tuple[int, int], int, bool]:
        """Size, channels and inversion, where need be by a look at the first images of all classes, and their sizes."""
        size = self.size or min(LARGEST_SIZE, *map(min, sizes))
        if found.files:
            grey = self.channels is None and all(map(is_grey, _looked_at(found)))
        else:
            grey = all(array.ndim == 3 or array.shape[-1] == 1 for array in found.arrays.values())
        return (size, size), self.channels or (1 if grey else 3), self.invert


def _looked_at(found: Found) -> list[Path]:
    """The first files of each class."""
    per_class = max(1, LOOKED_AT // len(found.files))
    return [path for name in sorted(found.files) for path in found.files[name][:per_class]]


def _look_at_sizes(found: Found) -> list[Size]:
    """Height and width of the first images of all classes."""
    if found.files:
        return [image_size(path) for path in _looked_at(found)]
    return [array.shape[1:3] for array in found.arrays.values()]


def _describe_sizes(sizes: list[Size], size: Size) -> list[str]:
    """A line about images of several sizes; none where all have one."""
    if len(set(sizes)) < 2:
        return []
    least, most, made = ("x".join(map(str, pair)) for pair in (min(sizes), max(sizes), size))
    why = "by the smallest" if size[0] < LARGEST_SIZE else "the most without data.size"
    return [f"images of several sizes, such as {least} and {most}, become {made}, {why}; see data.size"]


def _decoded(found: Found, form: tuple[tuple[int, int], int, bool]) -> Iterator[tuple[str, np.ndarray]]:
    """Class and images, a few at a time."""
    images = decode_all([path for name in sorted(found.files) for path in found.files[name]], *form)
    for name in sorted(found.files):
        left = len(found.files[name])
        while left:
            chunk = [next(images) for _ in range(min(CHUNK, left))]
            left -= len(chunk)
            yield name, np.stack(chunk)


def _describe_greyed(names: list[str], files: Iterable[Path]) -> list[str]:
    """A line about images that were made grey since the first ones are; none where there are none."""
    colour = [name for name, path in zip(names, files, strict=True) if has_colours(path)]
    if not colour:
        return []
    these = f"{count_of(len(colour), 'image')} made grey, such as {colour[0]}"
    return [f"{these}, for the first images of all classes are grey; to keep colours: data.channels=3"]


def _walk(root: Path) -> Iterator[Path]:
    """All files below a folder; also where links lead, but for those to a folder around them."""
    around = {root: (os.path.realpath(root),)}
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_raise):
        above = around.pop(Path(folder))
        inside = {name: os.path.realpath(Path(folder, name)) for name in folders}
        folders[:] = [name for name in folders if name[0] != "." and inside[name] not in above]
        around |= {Path(folder, name): (*above, inside[name]) for name in folders}
        yield from (Path(folder, file) for file in files if not file.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def _find_twins(packed: Packed) -> list[str]:
    """The images that are in one class twice, in words."""
    found, place = [], 0
    for count in packed.counts.values():
        first: dict[str, int] = {}
        for n in range(place, place + count):
            if (other := first.setdefault(packed.facts["digests"][n], n)) != n:
                found.append(f"{packed.facts['names'][other]} and {packed.facts['names'][n]}")
        place += count
    return found


def _find_copies(packed: Packed, splits: Mapping[Split, Sequence[str]]) -> str | None:
    """The first image that is in two splits, in words; None where none is."""
    split_of = {name: split for split, names in splits.items() for name in names}
    seen: dict[str, tuple[str, str]] = {}  # digest: split, place
    place = 0
    for name, count in packed.counts.items():
        split = split_of.get(name)
        for n in range(place, place + count if split else place):
            other, first = seen.setdefault(packed.facts["digests"][n], (split, packed.facts["names"][n]))
            if other != split:
                return f"{first} of {other} and {packed.facts['names'][n]} of {split} are the same image"
        place += count
    return None
