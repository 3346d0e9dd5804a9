"""Omniglot: tell handwritten characters apart after seeing a few drawings of them.

1623 characters (classes) of 50 alphabets, drawn by 20 people, 28x28 pixels, bright ink on black, antialiased. 1100 /
100 / 423 classes for train / val / test, as in Finn et al. 2017. We differ: their split depends on the order of the
file system; ours is a shuffle of the sorted class names by `split_seed`, and recorded as a hash. A character and its
rotations are always in the same split.

With split=lake as in Lake et al. 2015: the 30 alphabets of the background set for training, but for five that
`split_seed` chooses for validation, and the 20 of the evaluation set for the test; all classes of a task are of one
alphabet.
"""

import os
from itertools import islice
from typing import Any, ClassVar

from metarun.data import omniglot_archive as archive
from metarun.data.classes import ClassSource
from metarun.data.omniglot_archive import DIGEST, DRAWERS, SIZE
from metarun.data.packing import Packed, cache, expand
from metarun.data.splitting import shuffle_names
from metarun.errors import SettingError, boolean, one_of
from metarun.tasks import Split

VALIDATION_ALPHABETS = 5  # of the background set, with split=lake


class Omniglot(ClassSource):
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
        split: None: any classes in a task; `lake`: alphabets are split, and a task is within one.
        split_seed: shuffles the classes before they are split, or the alphabets.
        root: the folder that omniglot-py is in; None: $METARUN_DATA, else the user's cache folder.
        download: whether torchvision may download missing archives.
    """

    name = "omniglot"
    input_shape = (1, SIZE, SIZE)
    split_sizes: ClassVar[dict[Split, int]] = {"train": 1100, "val": 100, "test": 423}
    digest = DIGEST  # of the drawings that are expected

    def __init__(
        self,
        ways: int = 5,
        shots: int = 1,
        queries: int | None = None,
        eval_shots: int | None = None,
        eval_queries: int | None = None,
        eval_ways: int | None = None,
        rotations: str = "all",
        split: str | None = None,
        split_seed: int = 0,
        root: str | None = None,
        download: bool = True,
    ):
        super().__init__(
            ways, shots, queries, eval_shots, eval_queries, eval_ways, rotations=rotations, split_seed=split_seed
        )
        boolean(download=download)
        for prefix, (k, q) in {"": self.sizes.train, "eval_": self.sizes.test}.items():
            if k + q > DRAWERS:
                names = f"{prefix}shots", f"{prefix}queries"
                rule = f"at most {DRAWERS}, the drawings of a class; lower {' or '.join(names)}"
                raise SettingError(k + q, " + ".join(names), rule)
        if split is not None:
            one_of("split", split, ["lake"])
            self.split_sizes = {}  # what counts is the classes of an alphabet, which prepare() looks at
        self.split, self.download = split, download
        self.root = expand(root or os.environ.get("METARUN_DATA") or str(cache()))

    def load(self) -> Packed:
        """See ClassSource."""
        return archive.load(self.root, self.download, self.digest)

    def class_splits(self) -> dict[Split, list[str]]:
        """See ClassSource."""
        if self.split is None:
            rest = iter(shuffle_names(self.packed, self.split_seed))
            return {split: list(islice(rest, n)) for split, n in self.split_sizes.items()}
        sets, alphabets = self.packed.facts["sets"], self.groups() or {}
        background = [name for name, part in sets.items() if part == archive.SETS[0]]
        background = shuffle_names(background, self.split_seed)
        parts = {"val": background[:VALIDATION_ALPHABETS], "train": background[VALIDATION_ALPHABETS:]}
        parts["test"] = [name for name in sets if name not in background]
        return {split: [name for name in self.packed if alphabets[name] in part] for split, part in parts.items()}

    def groups(self) -> dict[str, str] | None:
        """See ClassSource."""
        return {name: name.partition("/")[0] for name in self.packed} if self.split else None

    def details(self) -> dict[str, Any]:
        """See ClassSource."""
        return {"rotations": self.rotations} | ({"split": self.split} if self.split else {})

    def preprocessing(self) -> dict[str, Any]:
        """What is done with new drawings, dark ink on white, as plain data; see data/inputs.py."""
        return {"kind": "images", "invert": True}

    def identity(self) -> dict[str, str]:
        """See TaskSource."""
        # The last bits of the 28x28 images depend on Pillow; the drawings do not.
        return super().identity() | {"data_digest": self.digest, "pixels_digest": self.packed.digest}
