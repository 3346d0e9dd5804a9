"""A trained learner taken out of its run: it learns a task of the user's own, and answers.

It comes from a run directory, or from a file that was exported of one; the data that it was trained on is not needed.

S support and Q query examples, N classes or outputs, K inner steps.
"""

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarun.algos.base import Algorithm
from metarun.config.own_code import within
from metarun.config.schema import PATHS, Config, check
from metarun.config.targets import check_target, targets
from metarun.data.inputs import check_inputs, describe_inputs
from metarun.errors import DivergedError, RunDirError, UsageError
from metarun.models.adopt import frozen_digest
from metarun.models.functional import Params
from metarun.run.build import build_experiment, build_source, describe_algorithms_of_any_ways
from metarun.run.identity import describe_code, hash_code
from metarun.run.starting_point import newest_checkpoint, own_checkpoint
from metarun.storage import records
from metarun.storage.exported import VERSION, read_exported, write_exported
from metarun.storage.rundir import RunDir
from metarun.tasks import Metric, Task
from metarun.text import count_of

SUPPORT = ("support.x", "support.y")  # beside the meta-parameters in the file of an adapted learner
PIECE = 2_000_000  # numbers of the queries that are computed at once

log = logging.getLogger("metarun")


@dataclass(frozen=True)
class Form:
    """What a learner is built for: stands in for the task source that it was trained on."""

    inputs: dict[str, Any]  # see data/inputs.py
    outputs: int
    metric: Metric

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.inputs["shape"])

    def facts(self) -> dict[str, Any]:
        """No facts of tasks: there are none."""
        return {"name": self.inputs["kind"]}

    def check_support(self, task: records.Task, x: np.ndarray, y: np.ndarray) -> None:
        """Raises ValueError: these are no support examples of this task."""
        if x.dtype != np.float32 or x.shape[1:] != self.input_shape or not len(x) or not np.isfinite(x).all():
            raise ValueError("inputs of another shape or type")
        if (task.classes is not None) != (self.metric == "accuracy"):
            raise ValueError("classes in regression, or none")
        if task.classes is None:
            fits = y.dtype == np.float32 and y.shape == (len(x), self.outputs) and np.isfinite(y).all()
        else:
            fits = y.dtype == np.int64 and y.shape == (len(x),) and set(y.tolist()) == set(range(len(task.classes)))
        if not fits:
            raise ValueError("targets of another shape or type")


@dataclass(frozen=True)
class Trained:
    """A trained learner, and what it was trained for.

    Attributes:
        path: the run directory, or the file.
        facts: all of the run that answers depend on.
        config: of the run.
        meta: the meta-parameters of its best checkpoint.
        support: of an adapted learner: x [S, *input_shape] and y, [S] classes or [S, outputs] targets; else None.
    """

    path: Path
    facts: records.Exported
    config: Config
    meta: dict[str, Tensor]
    support: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def form(self) -> Form:
        """What it was trained for."""
        return Form(self.facts.inputs, self.facts.outputs, self.facts.metric)

    def build(self, classes: int | None, together: bool = False, inner_steps: int | None = None) -> "Ready":
        """The algorithm for tasks of so many classes (None in regression), with the trained meta-parameters.

        Args:
            classes: N; with a head of its own for each class at most as many as in training.
            together: whether a transductive batch norm takes the statistics of all queries together, as in the run's
                own test; else each query is normalised by the support set's.
            inner_steps: of the task; None: as in the run's own test.

        Raises:
            UsageError: the learner cannot do that.
            RunDirError: its weights do not fit its config.
        """
        if classes is not None and classes < 2:
            raise UsageError(f"{classes} class (support): expected at least 2, or there is nothing to tell apart")
        config = self.config
        if inner_steps is not None:
            if "eval_inner_steps" not in config.algo:
                raise UsageError(f"{inner_steps} (inner_steps): expected none, for this algorithm has no inner steps")
            config = replace(config, algo=config.algo | {"eval_inner_steps": inner_steps})
        ready = self._build(config, self.form)
        if not together and ready.algorithm.model.norm == "transductive":
            config = replace(config, model=config.model | {"norm": "support"})
            ready = self._build(config, self.form)
        if classes is None or classes == self.facts.outputs:
            return ready
        if ready.algorithm.any_ways:
            return self._build(config, replace(self.form, outputs=classes))
        if classes > self.facts.outputs:
            raise UsageError(
                f"{classes} classes (support): expected at most {self.facts.outputs}, as in training, for "
                f"{ready.algorithm.name} has an output for each class; for other numbers "
                f"{describe_algorithms_of_any_ways()}"
            )
        return ready

    def _build(self, config: Config, form: Form) -> "Ready":
        experiment = build_experiment(_for_this_machine(config), (), form)
        algorithm, device = experiment.algorithm, experiment.device
        expected = {name: (value.shape, value.dtype) for name, value in algorithm.init().items()}
        if expected != {name: (value.shape, value.dtype) for name, value in self.meta.items()}:
            raise RunDirError(
                f"{self.path}: its weights are not those of its config; expected both of one run; take it anew"
            )
        if self.facts.frozen and frozen_digest(algorithm.model) != self.facts.frozen:
            raise RunDirError(
                f"{self.path}: was trained with other frozen weights than {algorithm.model.own_class} has now; "
                "expected the same; give the learner those of then"
            )
        if changed := describe_code(self.facts.code, hash_code(config)):
            log.warning("%s: %s: it was trained with another", self.path, "; ".join(changed))
        return Ready(algorithm, {name: value.to(device) for name, value in self.meta.items()}, device)


