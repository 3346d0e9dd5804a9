"""An experiment, built from a config."""

import inspect
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from metarun import seeds
from metarun.algos.base import Algorithm
from metarun.config.folders import OWN
from metarun.config.keys import key_of
from metarun.config.overrides import spell_apart
from metarun.config.own_code import class_name
from metarun.config.schema import Config
from metarun.config.targets import build, settings_of, trusted_class
from metarun.config.through_hydra import plain_config
from metarun.engine.chunking import Chunks
from metarun.engine.device import Device
from metarun.engine.engine import Engine
from metarun.engine.loop import EVAL_BATCH, Experiment, State
from metarun.engine.ranks import world_size
from metarun.errors import SettingError, UsageError
from metarun.models.adopt import adopt, frozen_tensors
from metarun.models.learner import Learner
from metarun.run.contract import check_contract
from metarun.run.identity import hash_code
from metarun.tasks import SPLITS, Split, TaskSource
from metarun.text import spell, spell_class

MEASURING_TASKS = 3  # what the engine wants to see before it chooses its chunks

SOURCE = ("input_shape", "outputs", "metric", "prepare", "sample", "identity", "facts")  # see tasks.TaskSource

log = logging.getLogger("metarun")
_checked: set[str] = set()  # parts of configs that have passed in this process


def prepare_experiment(
    config: Config,
    splits: Sequence[Split] = SPLITS,
    source: TaskSource | None = None,
    begin: Callable[[Experiment], None] = lambda _: None,
) -> Experiment:
    """Builds everything that a config names, and makes its source ready; its parts are seen to keep their contract.

    `source` is that of an earlier experiment with the same data, which is ready already. What passed is not checked
    again in this process, so that a sweep over seeds checks once. `begin` is called before the source is made ready,
    which may take long.

    Raises:
        UsageError: a setting is refused, or a part does not keep its contract.
        DataError: the data is missing, incomplete or altered.
    """
    experiment = build_experiment(config, splits)
    begin(experiment)
    if source is None:
        experiment.source.prepare(experiment.device)
    else:
        experiment = replace(experiment, source=source)
    parts = [config.algo, config.data, config.model, config.device, config.engine, list(splits)]
    if (key := json.dumps(parts, sort_keys=True, default=str)) not in _checked:
        check_contract(experiment, splits)
        _checked.add(key)
    return experiment


def build_experiment(config: Config, splits: Sequence[Split] = SPLITS, source: TaskSource | None = None) -> Experiment:
    """Builds everything that a config names, and reads nothing; the source has yet to be prepared.

    `splits` are those of which it takes tasks; `source` is that of the config, where it is built already.

    Raises:
        UsageError: a setting is refused.
    """
    device = set_up_device(config)
    if config.meta_batch < world_size():
        raise UsageError(
            f"{config.meta_batch} (meta_batch): expected at least {world_size()}, a task for each process of torchrun"
        )
    source = build_source(config) if source is None else source
    engine = _expect("engine", build("engine", config.engine), Engine)
    algorithm, learner = build_algorithm(config, source, device)
    engine = engine.for_run(algorithm, config.outer_steps)
    _check_ways(config, source, algorithm, splits)
    train_tasks = config.data.get("train_tasks")
    if None not in (train_tasks, algorithm.train_tasks):
        raise UsageError(
            f"{train_tasks} (data.train_tasks): expected null: with its settings {algorithm.name} takes "
            f"{algorithm.train_tasks} training tasks"
        )
    if not (meta := algorithm.init()):
        raise UsageError(f"{algorithm.name} (algo): expected weights to meta-train, and all that it uses are frozen")
    try:
        optimizer = algorithm.optimizer(meta.values())
    except (TypeError, ValueError) as error:
        raise UsageError(f"algo.meta_optimizer: cannot be built: {error}") from error
    _expect("algo.meta_optimizer", optimizer, torch.optim.Optimizer)
    asks = inspect.signature(optimizer.step).parameters["closure"].default is inspect.Parameter.empty
    if asks or isinstance(optimizer, torch.optim.SparseAdam):
        name = type(optimizer).__name__
        raise UsageError(f"{name} (algo.meta_optimizer): expected an optimiser that steps by a gradient, such as Adam")
    hash_code(config)  # while the files are what was imported
    build_loggers(config)  # only to refuse its settings now; the run opens its own
    return Experiment(algorithm, source, engine, device, config.seed, train_tasks, learner)


