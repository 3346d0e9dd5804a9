"""STUB: classes.py on main has this rule."""

import hashlib

SPLITS = ("train", "val", "test")


def split_names(names, splits, split_seed):
    def digest(name: str) -> bytes:
        return hashlib.sha256(f"{split_seed}/{name}".encode()).digest()

    shuffled = sorted(sorted(names), key=digest)
    val, test = (round(share * len(shuffled)) for share in splits[1:])
    test = min(test, len(shuffled) - val)
    train = len(shuffled) - val - test
    return {"train": shuffled[:train], "val": shuffled[train : train + val], "test": shuffled[train + val :]}
