"""How names of classes or tasks are divided into training, validation and test, whatever the order of a file."""

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence

from metarun.errors import DataError, SettingError, at_least
from metarun.tasks import SPLITS, Split

FRACTIONS = (0.64, 0.16, 0.2)


def check_splitting(splits: Sequence[float], split_seed: int) -> None:
    """Raises SettingError for settings that split_names() cannot take."""
    at_least(0, split_seed=split_seed)
    numbers = [share for share in splits if type(share) in (int, float) and 0 <= share <= 1]
    if len(splits) != 3 or len(numbers) != 3 or abs(sum(numbers) - 1) > 1e-6:
        raise SettingError(
            list(splits), "splits", "three shares that add up to 1, for train, val and test: [0.6,0.2,0.2]"
        )


def shuffle_names(names: Iterable[str], split_seed: int) -> list[str]:
    """The names in an order that the seed decides, whatever order they come in."""

    def digest(name: str) -> bytes:
        return hashlib.sha256(f"{split_seed}/{name}".encode()).digest()

    return sorted(names, key=digest)


def split_names(names: Iterable[str], splits: Sequence[float], split_seed: int) -> dict[Split, list[str]]:
    """The names of each split, in an order that the seed decides; training has what rounding leaves over.

    Args:
        names: all of them, each once, in any order.
        splits: shares of train, val and test, which add up to 1.
        split_seed: another one makes other splits.
    """
    shuffled = shuffle_names(names, split_seed)
    val, test = (round(share * len(shuffled)) for share in splits[1:])
    test = min(test, len(shuffled) - val)
    train = len(shuffled) - val - test
    return {"train": shuffled[:train], "val": shuffled[train : train + val], "test": shuffled[train + val :]}


def check_names(names: Mapping[Split, Sequence[str]], known: Container[str]) -> None:
    """Raises DataError: a name is in two splits, or is none of those known."""
    split_of: dict[str, Split] = {}
    for split, listed in names.items():
        for name in listed:
            if name in split_of:
                raise DataError(f"class {name!r}: is in {split_of[name]} and in {split}: expected it once")
            if name not in known:
                raise DataError(f"class {name!r} of split {split}: has no examples: expected a class that is there")
            split_of[name] = split


def hash_splits(names: dict[Split, list[str]]) -> str:
    """SHA-256 over the names of all splits, in order."""
    return hashlib.sha256("\n\n".join("\n".join(names[split]) for split in SPLITS).encode()).hexdigest()
