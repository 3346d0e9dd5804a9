"""Classification data sets of torchvision by name, all of their parts together, and their classes split.

What counts as new in meta-learning is a class, so the parts that torchvision has for training and testing are pooled.

CIFAR-100 has two published class splits: `cifar_fs` (Bertinetto et al. 2019, "Meta-learning with differentiable
closed-form solvers"), and `fc100` (Oreshkin et al. 2018, "TADAM"), by superclasses.
"""

import hashlib
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm

from metarun.data.classes import log
from metarun.data.decode import Size, fit_image, resize
from metarun.data.found import check_download
from metarun.data.images import LARGEST_SIZE, ImageSource
from metarun.data.packing import Chunks, Packed, cache, expand, load_packed
from metarun.errors import DataError, MetarunError, SettingError, boolean
from metarun.tasks import Split
from metarun.text import is_terminal, nearest, reason

PARTS = ("train", "trainval", "val", "valid", "test")  # values of `split` in torchvision; `extra` ones are left out
NO_DATA_SETS = ("VisionDataset", "DatasetFolder", "ImageFolder")  # of which the former make others; see data/images.py
DEFAULTS = {"EMNIST": {"split": "balanced"}}  # what a data set needs to be told

CIFAR_FS = {
    "val": "beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree motorcycle otter sea shark "
    "television tractor",
    "test": "baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose snail sweet_pepper table "
    "telephone wardrobe whale woman worm",
}
FC100 = {  # large carnivores, large omnivores and herbivores, other invertebrates, small mammals
    "val": "bear leopard lion tiger wolf camel cattle chimpanzee elephant kangaroo crab lobster snail spider worm "
    "hamster mouse rabbit shrew squirrel",
    # aquatic mammals, insects, medium-sized mammals, people
    "test": "beaver dolphin otter seal whale bee beetle butterfly caterpillar cockroach fox porcupine possum raccoon "
    "skunk baby boy girl man woman",
}
NAMED_SPLITS = {"CIFAR100": {"cifar_fs": CIFAR_FS, "fc100": FC100}}


