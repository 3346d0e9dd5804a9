"""Estimators in tasks against the same estimators by hand."""

import importlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC

from metarun.algos.sklearn import ScikitLearn, _estimators
from metarun.config.compose import compose
from metarun.engine.engine import Engine
from metarun.errors import UsageError
from metarun.run.build import build_experiment


def _experiment(*words):
    experiment = build_experiment(compose(("algo=sklearn", *words)))
    experiment.source.prepare(experiment.device)
    return experiment, experiment.source.sample(0, "test", torch.arange(3))


@pytest.mark.parametrize(
    ("words", "by_hand"),
    [
        (["data=sinusoid", "algo.settings={alpha:10}"], lambda x, y, q: Ridge(alpha=10).fit(x, y).predict(q)),
        (["data=tabular"], lambda x, y, q: np.log(LogisticRegression(random_state=0).fit(x, y).predict_proba(q))),
        (
            ["data=tabular", "algo.estimator=sklearn.svm.LinearSVC", "data.ways=3"],
            lambda x, y, q: LinearSVC(random_state=0).fit(x, y).decision_function(q),
        ),
    ],
    ids=["regression", "probabilities", "margins"],
)
def test_answers_are_those_of_the_estimator_in_every_engine(words, by_hand):
    experiment, tasks = _experiment(*words)
    for mode in ("loop", "vmap"):
        found = Engine(mode).map_tasks(experiment.algorithm.predictions, experiment.algorithm.init(), tasks)
        for t in range(3):
            task = tasks.select(t)
            expected = by_hand(task.support_x.numpy(), task.support_y.numpy(), task.query_x.numpy())
            np.testing.assert_allclose(found[t, 0].numpy().squeeze(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["algo.estimator=sklearn.linear_model.Rigde"], "did you mean sklearn.linear_model.Ridge"),
        (["algo.estimator=os.system"], "a regressor of scikit-learn by its full name, for the tasks are regression"),
        (
            ["algo.estimator=sklearn.svm.SVC"],
            "a regressor of scikit-learn by its full name, for the tasks are regression",
        ),
        (["algo.estimator=5"], "5.*expected a name"),
        (["algo.estimator=[a,b]"], "expected a name"),
        *((([f"algo.settings={value}"], "values by name")) for value in ("5", "[1,2]", "alpha")),
        (
            ["data=tabular", "algo.estimator=sklearn.ensemble.StackingClassifier"],
            "expected its estimators in algo.settings",
        ),
        (["algo.settings={alfa:1}"], "settings that sklearn.linear_model.Ridge takes"),
        (["algo.settings={alpha:-1}"], "settings that sklearn.linear_model.Ridge takes.*alpha"),
    ],
)
def test_what_is_no_estimator_is_refused(words, says):
    with pytest.raises(UsageError, match=says):
        build_experiment(compose(("algo=sklearn", *words)))


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_estimators_have_the_names_by_which_they_are_imported(kind):
    for name, cls in _estimators(kind).items():
        module, _, own = name.rpartition(".")
        assert getattr(importlib.import_module(module), own) is cls


@pytest.mark.parametrize(
    ("settings", "says"), [("n_neighbors:99", "Expected n_neighbors <= n_samples_fit"), ("metric_params:{w:3}", "")]
)
def test_an_estimator_that_cannot_be_fitted_says_why(settings, says):
    words = ("data=tabular", "algo.estimator=sklearn.neighbors.KNeighborsClassifier", f"algo.settings={{{settings}}}")
    experiment, tasks = _experiment(*words)
    with pytest.raises(UsageError, match=f"cannot be fitted to a support set: {says}"):
        experiment.engine.adaptation_curves(experiment.algorithm, experiment.algorithm.init(), tasks)


def test_it_fits_what_is_tested_and_says_once_what_troubles_it(metarun, monkeypatch):
    """However many outer steps the command has, in a sweep beside algorithms that train; and no learner is told of."""
    fits = []
    monkeypatch.setattr(ScikitLearn, "fit", lambda self, *task, fit=ScikitLearn.fit: fits.append(1) or fit(self, *task))
    words = ("data=tabular", "algo.estimator=sklearn.neural_network.MLPClassifier", "algo.settings={max_iter:1}")
    few = ("meta_steps=500", "meta_batch=2", "val_tasks=2", "test_tasks=2", "hydra.run.dir=run")
    code, out, _ = metarun("algo=sklearn", *words, *few)
    assert code == 0
    assert len(fits) < 30, "the check beforehand, validation, test and a picture"
    assert "without meta-training" in out
    assert "MLPClassifier(max_iter=1)" in out
    assert "meta-parameters" not in out
    assert Path("run/metarun.log").read_text().count("hasn't converged") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["data.ways=3", "algo.estimator=sklearn.neighbors.NearestCentroid"],
        ["data.ways=3", "algo.estimator=sklearn.svm.SVC", "algo.settings={decision_function_shape:ovo}"],
        ["data.ways=5", "algo.estimator=sklearn.svm.SVC", "algo.settings={decision_function_shape:ovo}"],
        ["data.ways=3", "algo.estimator=sklearn.svm.SVC", "algo.settings={probability:true}"],
    ],
    ids=lambda words: " ".join(words),
)
@pytest.mark.filterwarnings("ignore:The .probability. parameter:FutureWarning")
def test_its_class_is_what_the_estimator_predicts(words):
    """Not where probabilities or margins are largest, which may be elsewhere, or be of pairs of classes."""
    experiment, tasks = _experiment("data=tabular", "data.shots=4", *words)
    found = experiment.engine.map_tasks(experiment.algorithm.predictions, experiment.algorithm.init(), tasks)
    for t in range(3):
        task = tasks.select(t)
        expected = experiment.algorithm.make().fit(task.support_x.numpy(), task.support_y.numpy())
        assert found[t, 0].argmax(dim=1).tolist() == expected.predict(task.query_x.numpy()).tolist()


def test_an_estimator_that_draws_without_a_seed_of_its_own_gives_the_same_twice():
    """SVR takes its seed from numpy's global generator, which is left as it was."""
    experiment, tasks = _experiment("data=sinusoid", "algo.estimator=sklearn.svm.SVR")
    before = np.random.get_state()[1].copy()
    first, again = (
        experiment.engine.adaptation_curves(experiment.algorithm, experiment.algorithm.init(), tasks) for _ in range(2)
    )
    assert torch.equal(first, again)
    assert (np.random.get_state()[1] == before).all()


def test_threads_that_fit_at_the_same_time_leave_pythons_warnings_alone():
    experiment, _ = _experiment("data=tabular", "algo.settings={max_iter:1}")
    tasks = experiment.source.sample(0, "test", torch.arange(12))
    before, threads = warnings.showwarning, torch.get_num_threads()
    with warnings.catch_warnings(record=True) as caught:
        try:
            torch.set_num_threads(2)
            engine = Engine(eval_chunk=1)
            engine.adaptation_curves(experiment.algorithm, experiment.algorithm.init(), tasks)
        finally:
            torch.set_num_threads(threads)
        warnings.warn("after it", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["after it"]
    assert warnings.showwarning is before


def test_an_estimator_that_answers_with_no_number_is_named():
    """Isotonic regression has none beyond the support points."""
    experiment, tasks = _experiment("data=sinusoid", "algo.estimator=sklearn.isotonic.IsotonicRegression")
    with pytest.raises(
        UsageError, match=r"IsotonicRegression \(algo.estimator\): answers a query with what is no number"
    ):
        experiment.engine.adaptation_curves(experiment.algorithm, experiment.algorithm.init(), tasks)
