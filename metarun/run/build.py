"""An experiment, built from a config."""

import inspect
import logging
from typing import Any

import torch

from metarun import seeds
from metarun.config.schema import Config
from metarun.config.targets import build
from metarun.engine.chunking import Chunks
from metarun.engine.loop import EVAL_BATCH, Experiment, State
from metarun.engine.ranks import world_size
from metarun.errors import SettingError, UsageError

MEASURING_TASKS = 3  # what the engine wants to see before it chooses its chunks

log = logging.getLogger("metarun")


def build_experiment(config: Config) -> Experiment:
    """Builds everything that a config names, and reads nothing; the source has yet to be prepared.

    Raises:
        UsageError: a setting is refused.
    """
    device = build("device", config.device).set_up()
    if config.meta_batch < world_size():
        raise UsageError(
            f"{config.meta_batch} (meta_batch): expected at least {world_size()}, a task for each process of torchrun"
        )
    source = build("data", config.data)
    engine = build("engine", config.engine)
    with seeds.forked(config.seed, "init"):
        model = build("model", config.model, input_shape=source.input_shape, outputs=source.outputs)
        algorithm = build("algo", config.algo, model=model)
    engine = engine.for_run(algorithm, config.outer_steps)
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
    build_logger(config)  # only to refuse its settings now; the run opens its own
    return Experiment(algorithm, source, engine, device, config.seed)


def build_logger(config: Config) -> Any:
    """The logger that a config names, or None."""
    return build("logger", config.logger) if config.logger else None


def device_of(config: Config) -> torch.device:
    """Where a config computes. Raises UsageError: there is no such device."""
    return build("device", config.device).torch_device


def choose_chunks(config: Config, experiment: Experiment, state: State) -> Chunks:
    """The engine's chunks for this experiment."""
    if config.engine["mode"] == "compile" and experiment.engine.mode != "compile":
        least = config.engine["compile_from"]
        log.info("not compiled: %d outer steps, fewer than engine.compile_from=%d", config.outer_steps, least)
    few = torch.arange(MEASURING_TASKS)
    train, test = (experiment.source.sample(config.seed, split, few) for split in ("train", "val"))
    share = -(-config.meta_batch // experiment.processes.size)
    return experiment.engine.plan(
        experiment.algorithm, state.meta, train, test, meta_batch=share, eval_batch=EVAL_BATCH
    )
