"""What a trained run makes of a few test tasks, for people to look at: computed again from its checkpoint."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import vmap

from metarun.algos.base import Algorithm
from metarun.config.targets import build
from metarun.engine import loop
from metarun.engine.loop import Experiment
from metarun.errors import RunDirError
from metarun.models.functional import Params
from metarun.results.runs import Run
from metarun.run.build import build_experiment as assemble
from metarun.run.starting_point import newest_checkpoint, own_checkpoint, restore
from metarun.tasks import Task

SEARCHED = 100  # test tasks among which a solved one and one with a mistake are looked for
GRID = 200  # points of a function's picture
CPU = {"_target_": "metarun.engine.device.Device", "name": "cpu", "threads": None, "deterministic": True, "tf32": False}


class NoCheckpointsError(RunDirError):
    """A run was copied without them, as published ones are."""


@dataclass
class Example:
    """One test task.

    Attributes:
        number: of the test task.
        task: its points; functions have their queries on a grid.
        predictions: [K+1, Q, N] after each inner step.
        picture: what it can be shown as: `images` or `function`.
    """

    number: int
    task: Task
    predictions: Tensor
    picture: str


def examples(run: Run) -> list[Example]:
    """Test tasks: of images the first that was solved and the first with a mistake; of functions numbers 0 and 1.

    None of an evaluation, which has no checkpoint of its own, and none of tasks that have no picture.

    Raises:
        NoCheckpointsError: there are none.
        MetarunError: they are damaged, or the data is gone.
    """
    data = run.config.data | ({"download": False} if "download" in run.config.data else {})
    source = build("data", data)
    grid = getattr(source, "on_grid", None)
    if run.evaluation or (grid is None and len(source.input_shape) != 3):
        return []
    if not run.rundir.checkpoints.is_dir() or (newest := newest_checkpoint(run.rundir, run.config)) is None:
        raise NoCheckpointsError("has no checkpoint; the pictures need one")
    device = {**CPU, "threads": run.config.device.get("threads")}
    experiment = assemble(replace(run.config, data=data, device=device))
    experiment.source.prepare(experiment.device)
    state = loop.start(experiment)
    restore(experiment, state, own_checkpoint(run.rundir, run.config, newest["best"][0]))
    if grid is not None:
        index = torch.arange(2)
        tasks = grid(run.config.seed, "test", index, GRID)
        return _examples(experiment.algorithm, state.meta, tasks, index, "function")
    return _images(experiment, state.meta, run.config.test_tasks)


def _examples(algorithm: Algorithm, meta: Params, tasks: Task, index: Tensor, picture: str) -> list[Example]:
    with torch.no_grad():
        outputs = vmap(algorithm.predictions, in_dims=(None, 0))(meta, tasks)
    return [Example(int(n), tasks.select(t), outputs[t], picture) for t, n in enumerate(index)]


def _images(experiment: Experiment, meta: Params, tasks: int) -> list[Example]:
    found: dict[bool, Example] = {}  # by whether all was right
    for index in torch.arange(min(SEARCHED, tasks)).split(10):
        some = experiment.source.sample(experiment.seed, "test", index)
        for example in _examples(experiment.algorithm, meta, some, index, "images"):
            right = example.predictions[-1].argmax(dim=-1) == example.task.query_y
            found.setdefault(bool(right.all()), example)
        if len(found) == 2:
            break
    return sorted(found.values(), key=lambda example: example.number)
