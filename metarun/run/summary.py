"""Builds the records of summary.json and test_tasks.json; their shapes are in storage/records.py."""

import hashlib

import torch

from metarun.algos.base import Algorithm
from metarun.config.schema import Config
from metarun.engine.loop import EVAL_BATCH, Experiment, State
from metarun.intervals import Evaluation
from metarun.models import learner as learners
from metarun.storage.records import (
    TASK_DIGITS,
    Checkpoint,
    Clusters,
    EarlierTest,
    Inner,
    Learner,
    Point,
    Source,
    Summary,
    Tasks,
    Test,
    Trained,
    Training,
)


def summarize(
    config: Config,
    experiment: Experiment,
    state: State,
    result: Evaluation,
    *,
    choices: dict[str, str],
    steps: int | None = None,
) -> Summary:
    """The facts that a run and an evaluation have in common.

    Config, experiment, state and result are of the test, choices Hydra's by group. An evaluation gives the outer
    steps that the run has done so far.
    """
    algorithm, metric, model = experiment.algorithm, experiment.source.metric, experiment.algorithm.model
    assert isinstance(model, learners.Learner)
    unclustered = result.unclustered or [None] * len(result.mean)
    points = [
        Point(mean=mean, ci95=ci95, unclustered=alone)
        for mean, ci95, alone in zip(result.mean, result.ci95, unclustered, strict=True)
    ]
    test = Test(**dict(points[-1]), tasks=result.tasks, by_step=points, clusters=_describe_clusters(experiment, result))
    learner = Learner(name=type(model.network).__name__, form=model.form, norm=model.norm)
    source, inner, details = facts(experiment)
    return Summary(
        choices=choices,
        algorithm=algorithm.name,
        source=source,
        learner=learner if algorithm.uses_learner else None,
        inner=inner,
        details=details,
        training=training_of(config, algorithm, steps),
        checkpoint=Checkpoint(step=state.step),
        parameters=sum(value.numel() for value in state.meta.values()),
        metric=metric,
        tests={metric: test},
    )


def training_of(config: Config, algorithm: Algorithm, steps: int | None = None) -> Training:
    """How long a run trains: all its outer steps, or so many of them."""
    return Training(
        steps=config.outer_steps if steps is None else steps,
        outer_steps=config.outer_steps,
        meta_batch=config.meta_batch,
        meta_steps=config.meta_steps,
        budget=config.budget,
        trains=algorithm.trains,
    )


def _describe_clusters(experiment: Experiment, result: Evaluation) -> Clusters | None:
    """What the tasks of a test share; None where they are independent."""
    if result.clusters is None:
        return None
    kind = getattr(experiment.source, "clustered_by", "clusters")
    return Clusters(kind=kind, number=result.clusters.number, in_task=len(result.clusters.members[0]))


def earlier_tests(before: Summary | None, outer_steps: int) -> list[EarlierTest]:
    """All tests that a run had before the one after these outer steps, given its summary so far."""
    if before is None:
        return []
    return before.earlier if before.steps == outer_steps else before.tests_so_far


def facts(experiment: Experiment) -> tuple[Source, Inner | None, dict[str, str]]:
    """The task source, the inner loop, and further details by name."""
    algorithm, source = experiment.algorithm, experiment.source
    inner = algorithm.inner(source)
    tasks = Source(**source.facts()).model_copy(update={"train_tasks": experiment.train_tasks})
    return tasks, Inner(**inner) if inner else None, algorithm.details(source)


def compare_training(trained: Experiment, tested: Experiment, other_data: bool = False) -> Trained | None:
    """The facts of training that differ from those of the test; None where all are the same.

    `other_data` is whether the test has other data, which facts need not show.
    """
    (source, inner, details), now = facts(trained), facts(tested)
    source = _as_trained(source)
    found = Trained(
        source=source if other_data or source != _as_trained(now[0]) else None,
        inner=inner if inner != now[1] else None,
        details={name: value for name, value in details.items() if now[2].get(name) != value},
        norm=norm if (norm := _norm_of(trained)) != _norm_of(tested) else None,
        other_data=other_data,
    )
    return found if found != Trained() else None


def _norm_of(experiment: Experiment) -> str:
    assert isinstance(experiment.algorithm.model, learners.Learner)
    return experiment.algorithm.model.norm


def _as_trained(source: Source) -> Source:
    """The facts of its training tasks."""
    ways, shots, queries = source.train_ways or source.ways, source.train_shots, source.train_queries
    return source.model_copy(update={"ways": ways, "train_ways": None, "shots": shots, "queries": queries})


def test_tasks_of(experiment: Experiment, result: Evaluation) -> Tasks:
    """The metric of every test task, with a digest of the tasks, and short ones of each."""
    digest, each_digest = hashlib.sha256(), []
    for index in torch.arange(result.tasks).split(EVAL_BATCH):
        tasks = experiment.source.sample(experiment.seed, "test", index)
        parts = [tensor.cpu().numpy() for tensor in tasks.examples()]
        for part in parts:
            digest.update(part.tobytes())
        for task in zip(*parts, strict=True):
            each_digest.append(hashlib.sha256(b"".join(part.tobytes() for part in task)).hexdigest()[:TASK_DIGITS])
    return Tasks(
        metric=experiment.source.metric,
        digest=digest.hexdigest(),
        each_digest="".join(each_digest),
        inner_steps=len(result.mean) - 1,
        queries=result.queries,
        each=result.each,
        clusters=result.clusters.members if result.clusters else None,
    )
