"""An experiment: built from a config, put into the state of a checkpoint, and described.

What training (run.py) and looking at a trained run again (rerun.py) have in common.
"""

import hashlib
import inspect
from typing import Any

import torch

from metarun import seeds
from metarun.algos.base import Algorithm
from metarun.config.schema import Config
from metarun.config.targets import build
from metarun.engine import loop
from metarun.engine.device import environment
from metarun.engine.loop import Evaluation, Experiment, State
from metarun.engine.ranks import count
from metarun.errors import RunDirError, SettingError, UsageError
from metarun.run.words import describe_inner, describe_source
from metarun.storage import checkpoint
from metarun.storage.records import Inner, Source
from metarun.storage.rundir import RunDir

MEASURING_TASKS = 3  # what the engine wants to see before it chooses its chunks
EVAL_BATCH = 100  # tasks that are made at once in validation and test


def assemble(config: Config) -> Experiment:
    """Builds everything that a config names, and reads nothing; the source has yet to be prepared.

    Raises:
        UsageError: a setting is refused.
    """
    device = build("device", config.device).set_up()
    if config.meta_batch < count():
        raise UsageError(
            f"{config.meta_batch} (meta_batch): expected at least {count()}, a task for each process of torchrun"
        )
    source = build("data", config.data)
    engine = build("engine", config.engine)
    with seeds.forked(config.seed, "init"):
        model = build("model", config.model, input_shape=source.input_shape, outputs=source.outputs)
        algorithm = build("algo", config.algo, model=model)
    engine.check(algorithm, config.outer_steps)
    try:
        algorithm.check(source, config.meta_batch)
    except SettingError as error:
        raise UsageError(str(error)) from error
    try:
        optimizer = algorithm.optimizer(algorithm.init().values())
    except (TypeError, ValueError) as error:
        raise UsageError(f"algo.meta_optimizer: cannot be built: {error}") from error
    if inspect.signature(optimizer.step).parameters["closure"].default is inspect.Parameter.empty:
        name = type(optimizer).__name__
        raise UsageError(f"{name} (algo.meta_optimizer): expected an optimiser that steps by a gradient, such as Adam")
    logger = build("logger", config.logger) if config.logger else None
    return Experiment(algorithm, source, engine, device, config.seed, logger)


def device_of(config: Config) -> torch.device:
    """Where a config computes.

    Raises:
        UsageError: there is no such device.
    """
    return build("device", config.device).torch_device