def set_up_device(config: Config) -> torch.device:
    """Makes torch follow the settings of the device that a config names. Raises UsageError: there is no such device."""
    return _expect("device", build("device", config.device), Device).set_up()


def build_algorithm(
    config: Config, source: TaskSource, device: torch.device, norm: str | None = None
) -> tuple[Algorithm, Learner]:
    """The algorithm that a config names, and its learner (see build_learner), with initial weights.

    Raises UsageError: one is refused.
    """
    with seeds.forked(config.seed, "init"):
        learner = build_learner(config, source, device, norm)
        algorithm = _expect("algo", build("algo", config.algo, model=learner), Algorithm)
    if missing := [name for name in (*Algorithm.__dataclass_fields__, "origin") if not hasattr(algorithm, name)]:
        rule = "a dataclass(eq=False, kw_only=True) whose __post_init__, if it has one, calls super().__post_init__()"
        raise UsageError(f"{class_name(algorithm)} (algo): has no {', '.join(missing)}: expected {rule}")
    try:
        algorithm.check(source, config.meta_batch)
    except SettingError as error:
        raise UsageError(str(error)) from error
    return algorithm, learner


def build_source(config: Config) -> TaskSource:
    """The task source that a config names, which has yet to be prepared. Raises UsageError: it is none, or refuses."""
    source = build("data", config.source)
    if missing := [name for name in SOURCE if not hasattr(source, name)]:
        rule = f"a task source, which has {', '.join(SOURCE)}; see metarun.tasks.TaskSource"
        raise UsageError(f"{class_name(source)} (data): has no {', '.join(missing)}: expected {rule}")
    return source


def refuse_without_effect(words: Sequence[str], config: Config) -> None:
    """Raises UsageError for a setting that was typed, and has no effect as another one of its part is.

    The class of the part says which: acts_with = {setting: (other setting, values with which it acts)}.
    """
    for word in spell_apart(words):
        section, _, name = key_of(word).partition(".")
        node = getattr(config, section) if section in ("algo", "data", "model") else {}
        if not name or "_target_" not in node:
            continue
        acts_with = getattr(trusted_class(f"{section}._target_", node["_target_"]), "acts_with", {})
        other, values = acts_with.get(name, ("", ()))
        if other in node and node[other] not in values:
            rule = f"it acts with {section}.{other}={' or '.join(values)}; leave it out"
            raise UsageError(f"{word!r} (command line): has no effect with {section}.{other}={node[other]}: {rule}")


def _expect(section: str, part: Any, base: type) -> Any:
    """The part that a section has built. Raises UsageError: it is no object of this base class."""
    if not isinstance(part, base):
        rule = f"a subclass of {spell_class(base)}"
        raise UsageError(f"{class_name(part)} ({section}._target_): expected {rule}")
    return part


def _check_ways(config: Config, source: TaskSource, algorithm: Algorithm, splits: Sequence[Split]) -> None:
    """Raises UsageError: a split has too few classes, or the algorithm cannot test with other ways than in training."""
    facts = source.facts()
    if (test := facts.get("ways")) is None:
        return
    train = facts.get("train_ways") or test
    _refuse_other_ways(algorithm, "eval_ways", train, test)
    splittable = "splits" in (settings_of("data", config.source) or ())
    for split in splits:
        most, ways = getattr(source, "split_sizes", {}).get(split), train if split == "train" else test
        if most is not None and ways > most:
            apart = config.data.get("eval_ways") is not None
            name = "eval_ways" if apart and split != "train" else "ways"
            may_differ = algorithm.any_ways and not apart and split != "train" and most >= 2
            remedies = ["data.eval_ways"] if may_differ else []
            remedy = ""
            if len(splits) < len(SPLITS):  # of a trained run
                remedy = "; lower it" if algorithm.any_ways else "; take data of more classes"
            elif splittable and not getattr(source, "has_own_splits", False):
                take, there = train + 2 * test, sum(source.split_sizes.values())
                remedies += ["data.splits"] if take <= there else []
                remedy = f"; lower it: three splits take {take} classes, and the data has {there}"
            remedy = f"; set {' or '.join(remedies)}" if remedies else remedy
            why = source.explain_size(split) if hasattr(source, "explain_size") else ""
            raise UsageError(
                f"{ways} (data.{name}): expected at most {most}, the classes of split {split}{why or remedy}"
            )


