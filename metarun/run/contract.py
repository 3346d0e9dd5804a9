"""The contract of a run's parts, checked on a few tasks before anything is trained.

Sources, learners and algorithms may be the user's own. Most of what they can do wrong would end in a wrong number, not
in an error: outputs of shape [Q] against targets of shape [Q, 1] broadcast, and a source that ignores `split` tests on
what it trained on. So what the docstrings of tasks.TaskSource, models.Learner and algos.Algorithm promise is tried out.

S support points, Q query points, K inner steps, N outputs.
"""

import copy
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metarun.algos.base import Algorithm
from metarun.config.own_code import class_name
from metarun.engine import loop
from metarun.engine.loop import Experiment
from metarun.models.functional import Params
from metarun.run.agreement import check_agreement
from metarun.run.learner_contract import check_learner, describe_doubts
from metarun.run.source_contract import check_source, find_leaks, refuse, refusing_global_draws
from metarun.run.summary import facts
from metarun.run.words import describe_source
from metarun.tasks import SPLITS, Split, Task, score
from metarun.text import reason

log = logging.getLogger("metarun")

FEW = 20_000  # numbers in the inputs of a task from which it is cut down to a point of each class


@dataclass
class Findings:
    """What the check saw, for people: lines by subject; and what may not be meant so, which is logged too."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    seconds: float = 0.0


def check_contract(experiment: Experiment, splits: Sequence[Split] = SPLITS, thorough: bool = False) -> Findings:
    """Tries out the parts of an experiment, whose source is prepared, on a few tasks of these splits.

    That vmap and loop agree is seen to for parts of the user's, and with `thorough` for all: those of metarun have a
    test, and Meta-LSTM takes ten seconds.

    Raises:
        UsageError: a part does not keep its contract.
        Exception: whatever the user's own code raises; see own_code.explain().
    """
    begin, found = time.perf_counter(), Findings()
    source, learner, algorithm = experiment.source, experiment.learner, experiment.algorithm
    tasks = check_source(source, experiment.seed, splits, experiment.device)
    if not is_metarun(source):
        found.doubts += find_leaks(source, experiment.seed, splits)
    found.lines += _describe_source(experiment, tasks)
    chosen = next(iter(tasks.values()))
    two = chosen.select(slice(0, 2))
    meta = _check_meta(experiment)
    with _without_traces(experiment, two, meta):
        if learner is not None:
            with refusing_global_draws(learner, "forward()"):
                found.lines.append(("learner", check_learner(experiment, two.select(0))))
            if not is_metarun(learner):
                found.doubts += describe_doubts(learner, source.metric, two.select(0).support_x, is_metarun(algorithm))
        with refusing_global_draws(algorithm, "meta_loss() or predictions()"):
            check = partial(_check_answers, experiment, meta, trains="train" in splits)
            few, predicted = _on_few_points(experiment, two, check)
        found.lines.append(("algorithm", f"{class_name(algorithm)}: {_count(meta)}, predictions {predicted}"))
    own = [class_name(part) for part in (algorithm, learner) if not is_metarun(part)]
    if (own or thorough) and experiment.engine.mode != "loop":
        subject = " with ".join(own) or class_name(algorithm)
        found.lines.append(("engine", check_agreement(subject, algorithm.at(1.0), meta, few)))
    for line in found.doubts:
        log.warning("%s", line, extra={"once": True})
    found.seconds = time.perf_counter() - begin
    return found


def _describe_source(experiment: Experiment, tasks: dict[Split, Task]) -> list[tuple[str, str]]:
    source, (record, *_) = experiment.source, facts(experiment)
    shape, number = list(source.input_shape), source.outputs
    lines = [("source", f"{class_name(source)}: {source.metric}, inputs {shape}, outputs [{number}]")]
    for split, task in tasks.items():
        low, high = float(task.support_x.min()), float(task.support_x.max())
        points = f"{task.support_x.shape[1]} support and {task.query_x.shape[1]} query points"
        lines.append((split, f"{points}, inputs from {low:.3g} to {high:.3g}"))
    lines.append(("facts", describe_source(record)))
    lines.append(("identity", ", ".join(f"{name}={value[:32]}" for name, value in source.identity().items())))
    return lines


def _check_meta(experiment: Experiment) -> Params:
    """The meta-parameters, on the device."""
    algorithm = experiment.algorithm
    meta: Any = algorithm.init()
    tensors = isinstance(meta, dict) and meta and all(isinstance(value, Tensor) for value in meta.values())
    if not tensors or not all(value.is_floating_point() for value in meta.values()):
        refuse(algorithm, "init() gives no floating tensors by name", "{name: tensor}, the meta-parameters")
    if bad := [name for name, value in meta.items() if not value.isfinite().all()]:
        refuse(algorithm, f"init() gives a {bad[0]} that is not finite", "numbers")
    for progress in (0.0, 0.5, 1.0):
        if not isinstance(stage := algorithm.at(progress), Algorithm):
            refuse(algorithm, f"at({progress}) gives a {type(stage).__name__}", "an algorithm, such as itself")
    try:
        copy.deepcopy(algorithm)  # as the engine does for its threads
    except Exception as error:
        rule = "an algorithm that copy.deepcopy() can copy: no files, locks or generators"
        refuse(algorithm, f"cannot be copied: {reason(error)}", rule)
    return loop.start(experiment).meta


def _check_answers(experiment: Experiment, meta: Params, tasks: Task, trains: bool) -> list[int]:
    """The shape of an algorithm's predictions, once they, and its meta-loss where it trains, are seen to be sound."""
    algorithm, task, outputs = experiment.algorithm, tasks.select(0), experiment.source.outputs
    stages = {id(stage): stage for stage in map(algorithm.at, (0.0, 1.0))} if trains else {}
    for stage in stages.values():
        _check_meta_loss(stage, meta, task)
    with torch.no_grad():
        given = algorithm.predictions(meta, task)
        queries = len(task.query_x)
        if not isinstance(given, Tensor) or given.dim() != 3 or list(given.shape[1:]) != [queries, outputs]:
            rule = f"[K+1, {queries}, {outputs}]: the query's outputs after 0, 1, ..., K inner steps"
            refuse(algorithm, f"predictions() of {_shape(given)}", rule)
        if not is_metarun(algorithm) and given.isnan().all():
            refuse(algorithm, "predictions() that are all nan", "numbers, for tasks as in training")
        if type(algorithm).adaptation_curve is not Algorithm.adaptation_curve:
            _check_curve(algorithm, meta, task, given)
        # With other answers in the query: what differs then has seen them, or is not repeatable.
        classes = not task.query_y.is_floating_point()
        answers = (task.query_y + 1) % outputs if classes else task.query_y + 1
        if not _same(algorithm.predictions(meta, task._replace(query_y=answers)), given):
            if not _same(algorithm.predictions(meta, task), given):
                refuse(algorithm, "other predictions for the same task", "a pure function of its arguments")
            refuse(algorithm, "predictions() depend on query_y", "none to see the answers that it is judged by")
        order = torch.arange(queries, device=task.query_x.device).flip(0).roll(int(queries > 2))
        turned = task._replace(query_x=task.query_x[order], query_y=task.query_y[order])
        if not _near(algorithm.predictions(meta, turned), given[:, order], 1e-3):
            rule = "the same in every order: places in the query may tell the classes"
            refuse(algorithm, "predictions() depend on the order of the query points", rule)
    return list(given.shape)