@dataclass(frozen=True)
class Ready:
    """An algorithm with trained meta-parameters."""

    algorithm: Algorithm
    meta: Params
    device: torch.device

    @torch.no_grad()
    def answer(self, support_x: np.ndarray, support_y: np.ndarray, query_x: np.ndarray) -> Tensor:
        """[K+1, Q, N] outputs on the queries after 0..K inner steps, on the CPU: logits of classes, or values.

        Where no query has a part in the answers to others, many are computed a piece at a time.

        Args:
            support_x: [S, *input_shape] float32.
            support_y: [S] int64 from 0 on, or [S, outputs] float32.
            query_x: [Q, *input_shape] float32.

        Raises:
            DivergedError: an answer is not finite.
        """
        x, y, query = (torch.from_numpy(np.ascontiguousarray(part)) for part in (support_x, support_y, query_x))
        apart = self.algorithm.model.norm != "transductive"
        pieces = query.split(max(1, PIECE // math.prod(query.shape[1:])) if apart else max(1, len(query)))
        answers = torch.cat([self._answer(x, y, piece) for piece in pieces], dim=1)
        if not answers.isfinite().all():
            steps = count_of(len(answers) - 1, "inner step")
            raise DivergedError(
                f"answers are not finite after {steps} (examples): expected numbers; take fewer inner_steps, or "
                "examples on the scale of those of training"
            )
        return answers

    def _answer(self, x: Tensor, y: Tensor, query: Tensor) -> Tensor:
        unknown = y.new_zeros((len(query), *y.shape[1:]))  # nothing depends on a query's answer
        task = Task(x, y, query, unknown, torch.zeros((), dtype=torch.int64)).to(self.device)
        return self.algorithm.predictions(self.meta, task).float().cpu()


def load_trained(path: str | Path) -> Trained:
    """The trained learner of a run directory, or of an exported file.

    Raises:
        RunDirError: it is neither; the run is not finished; or what is there cannot be used.
        UsageError: a class of the user's has no trust.
        DataError: a run of an earlier version kept no preprocessing, and its data is not here.
    """
    path = Path(path)
    if path.is_dir():
        return _load_run(path)
    if path.is_file():
        return _load_file(path)
    raise RunDirError(f"{path}: expected a run directory, or a file that `metarun export` wrote")


def _load_run(path: Path) -> Trained:
    rundir = RunDir(path)
    if not rundir.holds_run:
        raise RunDirError(f"{path}: no run there; expected a folder with .hydra/config.yaml, or an exported file")
    config = replace(rundir.config(), logger=None)
    status, summary, environment = rundir.status(), rundir.summary(), rundir.environment()
    if status is None or status.status != "done" or summary is None or environment is None:
        step = f" (outer step {status.step} of {config.outer_steps})" if status else ""
        raise RunDirError(f"{path}: not finished{step}; expected a finished run; {rundir.resume_command}")
    newest = newest_checkpoint(rundir, config)
    assert newest is not None
    step = newest["best"][0]
    saved = own_checkpoint(rundir, config, step)
    inputs, outputs = environment.inputs, environment.outputs
    if inputs is None or outputs is None:  # of a run from before they were kept
        source = build_source(config)
        inputs, outputs = describe_inputs(source), source.outputs
    _refuse_other_inputs(path, inputs)
    facts = records.Exported(
        version=VERSION,
        name=path.resolve().name,
        config=_without_places(config),
        inputs=inputs,
        outputs=outputs,
        metric=summary.metric,
        frozen=saved["frozen"],
        step=step,
        split_hash=environment.split_hash,
        data_digest=environment.data_digest,
        code=environment.code,
        summary=summary,
    )
    return Trained(path, facts, config, saved["meta"])


def _without_places(config: Config) -> dict[str, Any]:
    """The plain config without what names a place of this machine."""
    data = {key: None if key in PATHS else value for key, value in config.data.items()}
    return config.plain() | {"data": data}


def _for_this_machine(config: Config) -> Config:
    """The config, with the CPU where it wants a GPU and there is none."""
    if torch.cuda.is_available() or not within(str(config.device.get("_target_")), ["metarun"]):
        return config
    return replace(config, device=config.device | {"name": "cpu", "tf32": False})


def _load_file(path: Path) -> Trained:
    facts, arrays = read_exported(path)
    _refuse_other_inputs(path, facts.inputs)
    config, task = _config_of(path, facts), facts.task
    support = None
    if task is not None:
        try:
            support = arrays.pop(SUPPORT[0]), arrays.pop(SUPPORT[1])
            Form(facts.inputs, facts.outputs, facts.metric).check_support(task, *support)
        except (KeyError, ValueError) as error:
            raise RunDirError(
                f"{path}: its support examples: {error}: expected those of its task; save it anew"
            ) from error
    meta = {name: torch.from_numpy(value) for name, value in arrays.items()}
    return Trained(path, facts, config, meta, support)


def _config_of(path: Path, facts: records.Exported) -> Config:
    """The config of an exported learner; of its classes only those that are built need trust. Raises UsageError."""
    try:
        config = replace(check(dict(facts.config), check_class=lambda key, target: None), logger=None)
    except UsageError as error:
        raise RunDirError(f"{path}: its config cannot be used: {error}") from error
    for key, target in targets({**config.plain(), "data": {}}, ""):
        check_target(key, target)
    return config


def _refuse_other_inputs(path: Path, inputs: dict[str, Any]) -> None:
    try:
        check_inputs(inputs)
    except ValueError as error:
        raise RunDirError(f"{path}: cannot be used: {error}; take it anew from whoever has the run") from error


def save_trained(trained: Trained, path: Path) -> str:
    """Writes a trained learner to a file, with its support examples if it has any; returns its card.

    Raises:
        UsageError: the name has another suffix than .safetensors.
        RunDirError: something else is there, or it cannot be written.
    """
    support = dict(zip(SUPPORT, trained.support, strict=True)) if trained.support else {}
    card = _write_card(trained.facts)
    write_exported(path, trained.facts, {name: value.numpy() for name, value in trained.meta.items()} | support, card)
    return card


def _write_card(facts: records.Exported) -> str:
    """What the learner is, in words."""
    from metarun.run.words import closing_words

    result = closing_words(facts.summary, {}).strip() if facts.summary else facts.name
    shape = "x".join(map(str, facts.inputs["shape"]))
    lines = {"inputs": f"{facts.inputs['kind']} of shape {shape}"}
    if not facts.split_hash.startswith("none"):
        lines["class split"] = facts.split_hash[:12]
    if facts.task is not None:
        count = len(facts.task.classes or [])
        lines["learned"] = f"a task{f' of {count} classes' if count else ''}, with its support examples"
    own = {str(target).partition(".")[0] for _, target in targets({**facts.config, "data": {}}, "")}
    if own := sorted(own - {"metarun", "torch"}):
        lines["needs"] = f"METARUN_TRUST={','.join(own)}, and that code where it is loaded"
    return "\n".join([result, *(f"{name:<13} {words}" for name, words in lines.items())])
