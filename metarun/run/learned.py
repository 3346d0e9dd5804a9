"""A trained learner in scikit-learn's manner: fit() gives it a task, predict() answers; its classes are the user's own.

scikit-learn itself is not needed. What a user can cause is a ValueError of one line, as there.

n examples, N classes.
"""

from dataclasses import replace
from operator import index
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from typing_extensions import Self

from metarun.data.class_names import number_classes
from metarun.data.given import scale_of_target
from metarun.engine.device import borrowed
from metarun.errors import boolean
from metarun.run.given_arrays import as_value_errors, columns_of, encode_rows, in_order, names_of, rows_of, targets_of
from metarun.run.loading import load_trained, save_trained
from metarun.run.trained import Ready, Trained
from metarun.storage.learner_records import Task
from metarun.tasks import Metric

SETTINGS = ("run", "together", "inner_steps")


class Learned:
    """What classifiers and regressors share; the constructor reads nothing.

    Args:
        run: a finished run's directory, or a file that `metarun export` or save() wrote.
        together: with model.norm=transductive, whether its statistics are of all examples that predict() is given, as
            in the run's own test: answers then depend on which come together. Else they are of the support set.
        inner_steps: of a task; None: as in the run's own test.

    Attributes:
        trained_: the learner, with the task and the support examples that fit() was given.
        n_features_in_: the columns of X, where it has two dimensions.
        feature_names_in_: their names, where fit() was given a DataFrame of rows; arrays are in this order then.
    """

    metric: ClassVar[Metric]

    def __init__(self, run: str | Path, together: bool = False, inner_steps: int | None = None):
        self.run, self.together, self.inner_steps = run, together, inner_steps

    def __repr__(self) -> str:
        more = [f", {name}={getattr(self, name)!r}" for name in SETTINGS[1:] if getattr(self, name)]
        return f"{type(self).__name__}({str(self.run)!r}{''.join(more)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier" if self.metric == "accuracy" else "regressor",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(poor_score=True),  # on tasks that are not like those of training
            regressor_tags=RegressorTags(poor_score=True),
            input_tags=InputTags(),
        )

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in SETTINGS}

    def set_params(self, **params: Any) -> Self:
        """Changes arguments of the constructor, which the next fit() heeds.

        Raises:
            ValueError: it has no such argument.
        """
        for name, value in params.items():
            if name not in SETTINGS:
                raise ValueError(f"{name!r} (parameter of {type(self).__name__}): expected {', '.join(SETTINGS)}")
            setattr(self, name, value)
        return self

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Takes the support set of a task, and sees that it can be learned. predict() learns it and answers at once.

        Args:
            X: n examples of the kind that the run was trained on: paths, PIL images, texts, a DataFrame, arrays or
                tensors.
            y: [n] their classes, as words or numbers; in regression their targets, [n] or [n, outputs].

        Raises:
            ValueError: the learner cannot take them.
            RunDirError: the run is not finished, or cannot be used.
        """
        trained = load_trained(self.run)
        if trained.facts.metric != self.metric:
            cls = KINDS[trained.facts.metric].__name__
            raise ValueError(f"{self.run} (run): learns for {trained.facts.metric}: expected {self.metric}; use {cls}")
        with as_value_errors(), borrowed():
            rows = rows_of(trained, X)
            x = encode_rows(trained, rows)
            classes, targets = self._prepare(trained, targets_of(y, len(x)))
            boolean(together=self.together)
            steps = self._inner_steps()
            task = Task(classes=classes, inner_steps=steps, together=self.together, columns=names_of(trained, rows))
            facts = trained.facts.model_copy(update={"task": task})
            order = np.argsort(targets, kind="stable") if classes else np.arange(len(x))  # by class, as eval has it
            fitted = replace(trained, facts=facts, support=(x[order], targets[order]))
            _build(fitted)
        self._take(fitted, columns_of(rows))
        return self

    def save(self, path: str | Path) -> None:
        """Writes the fitted learner to FILE.safetensors, for metarun.load(FILE).

        The support examples are in the file, and whoever has it can read them; further data of the run is not.

        Raises:
            NotFittedError: fit() was not called (ValueError, where scikit-learn is not installed).
            UsageError: the name has another suffix.
            RunDirError: something else has that name, or it cannot be written.
        """
        save_trained(self._fitted(), Path(path))

    def _prepare(self, trained: Trained, y: np.ndarray) -> tuple[list[Any] | None, np.ndarray]:
        """The user's classes in the learner's order (None in regression), and the targets as the learner has them."""
        raise NotImplementedError

    def _inner_steps(self) -> int | None:
        try:
            return None if self.inner_steps is None else index(self.inner_steps)
        except TypeError as error:
            raise ValueError(f"{self.inner_steps!r} (inner_steps): expected an integer, or None") from error

    def _take(self, fitted: Trained, columns: int | None) -> None:
        """Is fitted from now on."""
        self.trained_, names = fitted, fitted.facts.task and fitted.facts.task.columns
        for known in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(known, None)
        if columns is not None:
            self.n_features_in_ = columns
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)

    def _fitted(self) -> Trained:
        if not hasattr(self, "trained_"):
            raise _not_fitted()(f"{self!r} is not fitted: expected a task first; call fit(X, y)")
        return self.trained_

    def _outputs(self, x: Any) -> np.ndarray:
        """[n, outputs] float32, after the last inner step."""
        fitted = self._fitted()
        with as_value_errors(), borrowed():
            rows = rows_of(fitted, x)
            known, given = getattr(self, "n_features_in_", None), columns_of(rows)
            if None not in (known, given) and known != given and not hasattr(rows, "columns"):
                raise ValueError(
                    f"X has {given} features, but {type(self).__name__} is expecting {known} features as input"
                )
            names = getattr(self, "feature_names_in_", None)
            query = encode_rows(fitted, rows if names is None else in_order(fitted, rows, list(names)))
            assert fitted.support is not None
            return _build(fitted).answer(*fitted.support, query)[-1].numpy()


class LearnedClassifier(Learned):
    """A trained learner of classes. See Learned for the arguments.

    Attributes:
        classes_: [N] the user's own labels, sorted.
    """

    metric: ClassVar[Metric] = "accuracy"

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """[n] the class of each example. Raises ValueError as fit(), and where it is not fitted."""
        places = self._logits(X).argmax(axis=1)
        return self.classes_[places]

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """[n, N] float64 probabilities, in the order of classes_. Raises ValueError as predict()."""
        logits = self._logits(X).astype(np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """The accuracy, in [0, 1]. Raises ValueError as predict()."""
        found = self.predict(X)
        y = targets_of(y, len(found))
        first, learned = y.tolist()[0], self.classes_.tolist()[0]
        if isinstance(first, str) != isinstance(learned, str):
            raise ValueError(f"{first!r} (y): expected classes as they were learned, such as {learned!r}")
        return float(np.mean(found == y))

    def _logits(self, x: Any) -> np.ndarray:
        """[n, N]; a learner with a head of its own may have more outputs than the task has classes."""
        outputs, task = self._outputs(x), self.trained_.facts.task
        assert task is not None
        return outputs[:, np.argsort(np.asarray(task.classes))]

    def _prepare(self, trained: Trained, y: np.ndarray) -> tuple[list[Any] | None, np.ndarray]:
        if y.ndim != 1:
            raise ValueError(f"{list(y.shape)} (y): expected [n], a class for each example")
        if y.dtype.kind == "f" and (y != np.round(y)).any():
            raise ValueError(
                f"Unknown label type: {y[y != np.round(y)][0]} (y): expected classes, words or whole numbers"
            )
        if wrong := [value for value in y.tolist() if not isinstance(value, (str, int, float)) or value != value]:
            raise ValueError(f"{wrong[0]!r} (y): expected classes, words or whole numbers")
        try:
            classes, places = np.unique(y, return_inverse=True)
        except TypeError as error:
            raise ValueError("words and numbers (y): expected classes of one type; make them all words") from error
        numbers = number_classes(trained.facts.inputs, classes)
        return classes[np.argsort(numbers)].tolist(), numbers[places]

    def _take(self, fitted: Trained, columns: int | None) -> None:
        super()._take(fitted, columns)
        assert fitted.facts.task is not None
        self.classes_ = np.sort(np.asarray(fitted.facts.task.classes))


class LearnedRegressor(Learned):
    """A trained learner of numbers. See Learned for the arguments."""

    metric: ClassVar[Metric] = "mse"

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """[n] float64 values, in the units of y; [n, outputs] where there are several. Raises ValueError as fit()."""
        outputs = self._outputs(X)
        values = scale_of_target(self.trained_.facts.inputs).to_user(outputs)
        return values[:, 0] if values.shape[1] == 1 else values

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """R², 1 - the squared error's share of the targets' variance, at most 1. Raises ValueError as predict()."""
        values = self.predict(X)
        y = targets_of(y, len(values)).astype(np.float64)
        error, whole = (((y - found) ** 2).sum(axis=0) for found in (values, y.mean(axis=0)))
        shares = np.where(whole > 0, error / np.where(whole > 0, whole, 1), error > 0)  # as scikit-learn has it
        return float(np.mean(1 - shares))

    def _prepare(self, trained: Trained, y: np.ndarray) -> tuple[list[Any] | None, np.ndarray]:
        outputs = trained.facts.outputs
        try:
            values = y.astype(np.float64).reshape(len(y), -1)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{y[0]!r} (y): expected numbers; the run is one of regression") from error
        if values.shape[1] != outputs:
            raise ValueError(f"{values.shape[1]} targets of an example (y): expected {outputs}, as in training")
        with np.errstate(over="ignore"):
            values = scale_of_target(trained.facts.inputs).to_learner(values)
        if not np.isfinite(values).all():
            raise ValueError(
                "numbers that float32 does not have (y): expected targets as in training; scale or drop them"
            )
        return None, values


KINDS: dict[Metric, type[Learned]] = {"accuracy": LearnedClassifier, "mse": LearnedRegressor}


def load_learned(path: str | Path, **settings: Any) -> Learned:
    """See metarun.load()."""
    trained = load_trained(path)
    cls = KINDS[trained.facts.metric]
    if (task := trained.facts.task) is None:
        return cls(path).set_params(**settings)
    learned, inputs = cls(path, task.together, task.inner_steps).set_params(**settings), trained.facts.inputs
    boolean(together=learned.together)
    changed = {"together": learned.together, "inner_steps": learned._inner_steps()}
    trained = replace(trained, facts=trained.facts.model_copy(update={"task": task.model_copy(update=changed)}))
    of_table = len(task.columns or inputs.get("columns", ()))  # fit() may have been given more than the run has
    columns = {"table": of_table, "numbers": inputs["shape"][0]}.get(inputs["kind"])
    learned._take(trained, columns if len(inputs["shape"]) == 1 else None)
    return learned


def _build(fitted: Trained) -> Ready:
    task = fitted.facts.task
    assert task is not None
    return fitted.build(len(task.classes) if task.classes else None, task.together, task.inner_steps)


def _not_fitted() -> type[Exception]:
    try:
        from sklearn.exceptions import NotFittedError
    except ImportError:
        return ValueError
    return NotFittedError