def _check_curve(algorithm: Algorithm, meta: Params, task: Task, predictions: Tensor) -> None:
    """Refuses an adaptation curve that is not the metric of the predictions."""
    curve, scores = algorithm.adaptation_curve(meta, task), [score(p, task.query_y) for p in predictions.unbind()]
    if not isinstance(curve, Tensor) or curve.shape != (len(scores),):
        refuse(algorithm, f"adaptation_curve() of {_shape(curve)}", f"[{len(scores)}], as predictions() has")
    if not _near(curve, torch.stack(scores), 1e-4):
        rule = f"the metric of predictions(), {torch.stack(scores).tolist()}"
        refuse(algorithm, f"adaptation_curve() gives {curve.tolist()}", rule)


def _check_meta_loss(algorithm: Algorithm, meta: Params, task: Task) -> None:
    """Refuses a meta-loss that is no scalar with a scalar metric, or has no gradient."""
    leaves = {name: value.detach().requires_grad_() for name, value in meta.items()}
    given: Any = algorithm.meta_loss(leaves, task)
    rule = "a scalar [] to lower and a scalar [] metric, such as means over the query points"
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        refuse(algorithm, f"meta_loss() gives {type(given).__name__}", rule)
    for name, value in zip(("loss", "metric"), given, strict=True):
        if not isinstance(value, Tensor) or value.shape != () or not value.is_floating_point():
            refuse(algorithm, f"meta_loss() gives a {name} of {_shape(value)}", rule)
    loss, metric = given
    if not task.query_y.is_floating_point() and metric.isfinite() and not 0 <= float(metric) <= 1:
        refuse(algorithm, f"meta_loss() gives an accuracy of {float(metric):.4g}", "a share from 0 to 1")
    grads = ()
    if loss.requires_grad:
        grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    if algorithm.trains and not any(grad is not None for grad in grads):
        rule = "one that depends on the meta-parameters; leave out detach(), item() and no_grad()"
        refuse(algorithm, "meta_loss() has no gradient", rule)
    if algorithm.trains and not any((grad != 0).any() for grad in grads if grad is not None):
        low, high = float(task.support_x.min()), float(task.support_x.max())
        classes = "give classes different examples, and " if not task.query_y.is_floating_point() else ""
        rule = f"one to learn by; {classes}scale inputs to about -1 to 1"
        refuse(algorithm, f"meta_loss() has a gradient of 0, for inputs from {low:.3g} to {high:.3g}", rule)


