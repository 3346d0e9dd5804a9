"""A loaded run is an estimator as scikit-learn knows them: its checks, its scores, its tools, and the user's own labels."""

import json
import pickle
import re
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from helpers.runs import train
from helpers.tables import cities
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

import metarun
from metarun.engine import device
from metarun.errors import RunDirError
from metarun.run import given_arrays
from metarun.run.build import build_experiment
from metarun.run.learned import LearnedClassifier, LearnedRegressor
from metarun.run.loading import load_trained, save_trained

LENGTH = ("meta_steps=2", "val_every=1", "val_tasks=2", "test_tasks=4", "meta_batch=2", "device.threads=1")
HALVES = "data.splits=[0.5,0.25,0.25]"
RUNS = {
    "waves": ("model.hidden=[8]", "algo.eval_inner_steps=2"),
    "points": ("algo=protonet", "data=tabular", "model.hidden=[8]"),
    "wages": ("data=table", "data.file=t.csv", "data.target=wage", "data.task=city", "data.drop=[name,job]", HALVES,
              "data.shots=3", "data.queries=5", "model.hidden=[8]", "algo.eval_inner_steps=2"),
    "jobs": ("data=table", "data.file=t.csv", "data.target=job", "data.task=city", "data.drop=[name]", HALVES,
             "data.shots=1", "data.queries=1", "model.hidden=[8]", "algo.eval_inner_steps=2"),
}  # fmt: skip
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 10))
SIGNS = X[:, 0] > 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Gives the directory of a small run, which is trained when it is first asked for."""
    made, folder = {}, tmp_path_factory.mktemp("runs")
    cities().to_csv(folder / "t.csv", index=False)

    def give(name):
        if name not in made:
            made[name] = train(folder / name, *LENGTH, *RUNS[name])
        return made[name]

    return give


# Checks that are excused, and why.
EXCUSED = {
    "check_dtype_object": "a cell that is no number is a ValueError, in one line, and no TypeError",
    "check_supervised_y_2d": "a column of targets, as a DataFrame gives it, is taken without a warning",
    "check_methods_sample_order_invariance": "answers are float32: their last digits depend on what comes together",
    "check_methods_subset_invariance": "answers are float32: their last digits depend on what comes together",
    "check_array_api_input": "arrays of other libraries are asked for in the environment",
}
SLOW = ("check_classifiers_train", "check_regressors_train", "check_estimator_sparse_array", "check_estimator_sparse_matrix",
        "check_estimators_dtypes", "check_f_contiguous_array_estimator", "check_readonly_memmap_input", "check_fit_idempotent",
        "check_classifier_data_not_an_array", "check_regressor_data_not_an_array")  # fmt: skip


@pytest.mark.parametrize("length", ["quick", pytest.param("all", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["points", "waves"])
def test_the_checks_of_scikit_learn(run, monkeypatch, name, length):
    """They have rows of all widths: here these are repeated or cut to the width of training, as a projection would."""
    encode = given_arrays.encode

    def encode_any_width(inputs, x, where):
        x, width = np.asarray(x), inputs["shape"][0]
        if x.ndim == 2 and x.size:
            x = x[:, np.arange(width) % x.shape[1]]
        return encode(inputs, x.reshape(len(x), -1) if x.size else np.zeros((len(x), width)), where)

    monkeypatch.setattr(given_arrays, "encode", encode_any_width)
    done = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for estimator, check in estimator_checks_generator(metarun.load(run(name))):
            check_name = re.search(r"check_\w+", str(getattr(check, "func", check)))[0]
            if check_name not in (*EXCUSED, *(SLOW if length == "quick" else ())):
                check(estimator)
                done += 1
    assert done > (35 if length == "quick" else 44)


@pytest.mark.parametrize("name", ["words", "numbers", "truths", "objects", "floats"])
def test_classes_are_the_users_own_labels_also_in_a_file(run, tmp_path, name):
    y = {"words": np.where(SIGNS, "ü", "b"), "numbers": SIGNS * 4 - 7, "truths": SIGNS, "floats": SIGNS * 2.0}.get(name)
    y = np.array(["ja", "no"], dtype=object)[SIGNS.astype(int)] if y is None else y
    learner = metarun.load(run("points")).fit(X, y)
    assert learner.classes_.tolist() == sorted(set(y.tolist()))
    assert learner.score(X, y) == accuracy_score(y, learner.predict(X)) > 0.6
    chances = learner.predict_proba(X)
    assert np.allclose(chances.sum(axis=1), 1, atol=1e-12)
    assert np.array_equal(learner.classes_[chances.argmax(axis=1)], learner.predict(X))
    learner.save(tmp_path / "mine.safetensors")
    again = metarun.load(tmp_path / "mine.safetensors")
    for other in (again, pickle.loads(pickle.dumps(learner))):
        assert other.classes_.tolist() == learner.classes_.tolist()
        assert [type(value) for value in other.classes_.tolist()] == [
            type(value) for value in learner.classes_.tolist()
        ]
        assert other.n_features_in_ == 10
        assert np.array_equal(other.predict_proba(X), chances)
    refitted = clone(again).fit(X, SIGNS)
    assert refitted.classes_.tolist() == [False, True]
    assert np.array_equal(refitted.predict(X), clone(learner).fit(X, SIGNS).predict(X)), "a file is as good as the run"


def test_columns_go_by_their_names_and_arrays_by_the_order_of_fit(run, tmp_path):
    learner = metarun.load(run("points")).fit(X, SIGNS)
    expected = learner.predict_proba(X)
    back = [f"x{n}" for n in reversed(range(10))]  # the names in files for `metarun adapt`
    frame = pandas.DataFrame(X[:, ::-1], columns=back)
    assert np.array_equal(learner.predict_proba(frame), expected)
    learner.fit(frame, SIGNS)
    assert learner.feature_names_in_.tolist() == back
    for form in (frame, frame[back[::-1]], frame.to_numpy()):
        assert np.array_equal(learner.predict_proba(form), expected)
    named = frame.rename(columns=lambda name: f"{name}!")
    learner.fit(named.iloc[:, ::-1], SIGNS)
    for form in (named, X):
        assert np.array_equal(learner.predict_proba(form), expected)
    learner.save(tmp_path / "f.safetensors")
    again = metarun.load(tmp_path / "f.safetensors")
    assert again.feature_names_in_.tolist() == learner.feature_names_in_.tolist()
    for form in (named, X):
        assert np.array_equal(again.predict_proba(form), expected)
    with pytest.raises(ValueError, match=r"'x3!' \(X\): no such column"):
        learner.predict(named.drop(columns="x3!"))


def test_cells_of_a_table_go_by_the_order_of_the_frame_that_it_was_fitted_with(run):
    frame = cities().iloc[:20]
    rows = frame.drop(columns=["city", "name", "wage"]).iloc[:, ::-1].assign(other="beside them")
    learner = metarun.load(run("wages")).fit(rows, frame["wage"])
    assert np.array_equal(learner.predict(rows.to_numpy()), learner.predict(rows))


def test_words_are_not_scored_against_numbers(run):
    learner = metarun.load(run("points")).fit(X, np.where(SIGNS, "1", "0"))
    with pytest.raises(ValueError, match=r"1 \(y\): expected classes as they were learned, such as '0'"):
        learner.score(X[SIGNS], SIGNS[SIGNS].astype(int))


def test_settings_may_come_with_the_path(run, tmp_path):
    learner = metarun.load(run("waves"), inner_steps=1, together=True)
    assert learner.get_params() == {"run": run("waves"), "together": True, "inner_steps": 1}
    with pytest.raises(ValueError, match="'steps'"):
        metarun.load(run("waves"), steps=1)
    x, y = np.linspace(-5, 5, 12)[:, None], np.linspace(0, 1, 12)
    expected = learner.fit(x, y).predict(x)
    metarun.load(run("waves")).fit(x, y).save(tmp_path / "f.safetensors")
    fitted = metarun.load(tmp_path / "f.safetensors", inner_steps=1, together=True)
    assert np.array_equal(fitted.predict(x), expected)
    assert not np.array_equal(metarun.load(tmp_path / "f.safetensors").predict(x), expected)
    with pytest.raises(ValueError, match=r"1.5 \(inner_steps\): expected an integer"):
        learner.set_params(inner_steps=1.5).fit([[0.0]], [0.0])


def test_the_order_of_the_support_set_does_not_matter_and_tensors_are_arrays(run):
    learner, order = metarun.load(run("points")), RNG.permutation(24)
    first = learner.fit(X, SIGNS).predict_proba(X)
    assert np.allclose(learner.fit(X[order], SIGNS[order]).predict_proba(X), first, atol=1e-6)
    by_class = np.argsort(SIGNS, kind="stable")  # as tasks of a run have it: then to the last bit
    assert np.array_equal(learner.fit(X[by_class], SIGNS[by_class]).predict_proba(X), first)
    tensors = learner.fit(torch.from_numpy(X), torch.from_numpy(SIGNS)).predict_proba(torch.from_numpy(X))
    assert np.array_equal(tensors, first)
    assert np.allclose(learner.predict_proba(X[:1]), first[:1], atol=1e-6)


def test_scores_of_regression_are_those_of_scikit_learn(run):
    learner = metarun.load(run("waves"))
    x = np.linspace(-5, 5, 12)[:, None]
    y = 2 * np.sin(x[:, 0])
    values = learner.fit(x, y).predict(x)
    assert values.shape == (12,)
    assert learner.score(x, y) == pytest.approx(r2_score(y, values), rel=1e-12)
    assert np.array_equal(learner.fit(x, y[:, None].tolist()).predict(x), values)
    assert learner.score(x, np.ones(12)) == r2_score(np.ones(12), learner.predict(x)) == 0
    assert learner.set_params(inner_steps=1).fit(x, y).predict(x) != pytest.approx(values)


def test_tools_of_scikit_learn_take_it(run):
    learner = metarun.load(run("points"))
    scores = cross_val_score(learner, X, SIGNS, cv=3)
    assert np.isfinite(scores).all()
    assert is_classifier(learner)
    pipeline = make_pipeline(FunctionTransformer(lambda x: x * 1.0), learner)
    assert np.array_equal(cross_val_score(pipeline, X, SIGNS, cv=3), scores)
    x = np.linspace(-5, 5, 12)[:, None]
    wave = metarun.load(run("waves"))
    search = GridSearchCV(wave, {"inner_steps": [1, np.int64(3)]}, cv=2, error_score="raise").fit(x, np.sin(x[:, 0]))
    assert is_regressor(wave)
    assert search.best_params_["inner_steps"] in (1, 3)
    assert repr(clone(wave).set_params(inner_steps=3)) == f"LearnedRegressor({str(run('waves'))!r}, inner_steps=3)"


@pytest.mark.parametrize("name", ["wages", "jobs"])
def test_rows_of_a_table_are_answered_as_in_the_runs_own_test(run, name):
    """In the units and the words of the table, from its cells; the run has the metric of each of its test tasks."""
    frame = cities()
    trained = load_trained(run(name))
    source = build_experiment(trained.config).source
    source.prepare(torch.device("cpu"))
    order = source.source if hasattr(source, "source") else source
    tables = order.clusters(trained.config.seed, "test", torch.arange(4))[:, 0]
    each = json.loads((run(name) / "test_tasks.json").read_text())["each"]
    column = "wage" if name == "wages" else "job"
    for number in range(4):
        task = source.sample(trained.config.seed, "test", torch.tensor([number])).select(0)
        city = list(order._order)[tables[number]]
        rows = frame[frame["city"] == city].set_index("age" if name == "wages" else "wage", drop=False)
        encoded = given_arrays.encode(trained.facts.inputs, rows)
        find = [
            [int(np.flatnonzero((encoded == x.numpy()).all(axis=1))[0]) for x in part]
            for part in (task.support_x, task.query_x)
        ]
        support, query = (rows.iloc[places] for places in find)
        learner = metarun.load(run(name)).fit(support, support[column])
        if name == "jobs":
            assert learner.score(query, query[column]) == pytest.approx(each[number], abs=1e-6)
            assert learner.classes_.tolist() == ["baker", "smith"]
        else:
            errors = (learner.predict(query) - query[column]) / order.scale[1]
            assert np.mean(errors**2) == pytest.approx(each[number], rel=1e-4)
    with pytest.raises(ValueError, match="'age'"):
        learner.predict(query.drop(columns="age"))
    if name == "jobs":
        with pytest.raises(ValueError, match=r"all classes that the tasks of training had.*baker, smith"):
            learner.fit(support, ["cook", "smith"])


def test_a_class_of_training_has_its_output_whatever_its_place_among_the_users(run, tmp_path):
    """A learner whose classes of training are the same, but numbered the other way, is the same one with them swapped."""
    trained, frame = load_trained(run("jobs")), cities().iloc[:20]
    first = metarun.load(run("jobs")).fit(frame, frame["job"].map({"baker": "smith", "smith": "baker"}))
    target = {**trained.facts.inputs["target"], "classes": ["smith", "baker"]}
    facts = trained.facts.model_copy(update={"inputs": {**trained.facts.inputs, "target": target}})
    save_trained(replace(trained, facts=facts), tmp_path / "other.safetensors")
    other = metarun.load(tmp_path / "other.safetensors").fit(frame, frame["job"])
    other.save(tmp_path / "fitted.safetensors")
    for learner in (other, metarun.load(tmp_path / "fitted.safetensors")):
        assert learner.classes_.tolist() == ["baker", "smith"]
        assert np.array_equal(learner.predict_proba(frame)[:, ::-1], first.predict_proba(frame))


GAP = np.where(np.arange(24) == 3, np.nan, 1.0)
WRONG = {
    "one label too few": (X, SIGNS[1:], r"\[23\] \(y\): expected 24"),
    "no labels": (X, None, "requires y to be passed"),
    "one class": (X, ["a"] * 24, "1 class.*at least 2"),
    "a gap in X": (X * GAP[:, None], SIGNS, r"infinity \(X\): expected finite"),
    "a gap in y": (X, SIGNS * GAP, r"nan.*\(y\): expected finite"),
    "None in y": (X, [None, *["a"] * 23], r"None \(y\)"),
    "a gap among words": (X, np.array([np.nan, *["a"] * 23], dtype=object), r"nan \(y\)"),
    "one label": (X, "a", r"\[\] \(y\): expected 24"),
    "shares for classes": (X, X[:, 0], "Unknown label type"),
    "words and numbers": (X, np.array([1, "a"] * 12, dtype=object), "classes of one type"),
    "two labels each": (X, np.stack([SIGNS] * 2, axis=1), r"\[24, 2\] \(y\)"),
    "other columns": (X[:, :9], SIGNS, r"\[24, 9\] \(X\): expected \[n, 10\]"),
    "one example": (X[0], SIGNS, "Reshape your data"),
    "no examples": (X[:0], [], "minimum of 1"),
    "words": ([["a"] * 10] * 24, SIGNS, r"\(X\): expected numbers"),
    "unlike rows": ([[1, 2], [3]], SIGNS, "unlike lengths"),
    "complex": (X + 1j, SIGNS, "Complex data"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_learned_is_a_value_error_of_one_line(run, case):
    x, y, message = WRONG[case]
    learner = metarun.load(run("points"))
    with pytest.raises(ValueError, match=message) as caught:
        learner.fit(x, y)
    assert "\n" not in str(caught.value)
    assert not hasattr(learner, "classes_")


def test_regression_and_settings_refuse_too(run, tmp_path):
    wave, x = metarun.load(run("waves")), np.zeros((3, 1))
    for y, message in ((["a", "b", "c"], "expected numbers"), (np.zeros((3, 2)), "2 targets"), ([1e60] * 3, "float32")):
        with pytest.raises(ValueError, match=message):
            wave.fit(x, y)
    with pytest.raises(ValueError, match="not finite"):
        wave.fit(x + 1e25, [1.0, 2.0, 3.0]).predict(x)
    with pytest.raises(ValueError, match="expected 3"):
        wave.fit(x, [1.0, 2.0, 3.0]).score(x, [1.0])
    with pytest.raises(ValueError, match="minimum of 1"):
        wave.predict(x[:0])
    with pytest.raises(ValueError, match="LearnedRegressor"):
        LearnedClassifier(run("waves")).fit(x, [0, 1, 1])
    with pytest.raises(ValueError, match="LearnedClassifier"):
        LearnedRegressor(run("points")).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="together"):
        wave.set_params(together=1).fit(x, [0, 1, 1])
    with pytest.raises(ValueError, match=r"'steps'.*run, together, inner_steps"):
        wave.set_params(steps=1)
    with pytest.raises(ValueError, match="inner_steps"):
        wave.set_params(together=False, inner_steps=0).fit(x, [0, 1, 1])
    with pytest.raises(RunDirError, match="nowhere"):
        metarun.load(tmp_path / "nowhere")


def test_one_that_is_not_fitted_says_so_also_without_scikit_learn(run, tmp_path, monkeypatch):
    learner = metarun.load(run("points"))
    for call in (learner.predict, learner.predict_proba, lambda x: learner.score(x, SIGNS)):
        with pytest.raises(NotFittedError, match="call fit"):
            call(X)
    monkeypatch.setitem(sys.modules, "sklearn.exceptions", None)
    with pytest.raises(ValueError, match="call fit") as caught:
        learner.save(tmp_path / "x.safetensors")
    assert type(caught.value) is ValueError
    assert not list(tmp_path.iterdir())


def test_torchs_settings_are_the_users_again(run):
    device.put_back()
    torch.use_deterministic_algorithms(False)
    learner = metarun.load(run("points")).fit(X, SIGNS)
    learner.predict(X)
    assert not torch.are_deterministic_algorithms_enabled()


def test_importing_metarun_imports_nothing_heavy():
    code = "import sys, metarun; metarun.load; sys.exit(bool({'torch', 'numpy', 'pydantic', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
