"""What a search chooses from: the values of its words, as Optuna's distributions, and the jobs to check before it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from metarun.config.folders import ConfigFolders
from metarun.config.overrides import Overrides, combinations
from metarun.config.typecheck import takes_integers
from metarun.errors import UsageError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def cover(overrides: Overrides, folders: ConfigFolders) -> list[list[str]]:
    """Words of jobs for the checks before a search: every combination of chosen files, with every value of other keys.

    Not every combination of values, of which there can be millions; of a range both ends. Raises UsageError for a range
    that a search cannot have.
    """
    files = [override for override in overrides.parsed if override.input_line in overrides.choices]
    rest = [word for word in overrides.fixed if word not in overrides.choices]
    values = [_ends(override, folders) for override in overrides.sweeps if override not in files]
    rows = range(max(map(len, values), default=1))
    return [
        [*words, *rest, *(words_of[row % len(words_of)] for words_of in values)]
        for words in combinations(Overrides(files, [], [], []), folders)
        for row in rows
    ]


def words_of(override: Override, folders: ConfigFolders) -> list[str]:
    """The words for the values of a sweep that is no interval, in order."""
    return [word for [word] in combinations(Overrides([override], [], [override], []), folders)]


def _ends(override: Override, folders: ConfigFolders) -> list[str]:
    """The words for all values of a sweep; for the ends of an interval or a range."""
    key, value, word = override.get_key_element(), override.value(), override.input_line
    if not isinstance(value, IntervalSweep):
        found = words_of(override, folders)
        return [found[0], found[-1]] if isinstance(value, RangeSweep) else found
    low, high = value.start, value.end
    if low is None or high is None or not -math.inf < low < high < math.inf:
        raise UsageError(f"{word!r} (command line): expected two numbers, the smaller first: {key}=interval(1,3)")
    if value.tags - {"log"}:
        raise UsageError(f"{word!r} (command line): expected no tag but log: {key}=tag(log, interval(1e-3, 1))")
    if value.tags and low <= 0:
        raise UsageError(f"{word!r} (command line): expected a range above 0, for 0 has no logarithm")
    # Hydra's ends are floats, and an integer is right for every key that takes them.
    return [f"{key}={int(end) if float(end).is_integer() else end}" for end in (low, high)]


def distribution_of(override: Override, folders: ConfigFolders, reference: dict[str, Any]) -> BaseDistribution:
    """What Optuna draws the values of a sweep from, each as it is written in a word.

    In an interval of a key that takes integers, by the reference, a plain config, lie integers.
    """
    from optuna import distributions

    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        ends, now = (value.start, value.end), _look_up(reference, key)
        cast = all(isinstance(end, int) for end in ends) and not isinstance(now, float)  # int(interval(1,3))
        integers = takes_integers(key.lstrip("+"), reference)
        whole = cast or (integers and all(float(end).is_integer() for end in ends))
        kind = int if whole else float
        name = ("Int" if kind is int else "") + ("LogUniform" if value.tags else "Uniform")
        return getattr(distributions, f"{name}Distribution")(kind(value.start), kind(value.end))
    found = [word.partition("=")[2] for word in words_of(override, folders)]
    if isinstance(value, RangeSweep) and not value.shuffle and isinstance(value.step, int) and found[0].isdecimal():
        low, high = sorted((int(found[0]), int(found[-1])))
        return distributions.IntUniformDistribution(low, high, step=abs(value.step))
    return distributions.CategoricalDistribution(found)


def _look_up(plain: dict[str, Any], key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    node: Any = plain
    for part in key.lstrip("+").split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node
