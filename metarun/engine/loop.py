"""Meta-training and meta-testing.

T tasks, K inner steps.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarun import seeds
from metarun.algos.base import Algorithm
from metarun.engine.chunking import Chunks
from metarun.engine.engine import Engine
from metarun.engine.processes import Processes
from metarun.errors import DivergedError
from metarun.intervals import Clusters, Evaluation, over_tasks
from metarun.models.functional import Params
from metarun.tasks import Metric, Split, Task, TaskSource, clusters_of
from metarun.text import count_of

EVAL_BATCH = 100  # tasks that are made at once in validation and test
AHEAD_STEPS, AHEAD_BYTES = 16, 1 << 20  # the most outer steps, and bytes, for which training tasks are drawn at once


@dataclass
class Experiment:
    """What is trained, on what, and how; built from a config, and never changed by a run."""

    algorithm: Algorithm
    source: TaskSource
    engine: Engine
    device: torch.device
    seed: int
    train_tasks: int | None = None  # the number of different training tasks; None: no two are the same
    learner: nn.Module | None = None  # with its head, which algorithm.model may lack; None: it is not to be checked
    processes: Processes = field(default_factory=Processes)


@dataclass
class State:
    """What meta-training changes."""

    meta: Params
    optimizer: torch.optim.Optimizer
    step: int = 0  # outer steps done
    chunks: Chunks | None = None  # of the engine


class OuterStep(NamedTuple):
    """One outer step, done: its number from 1, and averages over the tasks of its meta-batch before the update."""

    step: int
    loss: Tensor
    score: Tensor


def start(experiment: Experiment) -> State:
    """The state before the first outer step: what an algorithm draws for it depends on the experiment's seed alone."""
    with seeds.forked(experiment.seed, "meta-parameters"):
        meta = {name: value.to(experiment.device) for name, value in experiment.algorithm.init().items()}
    return State(meta, experiment.algorithm.optimizer(meta.values()))


def meta_train(experiment: Experiment, state: State, meta_steps: int, meta_batch: int) -> Iterator[OuterStep]:
    """Runs outer steps until `meta_steps` are done, and yields after each; `state` is then that step's.

    Outer step n takes the training tasks (n-1) meta_batch .. n meta_batch - 1, whatever happened before; modulo
    train_tasks, the experiment's or the algorithm's, where there is such a number. Of an algorithm that learns nothing
    in meta-training only the last is run, for its loss.

    Raises:
        DivergedError: the meta-loss or meta-gradient of a step is not finite. The state is then the step's before.
    """
    processes = experiment.processes
    if not experiment.algorithm.trains:
        state.step = max(state.step, meta_steps - 1)
    for mine, tasks in _draw(experiment, range(state.step, meta_steps), meta_batch):
        progress = state.step / meta_steps
        algorithm = experiment.algorithm.at(progress)
        gradient = experiment.engine.meta_gradient(algorithm, state.meta, tasks, state.chunks, meta_batch)
        grads = processes.sum(gradient.grads)
        losses, scores = (processes.join(part, meta_batch) for part in (gradient.losses, gradient.scores))
        if not torch.isfinite(losses.sum() + torch.stack([grad.sum() for grad in grads.values()]).sum()):
            found = processes.first_not_none(_first_not_finite(experiment.engine, algorithm, state, tasks, mine))
            what, where = found or ("the meta-gradient", "")
            remedy = _smaller_rates(algorithm, moved=state.step > 0)
            raise DivergedError(
                f"{what} is not finite (outer step {state.step + 1}{where}): expected numbers; try {remedy}"
            )
        for name, value in state.meta.items():
            value.grad = grads[name] if algorithm.meta_clip is None else grads[name].clone()  # it is clipped in place
        if algorithm.meta_clip is not None:
            _shorten(state.meta.values(), algorithm.meta_clip)
        for group in state.optimizer.param_groups:
            group["lr"] = algorithm.meta_lr_at(progress)
        state.optimizer.step()
        state.step += 1
        yield OuterStep(state.step, losses.mean(), scores.mean())


def _shorten(parameters: Iterable[nn.Parameter], most: float) -> None:
    """Shortens the gradient to that norm, if it is longer; also one whose squares float32 cannot hold."""
    parameters = list(parameters)
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(grads)
    if not torch.isfinite(norm):
        norm = nn.utils.get_total_norm([grad.double() for grad in grads])
    nn.utils.clip_grads_with_norm_(parameters, most, norm)


def _smaller_rates(algorithm: Algorithm, moved: bool) -> str:
    """What to try where numbers are not finite; `moved`: there was an outer step, whose rate may be to blame."""
    names = ("inner_lr", "meta_lr") if moved and algorithm.trains else ("inner_lr",)
    rates = [f"algo.{name}" for name in names if hasattr(algorithm, name)]
    return f"a smaller {' or '.join(rates)}" if rates else "settings of algo nearer to their defaults"


