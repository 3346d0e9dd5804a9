"""What a search by Optuna has to be before its first run starts."""

import logging

from hydra.core.override_parser.types import IntervalSweep

from metarun.compose import Source, parse, sweeper
from metarun.config import Config
from metarun.errors import UsageError

SEARCHES = {"sweep=optuna", "hydra/sweeper=optuna"}
SPACES = ("params", "search_space", "custom_search_space")  # where Hydra's settings may name what to choose


def check_search(words: list[str], configs: list[Config], source: Source) -> None:
    """Where these words start a search, whether there is something to search for, by what it may know.

    Raises:
        UsageError: there is not.
    """
    if not SEARCHES & set(words):
        return
    if any(config.objective == "test" for config in configs):
        raise UsageError("'test' (objective): expected val; a search must not see the test tasks")
    overrides = parse(words)
    settings = sweeper([o.input_line or "" for o in overrides if not o.is_sweep_override()], source)
    if not any(o.is_sweep_override() for o in overrides) and not any(settings.get(name) for name in SPACES):
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


def ranges(words: list[str]) -> list[tuple[str, float]]:
    """The keys that are to take values of a range, each with one of these.

    Raises:
        UsageError: nothing could choose from a range, or it is empty.
    """
    found = []
    for override in parse(words):
        value = override.value()
        if isinstance(value, IntervalSweep):
            if not SEARCHES & set(words):
                raise UsageError(
                    f"{override.input_line!r} (command line): a range is for a search; add -m sweep=optuna, or give "
                    f"values: -m {override.get_key_element()}=A,B"
                )
            if value.start is None or value.end is None or not value.start < value.end:
                raise UsageError(f"{override.input_line!r} (command line): expected interval(LESS,MORE)")
            found.append((override.get_key_element(), value.start))
    return found


def _quiet() -> None:
    """How each trial ended is said by its own run and in the closing lines; these would say it again, in colours."""
    import optuna

    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()  # what it warns of is still said
    logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.ERROR)
