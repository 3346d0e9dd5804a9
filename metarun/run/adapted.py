"""A trained learner has learned a task of the user's own: its answers, and how right they are.

S support and Q query examples, N classes or outputs, K inner steps, G places on the axis of a function.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from metarun.data.class_names import spell_classes
from metarun.data.given import Examples, Scale, axis_of, scale_of_target
from metarun.intervals import over_tasks
from metarun.run.trained import Ready, Trained
from metarun.storage import learner_records
from metarun.storage.records import Metric
from metarun.text import count_of, format_metric

GRID = 200  # points of a function's picture
FEW = 10  # queries whose answers are printed


@dataclass(frozen=True)
class Curve:
    """A function of one number: [K+1, G] values, in the user's units, at [G] places on its axis."""

    axis: Scale
    places: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """What was learned from, what was asked, and the answers.

    Attributes:
        trained: the learner.
        classes: that were learned, in the learner's order; None in regression.
        support: what was learned from.
        queries: what was asked.
        outputs: [K+1, Q, N] after 0..K inner steps: probabilities, or values in the user's units.
        together: see Trained.build.
        transductive: whether the batch norm of the run's own test takes the statistics of all queries together.
        curve: of a function of one number; else None.
    """

    trained: Trained
    classes: list[str] | None
    support: Examples
    queries: Examples
    outputs: np.ndarray
    together: bool
    transductive: bool
    curve: Curve | None = None

    @property
    def steps(self) -> int:
        """K."""
        return len(self.outputs) - 1

    @cached_property
    def taken(self) -> list[str]:
        """The class that each query is taken for; [] in regression."""
        return [self.classes[n] for n in self.outputs[-1].argmax(axis=-1)] if self.classes else []

    @cached_property
    def right(self) -> list[bool | None]:
        """Whether the class of each query is right; None: not known."""
        pairs = zip(self.taken, self.queries.labels, strict=True)
        return [None if truth is None else taken == truth for taken, truth in pairs]

    @cached_property
    def judged(self) -> learner_records.Judged | None:
        """How right the answers are; None where no truth is known."""
        if self.classes:
            found = [float(right) for right in self.right if right is not None]
            return _judge("accuracy", found, answers=1) if found else None
        assert self.queries.values is not None
        known = np.isfinite(self.queries.values).all(axis=1)
        truth = self.queries.values[known]
        errors = (self.outputs[-1][known] - truth) ** 2
        if not len(errors):
            return None
        variance = ((truth - truth.mean(axis=0)) ** 2).mean(axis=0)
        r2 = float((1 - errors.mean(axis=0) / variance).mean()) if (variance > 0).all() else None
        return _judge("mse", errors.mean(axis=1).tolist()).model_copy(update={"r2": r2})

    def spell(self, n: int) -> str:
        """What a query is taken for, in words: its class and how surely, or its values."""
        outputs = self.outputs[-1][n]
        if self.classes:
            return f"{self.taken[n]} ({outputs.max():.0%})"
        return ", ".join(f"{value:.4g}" for value in outputs)

    def record(self, files: Sequence[str] = ()) -> learner_records.Adapted:
        """All of it as facts; `files` are those that were written."""
        return learner_records.Adapted(
            learner=str(self.trained.path),
            metric=self.trained.facts.metric,
            classes=self.classes,
            support=len(self.support.x),
            inner_steps=self.steps,
            together=self.together,
            judged=self.judged,
            files=list(files),
            answers=[self._answer(n) for n in range(len(self.queries.names))],
        )

    def _answer(self, n: int) -> learner_records.Answer:
        name, outputs = self.queries.names[n], self.outputs[-1][n]
        if self.classes:
            facts = {"prediction": self.taken[n], "truth": self.queries.labels[n]}
            return learner_records.Answer(name=name, probabilities=outputs.tolist(), **facts)
        assert self.queries.values is not None
        values = self.queries.values[n]
        truth = _plain(values) if np.isfinite(values).all() else None
        return learner_records.Answer(name=name, prediction=_plain(outputs), truth=truth)


def _plain(values: np.ndarray) -> float | list[float]:
    return float(values[0]) if len(values) == 1 else values.tolist()


def _judge(metric: Metric, values: list[float], answers: int | None = None) -> learner_records.Judged:
    mean, ci95 = over_tasks(values, answers) if len(values) > 1 else (values[0], None)
    return learner_records.Judged(metric=metric, queries=len(values), mean=mean, ci95=ci95)


