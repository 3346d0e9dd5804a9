"""Short texts from a table of the user's, such as names: whose are they? The classes of the target make N-way tasks.

    x_l  =  one-hot of symbol l of the text, over the symbols of the training classes and one more for all others

Symbols are characters in Unicode's composed form (NFC). Behind the end of a text all is zero.

T tasks, N ways, E texts of a class (support and query), L symbols of a text, V different symbols.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metarun.data.classes import ClassSource
from metarun.data.frames import labels
from metarun.data.inputs import encode_text, number_symbols
from metarun.data.rows import Rows
from metarun.data.splitting import FRACTIONS, split_names
from metarun.errors import DataError, at_least
from metarun.tasks import Split
from metarun.text import count_of

LONGEST = 64  # symbols of a text, where data.length does not say

log = logging.getLogger("metarun")


class Texts(ClassSource):
    """N-way K-shot classification of short texts.

    Args:
        file: CSV, TSV, Parquet or .npz.
        text: the column of the texts.
        target: the column of their classes.
        length: L, where longer texts are cut; None: as the longest of the training classes, at most 64.
        symbols: how many of the training classes' symbols have a place of their own: the most frequent ones.
        ways: N, at most the classes of a split.
        shots: K, support texts of each class.
        queries: query texts of each class; None: as many as shots.
        eval_shots: K in validation and test; None: as in training.
        eval_queries: Q in validation and test; None: as in training.
        eval_ways: N in validation and test; None: as in training.
        splits: shares of the classes in train, val and test.
        split_seed: shuffles the sorted classes before they are split.
    """

    name = "text"

    def __init__(
        self,
        file: str | None = None,
        text: str | None = None,
        target: str | None = None,
        length: int | None = None,
        symbols: int = 500,
        ways: int = 3,
        shots: int = 5,
        queries: int | None = None,
        eval_shots: int | None = None,
        eval_queries: int | None = None,
        eval_ways: int | None = None,
        splits: Sequence[float] = FRACTIONS,
        split_seed: int = 0,
    ):
        sizes = (ways, shots, queries, eval_shots, eval_queries, eval_ways)
        super().__init__(*sizes, splits=splits, split_seed=split_seed)
        self.rows = Rows(file, {"text": text, "target": target}, features=())
        at_least(1, symbols=symbols, **({} if length is None else {"length": length}))
        self.given_length, self.most_symbols = length, symbols

    @cached_property
    def _texts(self) -> dict[str, list[str]]:
        """The texts of each class."""
        frame = self.rows.frame
        words = labels(frame[self.rows.roles["text"]]).map(lambda text: unicodedata.normalize("NFC", text))
        return {name: list(group) for name, group in words.groupby(labels(frame[self.rows.roles["target"]]))}

    def class_splits(self) -> Mapping[Split, Sequence[str]]:
        """See ClassSource."""
        return split_names(self._texts, self.splits, self.split_seed)

    @cached_property
    def _training(self) -> list[str]:
        """The texts of the training classes."""
        found = [text for name in self.classes("train") for text in self._texts[name]]
        if not found:
            raise DataError(f"{count_of(len(self._texts), 'class')} (data.target): expected classes for each split")
        return found

    @cached_property
    def length(self) -> int:
        """L."""
        return self.given_length or min(LONGEST, max(map(len, self._training)))

    @cached_property
    def symbols(self) -> str:
        """The symbols that have a place of their own, the most frequent first."""
        counts = Counter("".join(self._training))
        return "".join(sorted(counts, key=lambda symbol: (-counts[symbol], symbol))[: self.most_symbols])

    @property
    def input_shape(self) -> tuple[int, int]:
        """(L, V)."""
        return self.length, len(self.symbols) + 1

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """[n, L] int16: the number of each symbol from 1 on, V for all that are not known, 0 behind the end."""
        symbols = number_symbols(self.symbols)
        return np.stack([encode_text(text, symbols, self.length) for text in texts])

    def load(self) -> dict[str, np.ndarray]:
        """See ClassSource. Symbols are one-hot in tasks only, as that takes up much memory."""
        return {name: self.encode(texts) for name, texts in self._texts.items()}

    def transform(self, examples: Tensor, seed: int, split: Split, index: Tensor) -> Tensor:
        """See ClassSource: [T, N, E, L] numbers of symbols become [T, N, E, L, V] float32."""
        return F.one_hot(examples.long(), self.input_shape[1] + 1)[..., 1:].float()

    def prepare(self, device: torch.device) -> None:
        """See TaskSource."""
        super().prepare(device)
        self._warn_of_copies()
        cut = sum(len(text) > self.length for texts in self._texts.values() for text in texts)
        others = len({*"".join(self._training)}) - len(self.symbols)
        shared = f", {others} rarer ones share a place" if others else ""
        notes = f"; {count_of(cut, 'text')} cut after {count_of(self.length, 'symbol')}" if cut else ""
        log.info("text: %s%s%s%s", count_of(len(self.symbols), "symbol"), shared, notes, self.rows.note)

    def _warn_of_copies(self) -> None:
        copies = [
            f"{text!r} of {name}"
            for name, texts in self._texts.items()
            for text, count in Counter(texts).items()
            if count > 1
        ]
        if copies:
            more = f" and {len(copies) - 1} more" if copies[1:] else ""
            log.warning(
                f"{copies[0]} is there more than once{more} (data.file): expected different texts in a class, for a "
                "task may ask for an example that it has shown; remove the copies"
            )

    def details(self) -> dict[str, Any]:
        """See ClassSource."""
        return {**super().details(), "length": self.length, "symbols": len(self.symbols)}

    def identity(self) -> dict[str, str]:
        """See TaskSource."""
        return super().identity() | {"data_digest": self.rows.digest}

    def preprocessing(self) -> dict[str, Any]:
        """What is done with new texts, as plain data for JSON."""
        columns = {"text": self.rows.roles["text"], "target": {"name": self.rows.roles["target"]}}
        return {"kind": "text", **columns, "symbols": self.symbols}
