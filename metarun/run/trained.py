"""A trained learner taken out of its run: it learns a task of the user's own, and answers.

The data that it was trained on is not needed. run/loading.py has where it comes from.

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
from metarun.config.schema import Config
from metarun.errors import DivergedError, RunDirError, UsageError
from metarun.models.adopt import frozen_digest
from metarun.models.functional import Params
from metarun.run.build import build_algorithm, describe_algorithms_of_any_ways, set_up_device
from metarun.run.identity import describe_code, hash_code
from metarun.storage import learner_records
from metarun.storage.learner_records import Exported
from metarun.storage.records import Source
from metarun.tasks import Metric, Task
from metarun.text import count_of

PIECE = 2_000_000  # numbers of the queries that are computed at once

log = logging.getLogger("metarun")


@dataclass(frozen=True)
class Form:
    """What a learner is built for: stands in for the task source that it was trained on."""

    inputs: dict[str, Any]  # see data/inputs.py
    outputs: int
    metric: Metric
    source: Source | None = None  # its facts, where they are wanted

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.inputs["shape"])

    def facts(self) -> dict[str, Any]:
        """What is known of its tasks."""
        return self.source.model_dump(exclude={"train_tasks"}) if self.source else {"name": self.inputs["kind"]}

    def check_support(self, task: learner_records.Task, x: np.ndarray, y: np.ndarray) -> None:
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
    facts: Exported
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
        ready, norm = self._build(config, self.form), None
        if not together and ready.algorithm.model.norm == "transductive":
            ready = self._build(config, self.form, norm := "support")
        if classes is None or classes == self.facts.outputs:
            return ready
        if ready.algorithm.any_ways:
            return self._build(config, replace(self.form, outputs=classes), norm)
        if classes > self.facts.outputs:
            raise UsageError(
                f"{classes} classes (support): expected at most {self.facts.outputs}, as in training, for "
                f"{ready.algorithm.name} has an output for each class; for other numbers "
                f"{describe_algorithms_of_any_ways()}"
            )
        return ready

    def _build(self, config: Config, form: Form, norm: str | None = None) -> "Ready":
        config = _for_this_machine(config)
        device = set_up_device(config)
        algorithm, _ = build_algorithm(config, form, device, norm)
        expected, given = (
            {name: (w.shape, w.dtype) for name, w in meta.items() if name not in algorithm.training_weights}
            for meta in (algorithm.init(), self.meta)
        )
        if expected != given:
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


def _for_this_machine(config: Config) -> Config:
    """The config, with the CPU where it wants a GPU and there is none."""
    if torch.cuda.is_available() or not within(str(config.device.get("_target_")), ["metarun"]):
        return config
    return replace(config, device=config.device | {"name": "cpu", "tf32": False})