def check_ways_of_eval(trained: TaskSource, tested: Experiment) -> None:
    """Raises UsageError: with its data.ways the learner has other outputs than in training, which it cannot have."""
    train, test = (source.facts().get("ways") for source in (trained, tested.source))
    if trained.outputs != tested.source.outputs and None not in (train, test):
        _refuse_other_ways(tested.algorithm, "ways", train, test)


def _refuse_other_ways(algorithm: Algorithm, key: str, train: int, test: int) -> None:
    if train != test and not algorithm.any_ways:
        rule = f"expected {train}, as in training, for {algorithm.name} has an output for each class"
        remedy = describe_algorithms_of_any_ways()
        if not algorithm.trains and key == "eval_ways":  # then there is no training that it could differ from
            rule, remedy = f"expected {train}, as data.ways, for {algorithm.name} has no training", f"data.ways={test}"
        raise UsageError(f"{test} (data.{key}): {rule}; for other numbers {remedy}")


def describe_algorithms_of_any_ways() -> str:
    """The choices under which a learner takes other numbers of classes than in training, as one types them."""
    nodes = {name: plain_config((f"algo={name}",))["algo"] for name in OWN.options("algo")}
    able = [name for name, node in nodes.items() if trusted_class("algo._target_", node["_target_"]).any_ways]
    shared = [name for name, node in nodes.items() if "head" in node and node.get("inner_parameters") != "body"]
    return f"algo={', '.join(able)}, or algo.head=shared with algo={', '.join(shared)}"


def build_learner(config: Config, source: TaskSource, device: torch.device, norm: str | None = None) -> Learner:
    """The learner that a config names; what is frozen in it is on the device.

    A class of its own need not take input_shape and outputs; where it takes no `norm`, this is the mode of the batch
    norm in it. `norm` is the mode in place of the config's.

    Raises:
        UsageError: it cannot be built, or cannot be a learner.
    """
    settings = dict(config.model)
    cls = trusted_class("model._target_", settings.get("_target_"))
    takes = inspect.signature(cls).parameters
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    given = {"input_shape": source.input_shape, "outputs": source.outputs}
    given = {name: value for name, value in given.items() if free or name in takes}
    is_learner = issubclass(cls, Learner)
    takes_norm = "norm" in takes or (free and is_learner)
    mode = settings.pop("norm") if "norm" in settings and not takes_norm else None
    if norm is not None and takes_norm and is_learner:
        settings["norm"] = norm
    elif norm is not None:  # a `norm` that a foreign class takes may mean anything
        mode = norm

    def make() -> Any:
        return build("model", settings, **given)

    try:
        learner = adopt(make(), source.input_shape, mode, again=make)
    except SettingError as error:
        what = f"{error.value} (model)" if error.name == "model" else f"{spell(error.value)} (model.{error.name})"
        raise UsageError(f"{what}: expected {error.expected}") from error
    for value in frozen_tensors(learner).values():
        value.data = value.data.to(device)
    return learner


def build_loggers(config: Config) -> list[Any]:
    """The loggers that a config names: none, one, or several by name. Raises UsageError: one is refused."""
    if not config.logger or "_target_" in config.logger:
        return [build("logger", config.logger)] if config.logger else []
    for name, node in config.logger.items():
        if not isinstance(node, dict) or "_target_" not in node:
            rule = "a logger by its name, as in logger=tensorboard, or several: logger=[tensorboard,mlflow]"
            raise UsageError(f"{spell(node)} (logger.{name}): expected {rule}")
    return [build(f"logger.{name}", node) for name, node in config.logger.items()]


def device_of(config: Config) -> torch.device:
    """Where a config computes. Raises UsageError: there is no such device."""
    return build("device", config.device).torch_device


def choose_chunks(config: Config, experiment: Experiment, state: State, split: Split = "val") -> Chunks:
    """The engine's chunks for this experiment; of `test` alone, as in an evaluation, or with `val` of training too."""
    if config.engine["mode"] == "compile" and experiment.engine.mode != "compile":
        least = config.engine["compile_from"]
        log.info("not compiled: %d outer steps, fewer than engine.compile_from=%d", config.outer_steps, least)
    for note in experiment.algorithm.model.notes:
        log.info("%s", note)
    few = torch.arange(MEASURING_TASKS)
    measured = ("train" if split == "val" else split, split)  # data of a test need have no training classes
    train, test = (experiment.source.sample(config.seed, each, few) for each in measured)
    share = -(-config.meta_batch // experiment.processes.size)
    return experiment.engine.plan(
        experiment.algorithm, state.meta, train, test, meta_batch=share, eval_batch=EVAL_BATCH
    )
