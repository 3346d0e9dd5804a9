"""What a search by Optuna has to be before its first run starts."""

import logging

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
    _quiet()


def _quiet() -> None:
    """How each trial ended is said by its own run and in the closing lines; these would say it again, in colours."""
    import optuna

    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()  # what it warns of is still said
    logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.ERROR)
