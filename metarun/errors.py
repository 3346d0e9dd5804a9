"""What can go wrong, each with its exit code, and the checks that constructors make of their settings.

Every message is one line: WHAT (WHERE): what was expected; what to do.
"""

import math
from collections.abc import Iterable
from typing import Any

from metarun.text import nearest, spell


class MetarunError(Exception):
    """Anything that metarun itself reports; `code` is the exit code of the command."""

    code = 1


class UsageError(MetarunError):
    """The command line or the config is wrong."""

    code = 2


class DataError(MetarunError):
    """The data is missing, incomplete or altered."""

    code = 3


class RunDirError(MetarunError):
    """A run directory or a checkpoint cannot be written, read or trusted."""

    code = 4


class DivergedError(MetarunError):
    """A loss, a meta-gradient or a metric is no longer finite.

    Attributes:
        objective: the validation, where only the test was not finite: a search must not see that.
    """

    code = 5
    objective: float | None = None


class MemoryShortError(MetarunError):
    """The tasks that are computed at once do not fit into memory."""


class ProcessEndedError(MetarunError):
    """Another process of the same run is gone."""


class DiffersError(MetarunError):
    """A reproduction differs from its original."""

    code = 6


class StoppedError(MetarunError):
    """A signal stopped the run. In meta-training a checkpoint was saved first."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.code = 128 + signum


class SettingError(ValueError):
    """A constructor was given a value outside its range.

    Args:
        value: what was given.
        name: the argument's name; config.targets.build() puts the section before it.
        expected: the rule, and where it helps the remedy.
    """

    def __init__(self, value: Any, name: str, expected: str):
        super().__init__(f"{spell(value)} ({name}): expected {expected}")
        self.value, self.name, self.expected = value, name, expected


def positive(name: str, value: float) -> None:
    """Raises SettingError unless value is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise SettingError(value, name, "a finite number above 0")


def at_least(least: int, **values: int) -> None:
    """Raises SettingError unless every value is an integer of at least `least`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SettingError(value, name, f"an integer of at least {least}")


def boolean(**values: bool) -> None:
    """Raises SettingError unless every value is true or false."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise SettingError(value, name, "true or false")


def one_of(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raises SettingError unless value is one of the choices."""
    choices = list(choices)
    if value not in choices:
        raise SettingError(value, name, f"one of {', '.join(choices)}{nearest(str(value), choices)}")
