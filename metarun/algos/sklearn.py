"""Any estimator of scikit-learn, fitted on each support set. No meta-learning at all.

    answers(x) = estimator.fit(support_x, support_y) at x:     predict, beside predict_proba or decision_function

It is what a reader would do with a small table, and the answer to whether meta-learning gains anything there.

Reference: Pedregosa et al. 2011, "Scikit-learn: machine learning in Python", JMLR 12.
"""

import importlib.util
import inspect
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarun.algos.feedforward import Feedforward
from metarun.errors import SettingError, UsageError
from metarun.models.functional import Params
from metarun.tasks import Task, TaskSource
from metarun.text import nearest, reason

_GENERATOR = threading.Lock()  # chunks of tasks are fitted in several threads

log = logging.getLogger(__name__)


@dataclass(eq=False, kw_only=True)
class ScikitLearn(Feedforward):
    """An estimator of scikit-learn in place of the learner, on inputs as vectors.

    Args:
        estimator: its class, such as sklearn.linear_model.Ridge; a regressor for regression, else a classifier.
        settings: of its constructor, plain values by name; None: its own, and 0 for random_state.
    """

    trains = False
    uses_learner = False

    estimator: str | None = None
    settings: dict[str, Any] | None = None

    def __post_init__(self):
        super().__post_init__()
        if importlib.util.find_spec("sklearn") is None:
            remedy = "the package scikit-learn: pip install 'metarun[sklearn]'"
            raise SettingError("sklearn", "_target_", remedy)
        if not isinstance(self.estimator, str | None):
            raise SettingError(self.estimator, "estimator", "a name, such as sklearn.linear_model.Ridge")
        if not isinstance(self.settings, Mapping | None):
            raise SettingError(self.settings, "settings", "values by name, as in {alpha: 10}")

    @property
    def name(self) -> str:
        """See Algorithm."""
        return f"scikit-learn's {(self.estimator or 'estimator').rpartition('.')[2]}"

    def check(self, source: TaskSource, meta_batch: int) -> None:
        """See Algorithm: chooses logistic regression or ridge where no estimator is given."""
        kind = "classifier" if source.metric == "accuracy" else "regressor"
        self.outputs = source.outputs
        if self.estimator is None:
            names = {"classifier": "LogisticRegression", "regressor": "Ridge"}
            self.estimator = f"sklearn.linear_model.{names[kind]}"
        if self.estimator not in (known := _estimators(kind)):
            task = "classification" if kind == "classifier" else "regression"
            close = nearest(self.estimator, known)
            rule = f"a {kind} of scikit-learn by its full name, for the tasks are {task}{close}"
            raise SettingError(self.estimator, "algo.estimator", rule)
        cls, settings = known[self.estimator], dict(self.settings or {})
        takes = inspect.signature(cls).parameters
        if "random_state" in takes:
            settings.setdefault("random_state", 0)
        missing = [name for name, taken in takes.items() if taken.default is taken.empty and name not in settings]
        if missing:
            rule = f"its {', '.join(missing)} in algo.settings; if they are no plain values, another estimator"
            raise SettingError(self.estimator, "algo.estimator", rule)
        try:
            cls(**settings)._validate_params()
        except (TypeError, ValueError) as error:
            rule = f"settings that {self.estimator} takes: {' '.join(str(error).split())}"
            raise SettingError(self.settings, "algo.settings", rule) from error
        self.make, self.said = partial(cls, **settings), set()

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: the estimator with what was set."""
        given = ", ".join(f"{name}={value}" for name, value in (self.settings or {}).items())
        return {"estimator": f"{self.estimator}({given})"}

    def init(self) -> Params:
        """{name: tensor}: a number that nothing depends on."""
        return {"nothing": torch.zeros(())}

    def answers(self, meta: Params, task: Task) -> Tensor:
        """[Q, N] logarithms of probabilities, or margins, or predicted values; least for a class without support."""
        inputs = (task.support_x, task.support_y, task.query_x)
        return _Fit.apply(self, *inputs) + 0 * meta["nothing"]  # pyright: ignore[reportReturnType]

    def warn(self, caught: Sequence[warnings.WarningMessage]) -> None:
        """Says once what an estimator may say of every task."""
        for kind, warning in {item.category: item.message for item in caught if item.category not in self.said}.items():
            self.said.add(kind)
            words = f"{self.estimator} (algo.estimator), of this task and perhaps of others: {reason(warning)}"  # pyright: ignore[reportArgumentType]
            log.warning("%s", words, extra={"once": True})  # an engine's copies of this say it too

    def fit(self, support_x: np.ndarray, support_y: np.ndarray, query_x: np.ndarray) -> np.ndarray:
        """The answers of one task."""
        support, query = support_x.reshape(len(support_x), -1), query_x.reshape(len(query_x), -1)
        if support_y.dtype.kind == "f":
            targets = support_y[:, 0] if support_y.shape[1] == 1 else support_y
            return self.make().fit(support, targets).predict(query).reshape(len(query), -1)
        fitted = self.make().fit(support, support_y)
        logits = np.full((len(query), self.outputs), np.finfo(np.float32).min)
        predicted = fitted.predict(query)
        found = None
        if hasattr(fitted, "predict_proba"):
            found = np.log(fitted.predict_proba(query).clip(1e-12))
        elif hasattr(fitted, "decision_function"):
            found = fitted.decision_function(query)
            found = np.stack([-found, found], axis=1) / 2 if found.ndim == 1 else found
        if found is None or found.shape[1] != len(fitted.classes_):  # margins may be those of pairs of classes
            found = np.log((predicted[:, None] == fitted.classes_).clip(1e-12))
        found = found.astype(query.dtype)
        # Its class is what predict() says: probabilities of SVC, NearestCentroid and others may be largest elsewhere.
        rows, places = np.arange(len(query)), np.searchsorted(fitted.classes_, predicted)
        other = found.argmax(axis=1) != places
        found[rows[other], places[other]] = np.nextafter(found[other].max(axis=1), query.dtype.type(np.inf))
        logits[:, fitted.classes_] = found
        return logits


@cache
def _estimators(kind: str) -> dict[str, type]:
    """The estimators of a kind by name, public names first: sklearn.linear_model.Ridge, not its private module's."""
    from sklearn.utils import all_estimators

    found = {}
    for name, cls in all_estimators(type_filter=kind):
        parts = cls.__module__.split(".")
        private = next((number for number, part in enumerate(parts) if part.startswith("_")), len(parts))
        found[f"{'.'.join(parts[:private])}.{name}"] = cls
    return found