def _on_few_points(experiment: Experiment, tasks: Task, check: Callable[[Task], Any]) -> tuple[Task, Any]:
    """Tasks with few points and what a check gives for them; with all points where those few are not enough."""
    few = _cut(tasks, experiment.source.metric == "accuracy")
    if few is not tasks:
        try:
            return few, check(few)
        except Exception:  # an algorithm may count on the shots that its tasks have
            pass
    return tasks, check(tasks)


def _cut(tasks: Task, classes: bool) -> Task:
    """Large tasks with one support and one query point of each class, in regression with the first five."""
    if tasks.support_x[0].numel() + tasks.query_x[0].numel() <= FEW:
        return tasks

    def cut(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
        if not classes:
            return x[:, :5], y[:, :5]
        places = [[int((row == n).nonzero()[0, 0]) for n in row.unique()] for row in y]
        if len({len(row) for row in places}) > 1:
            return None
        index = torch.tensor(places, device=y.device)
        rows = torch.arange(len(y), device=y.device)[:, None]
        return x[rows, index], y[rows, index]

    support, query = cut(tasks.support_x, tasks.support_y), cut(tasks.query_x, tasks.query_y)
    return (
        tasks._replace(support_x=support[0], support_y=support[1], query_x=query[0], query_y=query[1])
        if support and query
        else tasks
    )


@contextmanager
def _without_traces(experiment: Experiment, tasks: Task, meta: Params) -> Iterator[None]:
    """Refuses parts that change the tasks, the meta-parameters, or the learner's weights and buffers."""
    own = [part for part in (experiment.learner, experiment.algorithm) if not is_metarun(part)]
    subject = own[0] if own else experiment.algorithm
    kept = [*tasks._asdict().items(), *meta.items(), *experiment.algorithm.model.state_dict().items()]
    before = [value.clone() for _, value in kept]
    yield
    for (name, value), old in zip(kept, before, strict=True):
        if not torch.equal(value.nan_to_num(), old.nan_to_num()):
            refuse(subject, f"a call changes {name} in place", "its arguments to stay as they are; copy first")


def is_metarun(part: object) -> bool:
    """Whether a part is one of metarun's own, or none."""
    return part is None or "." not in class_name(part)


def _count(meta: Params) -> str:
    return f"{sum(value.numel() for value in meta.values()):,} meta-parameters"


def _shape(value: Any) -> str:
    return f"shape {list(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"


def _same(a: Any, b: Tensor) -> bool:
    return isinstance(a, Tensor) and a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def _near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    scale = float(b.nan_to_num().abs().max())
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
