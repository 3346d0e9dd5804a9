"""The jobs of a sweep: every combination of the values on the command line and of those that files bring.

A file brings values in hydra.sweeper.params, as conf/sweep/seeds.yaml does, for the jobs that choose it. Keys that are
zipped take their values together, the first with the first: zip=[algo.inner_lr,algo.meta_lr], or a list of such lists.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from metarun.config.folders import ConfigFolders
from metarun.config.overrides import ZIP, check_zipped, combinations, parse
from metarun.config.through_hydra import hydra_settings, reference_config
from metarun.errors import UsageError
from metarun.text import spell


def expand(words: list[str], folders: ConfigFolders) -> list[list[str]]:
    """The words of each job.

    Raises:
        UsageError: a word has no values; or a file brings values of a key that is given another one; or the keys that
            are zipped have different numbers of values.
    """
    typed = [override for override in parse(words, folders).parsed if override.get_key_element().lstrip("+") == ZIP]
    words = [word for word in words if word not in [override.input_line for override in typed]]
    return list(_expand(words, folders, _lists(typed[0].value() if typed else None), {}))


def _expand(
    words: list[str], folders: ConfigFolders, zipped: list[list[str]], added: dict[str, Any]
) -> Iterator[list[str]]:
    """See expand(); `added` is what files have brought so far."""
    overrides = parse(words, folders)
    check_zipped(overrides, folders, zipped)
    # A file decides which keys there are, and brings values: so first the combinations of files,
    for job in combinations(overrides, folders, zipped, only_choices=True):
        rest = parse(job, folders)
        swept = [override.get_key_element().lstrip("+") for override in rest.sweeps]
        left = [keys for keys in zipped if keys[0] in swept]
        brought = _brought(rest.parsed, folders)
        more = {key: value for key, value in brought.items() if added.get(key) != value}
        if more:
            left += _lists(more.pop(ZIP, None))
            job = [*(f"{key}={value}" for key, value in more.items()), *job]
            yield from _expand(job, folders, left, added | brought)
        else:  # then those of all other values
            yield from combinations(rest, folders, left)


def settings_for_all(overrides: Iterable[Override], folders: ConfigFolders) -> DictConfig:
    """Hydra's own settings, as far as the words that have one value decide them."""
    return hydra_settings(_deciding(overrides, folders), folders)


def _deciding(overrides: Iterable[Override], folders: ConfigFolders) -> tuple[str, ...]:
    """The words that decide what files bring: they choose one, or are Hydra's own."""
    found = parse([o.input_line for o in overrides if not o.is_sweep_override()], folders)  # pyright: ignore
    return tuple(o.input_line for o in found.parsed if o.input_line in found.choices or o.is_hydra_override())


def _brought(overrides: Iterable[Override], folders: ConfigFolders) -> dict[str, Any]:
    """What files bring to a sweep: values by key, and under `zip` the keys that take them together."""
    words = _deciding(overrides, folders)
    params = hydra_settings(words, folders).sweeper.get("params") or {}
    brought: Any = OmegaConf.to_container(OmegaConf.create(params))
    together = reference_config(words, folders).get(ZIP)
    return brought | ({ZIP: together} if together else {})


def _lists(zipped: Any) -> list[list[str]]:
    """The lists of keys that the setting `zip` names."""
    if zipped is None:
        return []
    lists = zipped if isinstance(zipped, list) and all(isinstance(keys, list) for keys in zipped) else [zipped]
    if not all(isinstance(keys, list) and len(keys) > 1 and all(type(key) is str for key in keys) for keys in lists):
        raise UsageError(
            f"{spell(zipped)} ({ZIP}): expected two keys or more, as in {ZIP}=[algo.inner_lr,algo.meta_lr]"
        )
    return lists