@contextmanager
def _drawing_alike() -> Iterator[None]:
    """Inside, numpy's global generator begins anew: some estimators, as SVR, draw from it and take no random_state."""
    with _GENERATOR:
        before = np.random.get_state()
        np.random.seed(0)
        try:
            yield
        finally:
            np.random.set_state(before)


class _Fit(torch.autograd.Function):
    """A fit outside of torch: task by task, and without a gradient."""

    @staticmethod
    def forward(algorithm: ScikitLearn, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        arrays = (tensor.detach().cpu().numpy() for tensor in (support_x, support_y, query_x))
        try:
            with _drawing_alike(), warnings.catch_warnings(record=True) as caught:  # which is of all threads too
                answers = algorithm.fit(*arrays)
            algorithm.warn(caught)
        except (TypeError, ValueError) as error:  # such as more neighbours than points
            why = " ".join(str(error).split())
            raise UsageError(
                f"{algorithm.estimator} (algo.estimator): cannot be fitted to a support set: {why}"
            ) from error
        if not np.isfinite(answers).all():
            remedy = "expected numbers; take another estimator, or other settings of it (algo.settings)"
            raise UsageError(
                f"{algorithm.estimator} (algo.estimator): answers a query with what is no number: {remedy}"
            )
        return torch.from_numpy(answers).to(query_x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        return None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, algorithm: ScikitLearn, *inputs: Tensor) -> tuple[Tensor, int]:
        rows = [
            [tensor.movedim(dim, 0)[t] if dim is not None else tensor
             for tensor, dim in zip(inputs, in_dims[1:], strict=True)]
            for t in range(info.batch_size)
        ]  # fmt: skip
        return torch.stack([_Fit.apply(algorithm, *row) for row in rows]), 0  # pyright: ignore
