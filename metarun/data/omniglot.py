"""Omniglot: tell handwritten characters apart after seeing a few drawings of them.

1623 characters (classes) of 50 alphabets, drawn by 20 people, 28x28 pixels, bright ink on black, antialiased. 1100 /
100 / 423 classes for train / val / test, as in Finn et al. 2017. We differ: their split depends on the order of the
file system; ours is a shuffle of the sorted class names by `split_seed`, and recorded as a hash. A character and its
rotations are always in the same split.

T tasks, N ways, K shots, Q queries of a class.
"""

import hashlib
import os
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarun import seeds
from metarun.data import omniglot_archive as archive
from metarun.data.omniglot_archive import ALPHABETS, DRAWERS, SIZE, Alphabets
from metarun.errors import SettingError, at_least, boolean, one_of
from metarun.tasks import Metric, Split, Task, keys, sizes, ways_of


class Omniglot:
    """N-way K-shot classification of characters.

    Args:
        ways: N, at most the classes of the split: 1100 in training, 100 in validation, 423 in test.
        shots: K, support drawings of each class.
        queries: query drawings of each class; None: as many as shots. Support and query never share a drawing, so
            K + Q is at most 20.
        eval_shots: K in validation and test; None: as in training.
        eval_queries: Q in validation and test; None: as in training, or where queries is None as many as shots there.
        eval_ways: N in validation and test; None: as in training.
        rotations: whether each class of a task is turned by a random multiple of 90 degrees: in `all` splits, in
            `train` only, or in `none`.
        split_seed: shuffles the classes before they are split.
        root: the folder that omniglot-py is in; None: $METARUN_DATA, else the user's cache folder.
        download: whether torchvision may download missing archives.
    """

    input_shape = (1, SIZE, SIZE)
    metric: Metric = "accuracy"
    clustered_by = "classes"
    alphabets: Alphabets = ALPHABETS
    split_sizes: ClassVar[dict[Split, int]] = {"train": 1100, "val": 100, "test": 423}

    def __init__(
        self,
        ways: int = 5,
        shots: int = 1,
        queries: int | None = None,
        eval_shots: int | None = None,
        eval_queries: int | None = None,
        eval_ways: int | None = None,
        rotations: str = "all",
        split_seed: int = 0,
        root: str | None = None,
        download: bool = True,
    ):
        self.ways = ways_of(ways, eval_ways)
        self.sizes = sizes(shots, queries, eval_shots, eval_queries)
        at_least(0, split_seed=split_seed)
        boolean(download=download)
        one_of("rotations", rotations, ["all", "train", "none"])
        for prefix, (k, q) in {"": self.sizes.train, "eval_": self.sizes.test}.items():
            if k + q > DRAWERS:
                names = f"{prefix}shots", f"{prefix}queries"
                rule = f"at most {DRAWERS}, the drawings of a class; lower {' or '.join(names)}"
                raise SettingError(k + q, " + ".join(names), rule)
        self.rotations, self.split_seed, self.download = rotations, split_seed, download
        self.root = archive.expand(root or os.environ.get("METARUN_DATA") or str(archive.cache()))
        self.outputs = max(self.ways)

    def classes(self, split: Split) -> list[str]:
        """The class names of a split, in the split's order."""

        def digest(name: str) -> bytes:
            return hashlib.sha256(f"{self.split_seed}/{name}".encode()).digest()

        shuffled, sizes = sorted(archive.class_names(self.alphabets), key=digest), self.split_sizes
        start = {"train": 0, "val": sizes["train"], "test": sizes["train"] + sizes["val"]}[split]
        return shuffled[start : start + sizes[split]]

    def prepare(self, device: torch.device) -> None:
        """See TaskSource."""
        packed = archive.load(self.root, self.download, self.alphabets)
        self.pixels_digest = hashlib.sha256(packed.data).hexdigest()
        images = torch.from_numpy(packed.copy())
        number = {name: place for place, name in enumerate(archive.class_names(self.alphabets))}
        self.images = images.flatten(0, 1).flatten(1).to(device)  # [classes * 20, 784] uint8
        self.members = {
            split: torch.tensor([number[c] for c in self.classes(split)], device=device) for split in self.split_sizes
        }
        pixels = torch.arange(SIZE**2).view(SIZE, SIZE)
        self.turns = torch.stack([torch.rot90(pixels, quarter).flatten() for quarter in range(4)]).to(device)

    def sample(self, seed: int, split: Split, index: Tensor) -> Task:
        """See TaskSource."""
        index = index.to(self.images.device)
        shots, queries = self.sizes.of(split)
        per_class, ways, classes = shots + queries, self.ways.of(split), self.clusters(seed, split, index)
        drawings = seeds.distinct((seed, split, "drawings"), index, ways, DRAWERS, per_class)
        images = self.images[classes[..., None] * DRAWERS + drawings]  # [T, N, K + Q, 784]
        if self.rotations == "all" or (self.rotations == "train" and split == "train"):
            quarter = seeds.words((seed, split, "rotations"), index, ways) % 4
            images = images.gather(-1, self.turns[quarter][:, :, None].expand_as(images))
        images = images.view(len(index), ways, per_class, *self.input_shape)
        labels = torch.arange(ways, device=index.device).expand(len(index), -1)

        def with_labels(images: Tensor) -> tuple[Tensor, Tensor]:
            return images.flatten(1, 2).float() / 255, labels.repeat_interleave(images.shape[2], dim=1)

        support, query = with_labels(images[:, :, :shots]), with_labels(images[:, :, shots:])
        return Task(*support, *query, keys(seed, split, index))

    def clusters(self, seed: int, split: Split, index: Tensor) -> Tensor:
        """[T, N] int64, on the device: the numbers of the classes of tasks, among all."""
        members = self.members[split]
        index = index.to(members.device)
        return members[seeds.distinct((seed, split, "classes"), index, 1, len(members), self.ways.of(split)).squeeze(1)]

    def identity(self) -> dict[str, str]:
        """See TaskSource."""
        splits = "\n\n".join("\n".join(self.classes(split)) for split in self.split_sizes)
        return {
            "split_hash": hashlib.sha256(splits.encode()).hexdigest(),
            "data_digest": archive.digest_of(self.alphabets),
            "pixels_digest": self.pixels_digest,  # of the 28x28 images, whose last bits depend on Pillow
        }

    def facts(self) -> dict[str, Any]:
        """See TaskSource."""
        more = {"rotations": self.rotations}
        return {"name": "omniglot", **self.ways.facts(), **self.sizes.facts(), "more": more}
