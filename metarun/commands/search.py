"""What a search by Optuna has to be before its first run starts."""

import logging
from typing import Any

from hydra.core.override_parser.types import IntervalSweep

from metarun.config.compose import Source, parse, sweeper
from metarun.config.schema import Config
from metarun.errors import UsageError

SPACES = ("params", "search_space", "custom_search_space")  # where Hydra's settings may name what to choose


def check_search(words: list[str], configs: list[Config], source: Source) -> None:
    """Where these words start a search by Optuna, whether there is something to search for, by what it may know.

    Raises:
        UsageError: there is not.
    """
    settings = _sweeper(words, source)
    if not settings.get("_target_", "").endswith("OptunaSweeper"):
        return
    if any(config.objective == "test" for config in configs):
        raise UsageError("'test' (objective): expected val; a search must not see the test tasks")
    if not any(o.is_sweep_override() for o in parse(words)) and not any(settings.get(name) for name in SPACES):
        raise UsageError(
            "'sweep=optuna' (command line): nothing to choose; give a key a range, such as "
            "'algo.inner_lr=interval(1e-3,1e-1)'"
        )
    for name in ("n_trials", "n_jobs"):
        number = settings.get(name, 1)
        if not isinstance(number, int) or number < 1:
            raise UsageError(f"{number} (hydra.sweeper.{name}): expected at least 1")
    share = settings.get("max_failure_rate", 1.0)
    if not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise UsageError(f"{share} (hydra.sweeper.max_failure_rate): expected a share from 0 to 1")
    _quiet()


def ranges(words: list[str], source: Source) -> list[tuple[str, float]]:
    """The keys that are to take values of a range, each with one of these.

    Raises:
        UsageError: nothing could choose from a range, or it is empty.
    """
    found = [(override, override.value()) for override in parse(words)]
    found = [(override, value) for override, value in found if isinstance(value, IntervalSweep)]
    for override, value in found:
        if _sweeper(words, source).get("_target_", "").endswith("BasicSweeper"):
            raise UsageError(
                f"{override.input_line!r} (command line): a range is for a search; add -m sweep=optuna, or give "
                f"values: -m {override.get_key_element()}=A,B"
            )
        if value.start is None or value.end is None or not value.start < value.end:
            raise UsageError(f"{override.input_line!r} (command line): expected interval(LESS,MORE)")
    return [(override.get_key_element(), value.start) for override, value in found if value.start is not None]


def _sweeper(words: list[str], source: Source) -> dict[str, Any]:
    """The settings of the sweeper that these words choose."""
    return sweeper(tuple(o.input_line or "" for o in parse(words) if not o.is_sweep_override()), source)


def _quiet() -> None:
    """How each trial ended is said by its own run and in the closing lines; these would say it again, in colours."""
    import optuna

    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()  # what it warns of is still said
    logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.ERROR)
