"""Tasks of a few classes out of many: the sampler that all sources of classes share.

A source says in load() where its examples come from. Disjoint splits of the classes, tasks by their numbers, hashes and
what is printed of them follow from that.

T tasks, N ways, K shots, Q queries of a class, C classes of a split.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarun import seeds
from metarun.data.packing import Packed
from metarun.data.splitting import FRACTIONS, check_names, check_splitting, hash_splits, split_names
from metarun.errors import DataError, one_of
from metarun.tasks import SPLITS, Metric, Split, Task, keys, sizes, ways_of
from metarun.text import count_of

log = logging.getLogger("metarun")


class ClassSource:
    """N-way K-shot classification. A source has at least load(), and a name.

    Classes with fewer than K + Q examples are left out with a line. All is read once, when it is first asked for.

    Args:
        ways: N, at most the classes of a split.
        shots: K, support examples of each class.
        queries: Q, query examples of each class; None: as many as shots. Support and query never share an example.
        eval_shots: K in validation and test; None: as in training.
        eval_queries: Q in validation and test; None: as in training, or where queries is None as many as shots there.
        eval_ways: N in validation and test; None: as in training.
        rotations: whether each class of a task is turned by a random multiple of 90 degrees (square images only): in
            `all` splits, in `train` only, or in `none`.
        splits: shares of the classes in train, val and test, which add up to 1, where the data has no splits of its
            own.
        split_seed: shuffles the sorted class names before they are split by these shares.
    """

    name = "classes"
    metric: Metric = "accuracy"
    clustered_by = "classes"  # what tasks share, see clusters()

    def __init__(
        self,
        ways: int = 5,
        shots: int = 1,
        queries: int | None = None,
        eval_shots: int | None = None,
        eval_queries: int | None = None,
        eval_ways: int | None = None,
        rotations: str = "none",
        splits: Sequence[float] = FRACTIONS,
        split_seed: int = 0,
    ):
        self.ways = ways_of(ways, eval_ways)
        self.sizes = sizes(shots, queries, eval_shots, eval_queries)
        check_splitting(splits, split_seed)
        one_of("rotations", rotations, ["all", "train", "none"])
        self.rotations, self.splits, self.split_seed = rotations, tuple(splits), split_seed
        self.outputs = max(self.ways)

    # What a source has to say, and may say.

    def load(self) -> Mapping[str, np.ndarray]:
        """Reads the examples, by class: images, uint8 [n, channels, height, width]; or float32 [n, ...]; n may differ.

        Raises:
            DataError: the data is missing, incomplete or altered.
        """
        raise DataError(f"{type(self).__name__} (data): has no load(): expected it to give {{class name: examples}}")

    def class_splits(self) -> Mapping[Split, Sequence[str]] | None:
        """The names of the classes of each split, in order; None: by `splits`. May ask for self.packed."""
        return None

    @property
    def has_own_splits(self) -> bool:
        """Whether the data says itself which classes are of which split, so that `splits` has no effect."""
        return False

    def groups(self) -> Mapping[str, str] | None:
        """{class: its group}, where all classes of a task are of one group; None: they are any of the split."""
        return None

    def transform(self, examples: Tensor, seed: int, split: Split, index: Tensor) -> Tensor:
        """Changes the examples [T, N, K + Q, ...] of tasks; as a rule not at all."""
        return examples

    def details(self) -> dict[str, Any]:
        """What a reader of the result has to know of the data, by name."""
        rotations = {"rotations": self.rotations} if self.rotations != "none" else {}
        return {"classes": "/".join(str(self.split_sizes[split]) for split in SPLITS), **rotations}

    def preprocessing(self) -> dict[str, Any]:
        """What sample() does with new examples, as plain data; see data/inputs.py."""
        if self.packed.examples.dtype != np.uint8:
            return {"kind": "numbers"}
        images = len(self.input_shape) == 3 and self.input_shape[0] in (1, 3)
        return {"kind": "images", "invert": False} if images else {"kind": "numbers", "scale": 255}

    # What follows from that.

    @cached_property
    def packed(self) -> Packed:
        """The examples by class, read when they are first asked for."""
        return Packed.of(self.load())

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.packed.examples.shape[1:])

    @cached_property
    def _split_names(self) -> dict[Split, list[str]]:
        """All classes of each split, also those that have too few examples."""
        if (given := self.class_splits()) is not None:
            return {split: list(given.get(split, ())) for split in SPLITS}
        return split_names(self.packed, self.splits, self.split_seed)

    def classes(self, split: Split) -> list[str]:
        """The names of the classes of a split, in the split's order."""
        return self._split_names[split]

    @cached_property
    def split_sizes(self) -> dict[Split, int]:
        """How many classes with enough examples each split has."""
        return {split: len(self._usable[split]) for split in SPLITS}

    def explain_size(self, split: Split) -> str:
        """Why split_sizes has fewer classes of a split than the data, for messages; "" where it has all."""
        every, least = len(self.classes(split)), sum(self.sizes.of(split))
        rule = f"that have {least} examples, shots + queries, of {every}; lower data.shots or data.queries"
        return f" {rule}" if self.split_sizes[split] < every else ""

    @cached_property
    def _usable(self) -> dict[Split, list[str]]:
        """The classes of each split that have enough examples for its tasks."""
        check_names(self._split_names, self.packed.counts)
        least, counts = {split: sum(self.sizes.of(split)) for split in SPLITS}, self.packed.counts
        return {split: [name for name in self.classes(split) if counts[name] >= least[split]] for split in SPLITS}

    def prepare(self, device: torch.device) -> None:
        """See TaskSource. Examples lie on the device where they take up less than half of it, else on the CPU."""
        self.device, packed = device, self.packed
        self._report()
        examples = torch.from_numpy(packed.examples)
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        self.examples = examples.to(device) if 2 * packed.examples.nbytes < free else examples
        where = self.examples.device
        self.counts, self.starts = (
            torch.tensor(n, device=where) for n in (list(packed.counts.values()), packed.starts())
        )
        self.most = max(packed.counts.values())
        number = {name: place for place, name in enumerate(packed)}
        groups = self.groups()
        self.members, self.group_sizes = {}, {}
        for split in SPLITS:
            names = self._usable[split]
            if groups is not None:
                names = self._of_large_groups(names, groups, self.ways.of(split))
                sizes = [sum(groups[name] == group for name in names) for group in sorted({*map(groups.get, names)})]
                self.group_sizes[split] = torch.tensor(sizes, dtype=torch.int64, device=where)
            self.members[split] = torch.tensor([number[name] for name in names], dtype=torch.int64, device=where)
        if self.rotations != "none" and (len(self.input_shape) != 3 or self.input_shape[1] != self.input_shape[2]):
            raise DataError(
                f"{self.rotations} (data.rotations): expected none, for these examples are no square images"
            )
        if self.rotations != "none":
            pixels = torch.arange(self.input_shape[1] ** 2).view(self.input_shape[1:])
            self.turns = torch.stack([torch.rot90(pixels, quarter).flatten() for quarter in range(4)]).to(where)

    def _of_large_groups(self, names: list[str], groups: Mapping[str, str], ways: int) -> list[str]:
        """The classes of groups of at least N, a group after the other."""
        members = {
            group: [name for name in names if groups[name] == group] for group in sorted({*map(groups.get, names)})
        }
        if names and max(map(len, members.values())) < ways:
            raise DataError(
                f"{ways} (data.ways): expected at most {max(map(len, members.values()))}, the classes of a group"
            )
        return [name for group in members.values() if len(group) >= ways for name in group]

    def _report(self) -> None:
        """Says what was read, and what was left out."""
        packed, listed, usable = self.packed, self._split_names, self._usable
        examples = {split: sum(packed.counts[name] for name in names) for split, names in listed.items()}
        parts = [f"{split} {count_of(len(listed[split]), 'class')}, {examples[split]} examples" for split in SPLITS]
        log.info("%s: examples of shape %s; %s", self.name, "x".join(map(str, self.input_shape)), "; ".join(parts))
        for split in SPLITS:
            if few := sorted({*listed[split]} - {*usable[split]}):
                words = f"fewer than {sum(self.sizes.of(split))} examples, shots + queries, and are left out"
                log.warning("%s: %s of %s (%s) have %s", self.name, count_of(len(few), "class"), split, few[0], words)

    def _places_of(self, seed: int, split: Split, index: Tensor) -> Tensor:
        """[T, N] int64: the numbers that the classes of each task have among those of the split."""
        ways = self.ways.of(split)
        if split not in self.group_sizes:
            return seeds.distinct((seed, split, "classes"), index, 1, len(self.members[split]), ways).squeeze(1)
        per_group = self.group_sizes[split]
        group = seeds.distinct((seed, split, "groups"), index, 1, len(per_group), 1)[:, 0]  # [T, 1]
        drawn = seeds.distinct_of_sizes((seed, split, "classes"), index, per_group[group], int(per_group.max()), ways)
        return (per_group.cumsum(0) - per_group)[group] + drawn.squeeze(1)

    def clusters(self, seed: int, split: Split, index: Tensor) -> Tensor:
        """[T, N] int64: the numbers of the classes that each task is made of; see TaskSource."""
        members = self.members[split]
        return members[self._places_of(seed, split, index.to(members.device))]

    def sample(self, seed: int, split: Split, index: Tensor) -> Task:
        """See TaskSource."""
        index = index.to(self.examples.device)
        shots, queries = self.sizes.of(split)
        per_class, ways = shots + queries, self.ways.of(split)
        numbers = self._places_of(seed, split, index)
        classes = self.members[split][numbers]
        address = (seed, split, "drawings")  # as of the first source of classes
        places = seeds.distinct_of_sizes(address, index, self.counts[classes], self.most, per_class)
        examples = self.examples[self.starts[classes][..., None] + places]  # [T, N, K + Q, ...]
        if self._turns(split):
            quarter = seeds.words((seed, split, "rotations"), index, ways) % 4
            pixels = examples.flatten(-2)
            turned = self.turns[quarter][:, :, None, None].expand_as(pixels)
            examples = pixels.gather(-1, turned).view_as(examples)
            numbers = 4 * numbers + quarter  # a class that is turned is another one
        examples = self.transform(examples, seed, split, index).to(self.device)
        labels = torch.arange(ways, device=self.device).expand(len(index), -1)

        def with_labels(examples: Tensor) -> tuple[Tensor, Tensor]:
            numbers = examples.flatten(1, 2).float()
            x = numbers / 255 if examples.dtype == torch.uint8 else numbers
            return x, labels.repeat_interleave(examples.shape[2], dim=1)

        support, query = with_labels(examples[:, :, :shots]), with_labels(examples[:, :, shots:])
        return Task(*support, *query, keys(seed, split, index).to(self.device), numbers.to(self.device))

    def _turns(self, split: Split) -> bool:
        """Whether the classes of this split are turned."""
        return self.rotations == "all" or (self.rotations == "train" and split == "train")

    @property
    def train_classes(self) -> int:
        """The number of training classes, those that are turned included."""
        return self.split_sizes["train"] * (4 if self._turns("train") else 1)

    def identity(self) -> dict[str, str]:
        """See TaskSource."""
        counts = "\n".join(f"{name} {count}" for name, count in self.packed.counts.items())
        digest = hashlib.sha256(f"{self.packed.digest}\n{counts}".encode()).hexdigest()
        return {"split_hash": hash_splits({split: self.classes(split) for split in SPLITS}), "data_digest": digest}

    def facts(self) -> dict[str, Any]:
        """See TaskSource."""
        return {"name": self.name, **self.ways.facts(), **self.sizes.facts(), "more": self.details()}
