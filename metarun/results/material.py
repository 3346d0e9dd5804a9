"""The data and the code that runs are made of, where those tell apart what one config describes."""

import hashlib
import json
from collections.abc import Sequence

from metarun.results.runs import Run


def data_of(run: Run) -> str:
    """The data that a run was trained with and tested on, as digests; '' of what an older run does not know."""
    parts = [(e.data_digest or "", e.split_hash, e.first_tasks) for e in (run.trained_environment, run.environment)]
    return json.dumps(parts, sort_keys=True)


def code_of(run: Run) -> dict[str, str]:
    """The user's code that a run was trained and tested with: SHA-256 by module."""
    tested = {f"{name} in test": digest for name, digest in run.environment.code.items()} if run.evaluation else {}
    return run.trained_environment.code | tested


def describe_material(run: Run, alike: Sequence[Run]) -> dict[str, str]:
    """Cells by column: the data and the code of a run, as far as they tell it from others with the same settings.

    Data goes by its folder where each has its own, else by its digest.
    """
    found = {}
    if (number := len({data_of(other) for other in alike})) > 1:
        columns = (("data.root", _root), ("data digest", _digest), ("data digest", _digest_of_all))
        name, cell = next((n, cell) for n, cell in columns if len({cell(other) for other in alike}) == number)
        found[name] = cell(run)
    codes = [code_of(other) for other in alike]
    names = [name for name in sorted(set().union(*codes)) if len({code.get(name) for code in codes}) > 1]
    if names:
        found["code"] = ", ".join(f"{name} {code_of(run).get(name, 'unknown')[:12]}" for name in names)
    return found


def _root(run: Run) -> str:
    return str(run.config.data.get("root"))


def _digest(run: Run) -> str:
    return (run.environment.data_digest or "")[:12]


def _digest_of_all(run: Run) -> str:
    return hashlib.sha256(data_of(run).encode()).hexdigest()[:12]