def plan(config: Config, experiment: Experiment, state: State) -> None:
    """Lets the engine choose its chunks."""
    few = torch.arange(MEASURING_TASKS)
    train, val = (experiment.source.sample(config.seed, split, few) for split in ("train", "val"))
    share = -(-config.meta_batch // experiment.processes.size)
    experiment.engine.plan(experiment.algorithm, state.meta, train, share, EVAL_BATCH, config.outer_steps, val)


def newest_checkpoint(rundir: RunDir, config: Config) -> dict[str, Any] | None:
    """The newest whole checkpoint of a run of this config, or None if it has not come to its first.

    Raises:
        RunDirError: all are damaged, or gone although the run is finished.
    """
    saved = checkpoint.newest(rundir.checkpoints, config.fingerprint)
    if saved is None and rundir.summary():
        raise RunDirError(
            f"{rundir.shown}: its checkpoints are gone; expected those of a finished run; restore them from a copy"
        )
    return saved


def own_checkpoint(rundir: RunDir, config: Config, step: int) -> dict[str, Any]:
    """The checkpoint of a step of a run of this config.

    Raises:
        RunDirError: it is missing, damaged, or another run's.
    """
    return checkpoint.load(rundir.checkpoints, step, config.fingerprint)


def restore(experiment: Experiment, state: State, saved: dict[str, Any]) -> None:
    """Puts a checkpoint into a state.

    Raises:
        RunDirError: it is of other meta-parameters, another optimiser, or another class split.
    """
    if (now := experiment.source.identity()["split_hash"]) != saved["split_hash"]:
        raise RunDirError(
            f"split {now[:12]} (split_hash): the checkpoint was trained on split {saved['split_hash'][:12]}, "
            "so test classes could be training classes; use its data.split_seed"
        )
    shapes = {name: list(value.shape) for name, value in state.meta.items()}
    saved_shapes = {name: list(value.shape) for name, value in saved["meta"].items()}
    if wrong := [name for name in {**shapes, **saved_shapes} if shapes.get(name) != saved_shapes.get(name)]:
        name = wrong[0]
        raise RunDirError(
            f"{name} {shapes.get(name, 'absent')} (checkpoint): has {saved_shapes.get(name, 'absent')}, so it "
            "was trained with another learner, number of ways or other setting that shapes it; use the settings of then"
        )
    if _structure(saved["optimizer"]) != _structure(_optimizer_after_a_step(experiment.algorithm)):
        raise RunDirError("optimizer (checkpoint): is of another outer optimiser; expected this run's own")
    loop.restore(state, saved)


def _optimizer_after_a_step(algorithm: Algorithm) -> dict[str, Any]:
    """What the state of the outer optimiser looks like, whichever it is."""
    tensors = [value.requires_grad_() for value in algorithm.init().values()]
    for value in tensors:
        value.grad = torch.zeros_like(value)
    optimizer = algorithm.optimizer(tensors)
    optimizer.step()
    return optimizer.state_dict()


def _structure(value: Any) -> Any:
    """Names, shapes and types without the numbers; but for lists of integers, which are the parameters' places."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.dtype
    if isinstance(value, dict):
        return {name: _structure(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return value if all(type(item) is int for item in value) else [_structure(item) for item in value]
    return float if type(value) is int else type(value)


def summarize(
    config: Config, experiment: Experiment, state: State, result: Evaluation, done: int | None = None
) -> dict[str, Any]:
    """What the summary of a run and of an evaluation have in common.

    Args:
        config: of the test.
        experiment: that was tested.
        state: of the checkpoint that was tested.
        result: of the test.
        done: outer steps that the run has done so far; None: all.
    """
    algorithm, source = experiment.algorithm, experiment.source
    metric = source.metric
    points = [{"mean": mean, "ci95": ci95} for mean, ci95 in zip(result.mean, result.ci95, strict=True)]
    parameters = sum(value.numel() for value in state.meta.values())
    form = getattr(algorithm.model, "form", "")
    form = f" with {form}" if form else ""
    steps = f"{config.outer_steps}" if done in (None, config.outer_steps) else f"{done} of {config.outer_steps}"
    training = f"{steps} outer steps of {config.meta_batch} tasks"
    if config.budget < 1:
        training += f" (budget {config.budget:g} of {config.meta_steps})"
    settings = {
        "learner": f"{type(algorithm.model).__name__}{form}, {parameters:,} meta-parameters",
        **described(experiment),
    }
    if (norm := getattr(algorithm.model, "norm", "none")) != "none":
        settings["batch norm"] = f"{norm} statistics"
    return {
        "title": f"{algorithm.name} on {describe_source(Source(**source.facts()))}, {training}",
        "algorithm": algorithm.name,
        "metric": metric,
        "test": {metric: {**points[-1], "tasks": result.tasks, "by_step": points}},
        "meta_steps": config.outer_steps,
        "budget": config.budget,
        "parameters": parameters,
        "settings": settings,
    }


def described(experiment: Experiment) -> dict[str, str]:
    """The algorithm's facts in words, by name."""
    inner = experiment.algorithm.inner(experiment.source)
    found = {"inner loop": describe_inner(Inner(**inner))} if inner else {}
    details = experiment.algorithm.details(experiment.source)
    return found | {name.replace("_", " "): words for name, words in details.items()}


def of_tasks(experiment: Experiment, result: Evaluation) -> dict[str, Any]:
    """What test_tasks.json holds: the metric of every test task, and a digest that is the same for the same tasks.

    Two runs with the same digest were tested on the very same tasks, so that they can be compared task by task.
    """
    digest = hashlib.sha256()
    for index in torch.arange(result.tasks).split(EVAL_BATCH):
        for tensor in experiment.source.sample(experiment.seed, "test", index)[:-1]:  # but the key
            digest.update(tensor.cpu().numpy().tobytes())
    after = len(result.mean) - 1
    return {"metric": experiment.source.metric, "digest": digest.hexdigest(), "inner_steps": after, "each": result.each}


def environment_of(experiment: Experiment, config: Config) -> dict[str, Any]:
    """What environment.json holds."""
    engine = experiment.engine
    chunks = {"chunk": engine.chunk, "eval_chunk": engine.eval_chunk}
    about = {"config": config.fingerprint, "seed": config.seed, "processes": experiment.processes.size}
    return {**environment(experiment.device), **about, **chunks, **experiment.source.identity()}
