"""Which settings make a configuration the one it is, and which of them tell the rows of a table apart."""

import json
from typing import Any

from metarun.config.keys import leaves
from metarun.results.runs import ROUNDING, Run, among, is_place, key_of

# A configuration is everything but these and where it runs: who repeats it there, or with another seed, repeats it.
APART = ("seed", "checkpoint_every", "log_every")
ABSENT = object()  # a key that another algorithm has


def identity(run: Run) -> dict[str, Any]:
    """What makes a configuration the one it is, key by key; null is as good as absent, as in older saved configs."""
    leaf = leaves(run.config.plain())
    flat = {key: _canonical(value) for key, value in leaf if not among(APART, key) and not is_place(key)}
    return {key: value for key, value in flat.items() if value is not None and (value or key not in ROUNDING)}


def _canonical(value: Any) -> Any:
    """1.0 as 1: whoever types either means the same."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def differing(runs: list[Run]) -> list[dict[str, Any]]:
    """For each of these runs the keys that tell it from the others.

    Algorithms, task sources and learners are told apart by name, and their settings only where they differ under one
    name, or were typed; published experiments by their names, and beyond those by what was typed.
    """
    flat, kinds = [identity(run) for run in runs], [_kinds(run) for run in runs]
    named = all(run.experiment for run in runs)
    typed = {key_of(word) for run in runs for word in run.words}
    chosen: list[dict[str, Any]] = [{} for _ in runs]

    def tell(key: str, values: list[Any]) -> None:
        for row, value in zip(chosen, values, strict=True):
            row.update({} if value is ABSENT else {key: value})

    tell("experiment", [run.experiment or ABSENT for run in runs])
    if named and any(run.config.budget != 1 for run in runs):
        tell("budget", [run.config.budget for run in runs])
    for section in () if named else kinds[0]:
        if len({kind[section] for kind in kinds}) > 1:
            tell(section, [kind[section] for kind in kinds])
    for key in dict.fromkeys(key for one in flat for key in one):
        section, _, last = key.partition(".")
        values = [one.get(key, ABSENT) for one in flat]
        groups = [run.experiment if named else kind.get(section) for run, kind in zip(runs, kinds, strict=True)]
        of_group = {(group, repr(value)) for group, value in zip(groups, values, strict=True)}
        within = len(of_group) > len(set(groups))
        chosen_apart = key in typed and len(set(map(repr, values))) > 1
        if last != "_target_" and (chosen_apart or within):
            tell(key, values)
    for title, changed in (("changed", _changed), ("eval", _evaluated)):
        tell(title, [changed(run, row) or ABSENT for run, row in zip(runs, chosen, strict=True)])
    return chosen


def _changed(run: Run, keys: dict[str, Any]) -> str:
    """What was typed beside an experiment and has no column."""
    return " ".join(word for key, word in run.typed.items() if run.experiment and key not in keys)


def _evaluated(run: Run, keys: dict[str, Any]) -> str:
    """What an evaluation changed and has no column."""
    if run.evaluation and run.origin is None:
        return "of a run that is gone"
    rest = [f"{key}={json.dumps(value)}" for key, value in run.changes.items() if key not in keys]
    return " ".join(rest) if rest or not run.evaluation or run.changes else "again"


def _kinds(run: Run) -> dict[str, str]:
    """What the sections of a config are, by name."""
    plain = run.config.plain()
    classes = {name: str(plain[name].get("_target_", "")).rpartition(".")[2] for name in ("data", "model")}
    return {"algo": run.summary.get("algorithm", run.summary["title"].partition(" on ")[0]), **classes}
