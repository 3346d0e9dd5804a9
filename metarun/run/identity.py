"""What a run is made of beside its config: its data and the user's code. Compared where a run goes on or is tested.

The config says what to read and which class to build, not what is in the files of today.
"""

import hashlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from metarun.config.keys import differing_keys, policy
from metarun.config.own_code import spell_target, within
from metarun.config.own_modules import hash_modules
from metarun.config.schema import Config
from metarun.config.targets import targets
from metarun.engine.loop import Experiment
from metarun.errors import RunDirError
from metarun.storage.records import Identity
from metarun.storage.rundir import RunDir
from metarun.tasks import SPLITS, Split, TaskSource
from metarun.text import short_path

FIRST_TASKS = 2  # of a split

log = logging.getLogger("metarun")


def identify(config: Config, experiment: Experiment, splits: Sequence[Split] = SPLITS) -> Identity:
    """The identity of an experiment that is prepared; `splits` are those of which it takes tasks."""
    named = experiment.source.identity()
    first = {} if named.get("data_digest") else digest_first_tasks(experiment.source, splits)
    return Identity.model_validate({**named, "code": hash_code(config), "first_tasks": first})


def hash_code(config: Config) -> dict[str, str]:
    """SHA-256 of the user's modules that a config needs, by name, as far as they are imported."""
    return hash_modules(str(name) for key, name in targets(config.plain(), "") if policy(key).digits)


def digest_first_tasks(source: TaskSource, splits: Sequence[Split]) -> dict[str, str]:
    """A digest of a few tasks by split; {} for a source of metarun's.

    Those are known by what they say of themselves, and what they generate by their settings. A source of the user's
    need not say what it has read: only its tasks show that. They are those of one seed, so that runs of several seeds
    can be compared, and of floats only the first 8 bits count: the last depend on the machine.
    """
    if within(type(source).__module__, ["metarun"]):
        return {}
    found = {}
    for split in splits:
        digest = hashlib.sha256()
        for tensor in source.sample(0, split, torch.arange(FIRST_TASKS)).examples():
            coarse = tensor.to(torch.bfloat16).view(torch.int16) if tensor.is_floating_point() else tensor
            digest.update(coarse.cpu().numpy().tobytes())
        found[split] = digest.hexdigest()
    return found


def describe_changes(before: Identity, now: Identity, trained: Config, config: Config) -> list[str]:
    """A phrase for each thing that is another now; of what only one of them knows, as of older runs, nothing is said.

    Tasks are compared where they have the same settings.
    """
    same = all(policy(key).resume for key in differing_keys({"data": trained.data}, {"data": config.data}))
    splits = [split for split in before.first_tasks if split in now.first_tasks and same]
    pairs = {
        "data": (before.data_digest, now.data_digest),
        "class split of the data": (before.split_hash, now.split_hash),
        **{f"{split} tasks of the data": (before.first_tasks[split], now.first_tasks[split]) for split in splits},
    }
    path = "file" if "file" in config.data else "root"
    roots = [config.data.get(path), trained.data.get(path)]
    root = f"data.{path}={roots[0]}" + (f", was {roots[1]}" if roots[0] != roots[1] else "")
    where = f" ({root})" if any(roots) else f" ({spell_target(config.data['_target_'])})"
    changed = [f"the {name}{where} {_pair(*pair)}" for name, pair in pairs.items() if all(pair) and len(set(pair)) > 1]
    return [*describe_code(before.code, now.code), *changed[:1]]  # what follows from other data is no news


def describe_code(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """A phrase for each module of the user's, by name and SHA-256, whose file is another now."""
    other = [name for name in before if now.get(name, before[name]) != before[name]]
    return [f"{_file_of(name)} {_pair(before[name], now[name])}" for name in other]


def _file_of(name: str) -> Path | str:
    file = getattr(sys.modules.get(name), "__file__", None)
    return short_path(Path(file)) if file else name


def _pair(before: str, now: str) -> str:
    return f"was {before[:12]}, is {now[:12]}"


def refuse_changes(rundir: RunDir, trained: Config, config: Config, experiment: Experiment) -> None:
    """Raises RunDirError where the data or the code is not what the run began with."""
    if changed := _changes(rundir, trained, config, experiment, SPLITS):
        raise RunDirError(
            f"{rundir.short}: {'; '.join(changed)}: expected what the run began with; bring that back, or start a new "
            f"run: metarun -cp {rundir.typed}/.hydra"
        )


def warn_of_changes(rundir: RunDir, trained: Config, config: Config, experiment: Experiment, other_data: bool) -> None:
    """Warns where the data or the code that a run is tested with is not what the run began with.

    `other_data` is whether its data is meant to be another, as in a test across domains.
    """
    before = rundir.environment()
    if other_data:
        changed = describe_code(before.code, hash_code(config)) if before else []
    else:
        changed = _changes(rundir, trained, config, experiment, ("test",))
    if changed:
        log.warning("%s: %s: the run began with another, and is tested with this", rundir.short, "; ".join(changed))


def _changes(
    rundir: RunDir, trained: Config, config: Config, experiment: Experiment, splits: Sequence[Split]
) -> list[str]:
    before = rundir.environment()
    return describe_changes(before, identify(config, experiment, splits), trained, config) if before else []
