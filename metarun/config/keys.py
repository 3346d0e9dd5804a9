"""What may be done with each key of a config: when it may change, where it acts. One table for all.

A dotted key has the policy of the longest row that it is, or lies below: `device.threads` that of `device`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a key of a config decides, and when it may change.

    Attributes:
        resume: whether a run may go on with another value. All other keys make the fingerprint of a run.
        reproduce: whether a reproduction may have another value: where it computes and reads.
        train: whether it acts in meta-training, validation included.
        evaluate: whether it acts in meta-testing. Where it does not, `metarun eval` refuses it.
        digits: whether another value may give other digits, where a run goes on with it.
        identity: whether two configurations that differ in it are two, in tables.
        published: whether it may be typed beside experiment=NAME and leaves that the published experiment.
        length: whether it decides how many outer steps there are.
        by_name: whether a saved config may take another choice by name, as in device=cpu.
    """

    resume: bool = False
    reproduce: bool = False
    train: bool = True
    evaluate: bool = True
    digits: bool = True
    identity: bool = True
    published: bool = False
    length: bool = False
    by_name: bool = False


_CADENCE = Policy(resume=True, evaluate=False, identity=False, published=True)
_PLACE = Policy(resume=True, reproduce=True, digits=False, identity=False, published=True)

KEYS = {
    "seed": Policy(identity=False, published=True),
    "meta_steps": Policy(resume=True, evaluate=False, length=True),
    "meta_batch": Policy(evaluate=False),
    "budget": Policy(resume=True, evaluate=False, published=True, length=True),
    "val_every": Policy(resume=True, evaluate=False, published=True),  # decides which checkpoint is best
    "val_tasks": Policy(evaluate=False, published=True),
    "test_tasks": Policy(train=False, published=True),
    "checkpoint_every": _CADENCE,
    "log_every": _CADENCE,
    "objective": Policy(evaluate=False, published=True),
    "algo": Policy(),
    "model": Policy(),
    "data": Policy(),
    "data.train_tasks": Policy(evaluate=False),
    "data.root": _PLACE,
    "data.file": Policy(resume=True, reproduce=True, digits=False),  # may move; but another table is another row
    "data.download": _PLACE,
    "device": Policy(resume=True, reproduce=True, identity=False, published=True, by_name=True),
    "device.tf32": Policy(resume=True, reproduce=True),  # rounding shows in results, so it is no mere place
    "engine": Policy(resume=True, identity=False, published=True, by_name=True),
    "engine.autocast": Policy(resume=True, evaluate=False),
    "logger": Policy(resume=True, evaluate=False, digits=False, identity=False, published=True, by_name=True),
    # Words of the command line that are no part of a run's config.
    "experiment": Policy(published=True),
    "sweep": Policy(identity=False, published=True),
    "zip": Policy(identity=False, published=True),
    "hydra": Policy(identity=False, published=True),
    "suggested": Policy(),
    "needs": Policy(),
}
HYDRA = {  # keys of Hydra's own that a user sets, and what they mean
    "hydra.run.dir": "folder of a run; else outputs/<date>/<time>",
    "hydra.sweep.dir": "folder of a sweep's runs; else outputs/sweeps/<date>/<time>",
    "hydra.sweep.subdir": "folder of each run in that of its sweep; else what its words say",
    "hydra/launcher": "where a sweep's runs compute: basic, one after the other; joblib, ray, submitit_slurm (extras)",
    "hydra.launcher.n_jobs": "with hydra/launcher=joblib, runs at a time",
    "hydra/sweeper/sampler": "of sweep=optuna: tpe, random, cmaes or grid",
    "hydra/sweeper/pruner": "of sweep=optuna: null, median or halving: ends bad trials early",
}
ENVIRONMENT = {  # variables that a user sets, and what they mean
    "METARUN_DATA": "the folder of data sets; else the user's cache folder",
    "METARUN_TRUST": "packages whose classes a config may name, with commas between them",
    "METARUN_DEBUG": "1: errors come with tracebacks",
    "METARUN_LOCK": "off: go on where a network disk has no locks; one process at a time may then write there",
}
# In runs of earlier versions, what a paper reports was a key of the config.
FORMER = {"published": Policy(resume=True, digits=False, identity=False, published=True)}

# Keys that runs of earlier versions lack, with the value that means what those did.
NEWER = {"data.train_tasks": None, "data.eval_ways": None, "data.split": None, "algo.head": "own"}
NEWER |= {"algo.write": "state", "algo.fast_layers": False}


def policy(key: str) -> Policy:
    """The policy of a dotted key; of one without a row, that nothing may be done with it."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        if found := (KEYS | FORMER).get(".".join(parts[:length])):
            return found
    return Policy()


def keys_that(question: str) -> list[str]:
    """The rows of the table whose policy answers this question with yes, such as `resume`; for messages."""
    rows = [key for key, found in KEYS.items() if getattr(found, question)]
    return [key for key in rows if key.rpartition(".")[0] not in rows]  # device says device.tf32 too


def key_of(word: str) -> str:
    """The dotted key of a word of the command line: algo of +algo@x=maml, hydra.launcher of hydra/launcher=joblib."""
    return word.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".")


def leaves(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a plain config, with their dotted keys, but for those that are as good as absent (see NEWER)."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        elif f"{prefix}{key}" not in NEWER or value != NEWER[f"{prefix}{key}"]:
            yield f"{prefix}{key}", value


def value_in_test(values: dict[str, Any], key: str) -> Any:
    """The value of a setting in the test, by the leaves of a config: that of training where there is no other."""
    section, found, name = key.partition(".eval_")
    value = values.get(key)
    return values.get(f"{section}.{name}") if found and section == "data" and value is None else value


def differing_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The dotted keys in which two plain configs differ; 1 and 1.0 do."""
    a, b = ({key: (value, type(value)) for key, value in leaves(plain)} for plain in (old, new))
    return [key for key in a | b if a.get(key) != b.get(key)]