def _draw(experiment: Experiment, steps: range, meta_batch: int) -> Iterator[tuple[Tensor, Task]]:
    """For each outer step the numbers of its tasks that are this rank's, and the tasks.

    Small ones are drawn for several steps at once, which takes hardly longer than for one.
    """
    train_tasks = experiment.train_tasks or experiment.algorithm.train_tasks
    ahead = 1
    while steps:
        index = torch.arange(steps[0] * meta_batch, (steps[0] + len(steps[:ahead])) * meta_batch)
        if train_tasks is not None:
            index %= train_tasks
        mine = [experiment.processes.share(part) for part in index.split(meta_batch)]
        tasks = experiment.source.sample(experiment.seed, "train", torch.cat(mine))
        size = len(mine[0])
        for n, part in enumerate(mine):
            yield part, tasks.select(slice(n * size, (n + 1) * size))
        taken = sum(tensor.nbytes for tensor in tasks) // len(mine)
        steps, ahead = steps[len(mine) :], min(max(AHEAD_BYTES // max(taken, 1), 1), AHEAD_STEPS)


def _first_not_finite(
    engine: Engine, algorithm: Algorithm, state: State, tasks: Task, index: Tensor
) -> tuple[str, str] | None:
    """The first task whose loss or gradient is not finite, and the inner step; None if all are, each by itself."""
    for t, number in enumerate(index.tolist()):
        grads, losses, _ = engine.direct.meta_gradient(algorithm, state.meta, tasks.select(slice(t, t + 1)))
        finite = bool(torch.isfinite(losses).all())
        if finite and all(grad.isfinite().all() for grad in grads.values()):
            continue
        learners = list(algorithm.inner_loop(state.meta, tasks.select(t)))
        sound = [all(value.isfinite().all() for value in params.values()) for params in learners]
        after = f", after inner step {len(sound) - 1}" if len(sound) > 1 else ""
        where = after if all(sound) else f", inner step {sound.index(False)}"
        return f"the {'meta-gradient' if finite else 'meta-loss'} of training task {number}", where
    return None


def meta_test(
    experiment: Experiment,
    meta: Params,
    split: Split,
    tasks: int,
    chunks: Chunks | None = None,
    batch: int = EVAL_BATCH,
) -> Evaluation:
    """Evaluates meta-parameters on tasks 0 .. tasks - 1 of a split, made `batch` at a time. Changes nothing.

    Raises:
        DivergedError: a metric is not finite, so that no mean could be believed.
    """
    curves, queries = [], 0
    mine = experiment.processes.share(torch.arange(tasks))
    # A rank without a task takes one that counts for another rank: results have a shape and a device then.
    for index in (mine if len(mine) else torch.arange(1)).split(batch):
        some = experiment.source.sample(experiment.seed, split, index)
        queries = some.query_y.shape[1]
        curves.append(experiment.engine.adaptation_curves(experiment.algorithm, meta, some, chunks).double())
    joined = experiment.processes.join(torch.cat(curves)[: len(mine)], tasks).cpu()
    clusters = _find_clusters(experiment, split, tasks, batch)
    try:
        return evaluate(joined, split, experiment.source.metric, queries, clusters)
    except DivergedError as error:
        raise DivergedError(f"{error}; try {_smaller_rates(experiment.algorithm, moved=True)}") from error


def _find_clusters(experiment: Experiment, split: Split, tasks: int, batch: int) -> Clusters | None:
    """What tasks 0 .. tasks - 1 share: `batch` at a time, for each may take a number for every class of the split."""
    members = []
    for index in torch.arange(tasks).split(batch):
        if (found := clusters_of(experiment.source, experiment.seed, split, index)) is None:
            return None
        members += found.tolist()
    return Clusters(members)


def evaluate(curves: Tensor, split: str, metric: Metric, queries: int, clusters: Clusters | None = None) -> Evaluation:
    """Mean and 95% interval over tasks, of `queries` queries each, after each inner step, of [T, K+1] metrics."""
    if not torch.isfinite(curves).all():
        task, step = (~torch.isfinite(curves)).nonzero()[0].tolist()
        raise DivergedError(
            f"the metric of {split} task {task} is not finite after {count_of(step, 'inner step')}: expected a number"
        )
    answers = queries if metric == "accuracy" else None
    alone = [over_tasks(values, answers)[1] for values in curves.T.tolist()]
    ci95 = [over_tasks(values, answers, clusters)[1] for values in curves.T.tolist()] if clusters else alone
    mean, each = curves.mean(dim=0).tolist(), curves[:, -1].tolist()
    return Evaluation(mean, ci95, len(curves), each, queries, clusters, alone if clusters else None)


def snapshot(state: State) -> dict[str, Any]:
    """The state as tensors and plain values.

    Raises:
        DivergedError: a meta-parameter is not finite, or what the outer optimiser keeps of one. Adam's squares of
            gradients overflow first, and then leave their weight as it is for ever.
    """
    for name, value in state.meta.items():
        kept = {f"{key} of {name}": moment for key, moment in state.optimizer.state.get(value, {}).items()}
        for what, numbers in {name: value, **kept}.items():
            if isinstance(numbers, Tensor) and not numbers.isfinite().all():
                remedy = "a smaller algo.meta_lr" if what == name else "algo.meta_clip=10, or smaller rates"
                raise DivergedError(
                    f"{what} is not finite (after outer step {state.step}): expected numbers; try {remedy}"
                )
    return {"step": state.step, "meta": state.meta, "optimizer": state.optimizer.state_dict()}


def restore(state: State, saved: dict[str, Any]) -> None:
    """Makes the state that of a snapshot, which has to be of the same meta-parameters."""
    with torch.no_grad():
        for name, value in state.meta.items():
            value.copy_(saved["meta"][name])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.step = saved["step"]