def learn(
    trained: Trained,
    support: Examples,
    queries: Examples,
    classes: list[str] | None,
    together: bool = False,
    inner_steps: int | None = None,
) -> Adapted:
    """The answers of a trained learner that learns from the support set.

    Args:
        trained: the learner.
        support: see Examples; with y.
        queries: see Examples.
        classes: that are learned, in the learner's order; None in regression.
        together: see Trained.build.
        inner_steps: see Trained.build.

    Raises:
        UsageError: the learner cannot do that.
        DivergedError: an answer is not finite.
    """
    ready = trained.build(None if classes is None else len(classes), together, inner_steps)
    scale = scale_of_target(trained.facts.inputs)
    assert support.y is not None

    def answer(x: np.ndarray) -> np.ndarray:
        outputs = ready.answer(support.x, support.y, x)
        if classes is None:
            return scale.to_user(outputs.numpy())
        return torch.softmax(outputs[..., : len(classes)], dim=-1).numpy()

    return Adapted(
        trained=trained,
        classes=classes,
        support=support,
        queries=queries,
        outputs=answer(queries.x),
        together=together,
        transductive=_is_transductive(trained, ready),
        curve=_trace(axis_of(trained.facts.inputs), support, queries, answer) if classes is None else None,
    )


def support_of(trained: Trained) -> tuple[Examples, list[str] | None]:
    """The support set and the classes of a learner that has learned a task."""
    assert trained.support is not None
    assert trained.facts.task is not None
    x, y = trained.support
    names, classes = [str(n) for n in range(1, len(x) + 1)], trained.facts.task.classes
    if classes is None:
        return Examples(names, x, values=scale_of_target(trained.facts.inputs).to_user(y), y=y), None
    words = spell_classes(classes)
    return Examples(names, x, [words[n] for n in y], y=y), words


def _is_transductive(trained: Trained, ready: Ready) -> bool:
    """Whether the batch norm of the run's own test takes the statistics of all queries together."""
    norm = ready.algorithm.model.norm
    return norm == "transductive" or (norm == "support" and trained.config.model.get("norm") != "support")


def _trace(
    axis: Scale | None, support: Examples, queries: Examples, answer: Callable[[np.ndarray], np.ndarray]
) -> Curve | None:
    """A function of one number, over the places of all examples."""
    if axis is None:
        return None
    ends = np.concatenate([support.x[:, 0], queries.x[:, 0]])
    grid = np.linspace(ends.min(), ends.max(), GRID, dtype=np.float32)
    values = answer(grid[:, None])
    return Curve(axis, axis.to_user(grid), values[..., 0]) if values.shape[-1] == 1 else None


def describe(adapted: Adapted, inversion_given: bool = False, support_given: bool = True) -> list[str]:
    """What came of it, in lines; of images also whether they are inverted as in training, or as the user said."""
    queries, known = len(adapted.queries.names), adapted.judged
    classes = f" of {count_of(len(adapted.classes), 'class')}" if adapted.classes else ""
    steps = f", after {count_of(adapted.steps, 'inner step')}" if adapted.steps else ""
    count = f"{queries} quer{'y' if queries == 1 else 'ies'}"
    lines = [f"{count} answered from {count_of(len(adapted.support.x), 'example')}{classes}{steps}"]
    if known:
        of = f"over {known.queries} of them" if known.queries < queries else "over them"
        mean = format_metric(known.metric, known.mean, known.ci95)
        interval = "" if known.ci95 is None else f" (mean and 95% interval {of}, for this support set)"
        r2 = "" if known.r2 is None else f", R² {known.r2:.3f}"
        lines.append(f"{known.metric} {mean}{r2}{interval}")
    if adapted.trained.facts.inputs.get("invert"):
        like = " as in training" if adapted.trained.support is None else " as what it learned from before"
        remedy = " (bright on dark already: invert=false)" if support_given else ""
        lines.append(f"images: inverted{'' if inversion_given else like}, dark ink is bright{remedy}")
    if queries <= FEW:
        lines += [f"{name}: {adapted.spell(n)}" for n, name in enumerate(adapted.queries.names)]
    if adapted.transductive and adapted.together:
        lines.append("batch norm: answers depend on which queries come together, as in the run's own test")
    elif adapted.transductive:
        rule = "the run's own test took all queries together (together=true)"
        lines.append(f"batch norm: by the support set, each query alone; {rule}")
    return lines