class TorchvisionSet(ImageSource):
    """N-way K-shot classification of a data set's images.

    Args:
        dataset: the class of torchvision.datasets, such as MNIST, CIFAR100, SVHN.
        root: the folder that torchvision has it in; None: $METARUN_DATA, else the user's cache folder.
        download: whether torchvision may download it.
        split: a published class split: of CIFAR100 `cifar_fs` or `fc100`; None: by `splits`.
        options: more arguments of the data set's class, such as {split: letters} of EMNIST.
        settings: of ImageSource and ClassSource.
    """

    name = "torchvision"

    def __init__(
        self,
        dataset: str | None = None,
        root: str | None = None,
        download: bool = True,
        split: str | None = None,
        options: dict[str, Any] | None = None,
        **settings: Any,
    ):
        super().__init__(**settings)
        boolean(download=download)
        if not isinstance(dataset, str) or not dataset.isidentifier():  # it is a part of a file's name
            raise SettingError(dataset, "dataset", "a data set of torchvision, such as data.dataset=MNIST")
        named = NAMED_SPLITS.get(dataset, {})
        if split is not None and split not in named:
            raise SettingError(split, "split", f"null{''.join(f' or {name}' for name in named)} for {dataset}")
        self.dataset, self.download, self.split, self.options = dataset, download, split, dict(options or {})
        self.root = expand(root or os.environ.get("METARUN_DATA") or str(cache()))

    def load(self) -> Packed:
        """See ImageSource. What torchvision has checked once is not read again."""
        return load_packed(self.dataset, [self.form, self.options, str(self.root.resolve())], self._pack)

    def class_splits(self) -> Mapping[Split, Sequence[str]] | None:
        """See ClassSource."""
        if self.split is None:
            return None
        held_out: dict[Split, list[str]] = {
            part: names.split() for part, names in NAMED_SPLITS[self.dataset][self.split].items()
        }
        rest = [name for name in self.packed if name not in [*held_out["val"], *held_out["test"]]]
        return {"train": rest, **held_out}

    def report_copies(self, copies: str) -> None:
        """Warns: a public data set stays as it is."""
        log.warning("%s: %s (data.dataset): a few such copies hardly show in a result", self.dataset, copies)

    def details(self) -> dict[str, Any]:
        """See ClassSource."""
        return {"layout": self.dataset} | super().details() | ({"split": self.split} if self.split else {})

    def _pack(self) -> Chunks:
        """The images of each class; the facts."""
        parts = self._parts()
        if not (known := [part for part in parts if len(part)]):
            raise DataError(f"{self.dataset} (data.dataset): has no images; expected some")
        first, _ = self._read(known[0], 0)
        size = self.size or min(LARGEST_SIZE, *np.asarray(first).shape[:2])
        channels = self.channels or (1 if np.asarray(first).ndim == 2 else 3)
        by_class: dict[str, list[np.ndarray]] = {}
        digests: dict[str, list[str]] = {}
        for part in known:
            for n in tqdm(
                range(len(part)),
                f"packing {self.dataset}",
                unit="image",
                disable=not is_terminal(sys.stderr),
                leave=False,
            ):
                image, label = self._read(part, n)
                if isinstance(label, bool) or not isinstance(label, (int, np.integer)):
                    rule = "an integer, the class of an image"
                    raise DataError(f"{type(label).__name__} (label of {self.dataset}, data.dataset): expected {rule}")
                if label < 0:  # as torchvision has images without a class
                    rule = "a class of each image, from 0 on; take a split whose images have one (data.options)"
                    raise DataError(f"{label} (label of {self.dataset}, data.dataset): expected {rule}")
                pixels = np.asarray(image)
                name = self._class_name(part, int(label))
                by_class.setdefault(name, []).append(self._fit(image, (size, size), channels))
                digests.setdefault(name, []).append(hashlib.sha256(pixels.tobytes()).hexdigest()[:32])
        for name in sorted(by_class):
            yield name, np.stack(by_class[name])
        return {
            "layout": self.dataset,
            "splits": None,
            "notes": [f"{self.dataset}, {len(known)} parts together"],
            "digests": [digest for name in sorted(digests) for digest in digests[name]],
            "names": [f"image {n} of {name}" for name in sorted(digests) for n in range(len(digests[name]))],
        }

    def _read(self, part: Any, n: int) -> tuple[Any, Any]:
        """An image and its label."""
        try:
            image, label = part[n]
            return image, label
        except Exception as error:  # of its file, or of options such as a transform
            rule = "a classification data set; restore its files, or set data.options"
            raise DataError(
                f"{self.dataset} (data.dataset): image {n} cannot be read ({reason(error)}): expected {rule}"
            ) from error

    def _fit(self, image: Any, size: Size, channels: int) -> np.ndarray:
        """uint8 [channels, H, W] of an image of PIL's, of any mode, or of an array."""
        if isinstance(image, Image.Image):
            return fit_image(image, size, channels, self.invert)
        return resize(np.asarray(image)[None], size, channels, self.invert)[0]

    @staticmethod
    def _class_name(part: Any, label: int) -> str:
        """The name of a class, or its number where it has none."""
        names = getattr(part, "classes", None)
        named = isinstance(names, (list, tuple)) and label < len(names) and isinstance(names[label], str)
        return names[label] if named else f"{label:03d}"

    def _parts(self) -> list[Any]:
        """The parts of the data set, made by torchvision."""
        datasets = import_datasets()
        classes = {name: getattr(datasets, name) for name in datasets.__all__ if name not in NO_DATA_SETS}
        known = [name for name, cls in classes.items() if inspect.isclass(cls) and issubclass(cls, Dataset)]
        cls = classes[self.dataset] if self.dataset in known else None
        if cls is None:
            rule = (
                f"a class of torchvision.datasets, such as MNIST, EMNIST, CIFAR100, SVHN{nearest(self.dataset, known)}"
            )
            raise DataError(f"{self.dataset!r} (data.dataset): expected {rule}")
        takes = inspect.signature(cls).parameters
        given = DEFAULTS.get(self.dataset, {}) | self.options
        given |= {"root": str(self.root)} if "root" in takes else {}
        there = {self.root, *self.root.iterdir()} if self.root.is_dir() else set()
        mnist = issubclass(cls, datasets.MNIST)  # and its kin, which take what they get
        downloads = "download" in takes or mnist
        if downloads and self.download:
            try:
                return self._make(cls, given | {"download": False}, "train" in takes or mnist, "split" in takes)
            except MetarunError:
                raise
            except Exception as error:  # files are missing, or are not those of torchvision's
                log.debug("%s is not in %s yet: %s", self.dataset, self.root, reason(error))
            check_download(self.root)
        given |= {"download": self.download} if downloads else {}
        try:
            return self._make(cls, given, "train" in takes or mnist, "split" in takes)
        except MetarunError:
            raise
        except Exception as error:  # of the network, the disk, the archive, or wrong options
            self._remove_empty_folders(there)
            raise DataError(
                f"{self.dataset} (data.dataset): torchvision cannot make it from {self.root}: {reason(error)}; "
                "expected its files there; set data.root, METARUN_DATA or data.options, or allow data.download=true"
            ) from error

    def _make(self, cls: Any, given: dict[str, Any], by_train: bool, by_split: bool) -> list[Any]:
        """The parts of a data set whose class has a parameter `train`, or `split`, or neither."""
        if by_train:
            return [cls(train=train, **given) for train in (True, False)]
        if by_split and "split" not in given:
            return self._parts_by_split(cls, given)
        return [cls(**given)]

    def _remove_empty_folders(self, there: set[Path]) -> None:
        """Removes what a download that failed has made, but for files."""
        new = {self.root, *(self.root.iterdir() if self.root.is_dir() else ())} - there
        for folder in sorted({path for top in new for path in (top, *top.rglob("*"))}, reverse=True):
            with suppress(OSError):  # it is a file, or holds one
                folder.rmdir()

    def _parts_by_split(self, cls: Any, given: dict[str, Any]) -> list[Any]:
        """The parts of a data set that knows them by words; a word that it does not know is a ValueError."""
        found, refusal = [], None
        for part in PARTS:
            if part == "trainval" and found:  # made of train and val
                continue
            try:
                found.append(cls(split=part, **given))
            except ValueError as error:
                refusal = error
        if not found and refusal is not None:
            raise refusal
        return found


def import_datasets() -> Any:
    """The module torchvision.datasets. Raises DataError: it cannot be imported."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        raise DataError(
            f"torchvision cannot be imported ({reason(error)}): it has to be the build that goes with the "
            "installed torch; reinstall both together: pip install --force-reinstall torch torchvision"
        ) from error
    return datasets
