"""The baseline against scikit-learn, and whose classes are in its head."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.own_data import write_own_data
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from metarun import seeds
from metarun.algos.baseline import BIAS, MEAN, WEIGHT, Baseline
from metarun.config.compose import compose
from metarun.engine import loop
from metarun.errors import SettingError
from metarun.models import MLP
from metarun.run.build import build_experiment
from metarun.tasks import Task


@pytest.fixture(scope="module")
def experiment(data_root):
    """On drawings, with an outer step done."""
    words = ("algo=baseline", "data=omniglot", f"data.root={data_root}", "model.filters=4", "data.shots=2")
    experiment = build_experiment(compose(words))
    experiment.source.prepare(experiment.device)
    return experiment


def test_its_head_has_the_training_classes_and_no_other(experiment):
    """Every turn of a training class is one, and the numbers of a task's classes are theirs."""
    source = experiment.source
    count = 4 * source.split_sizes["train"]
    assert experiment.algorithm.init()[WEIGHT].shape[0] == count
    tasks = source.sample(0, "train", torch.arange(400))
    assert set(tasks.classes.flatten().tolist()) == set(range(count))
    by_number = {}
    for task in (tasks.select(t) for t in range(400)):
        for n, number in enumerate(task.classes.tolist()):
            drawings = {x.numpy().tobytes() for x in task.support_x[task.support_y == n]}
            by_number.setdefault(number, set()).update(drawings)
    assert sum(map(len, by_number.values())) == len(set.union(*by_number.values())), "no drawing has two numbers"


def test_a_learner_may_be_only_a_head():
    """As on embeddings of another network: there is nothing to learn below it."""
    shapes = {name: list(value.shape) for name, value in Baseline(MLP((3,), 2, hidden=[])).init().items()}
    assert shapes == {WEIGHT: [0, 3], BIAS: [0], MEAN: [3]}, "until it is told of training classes"


def test_it_learns_the_classes_that_a_task_is_made_of(experiment):
    algorithm, meta = experiment.algorithm, experiment.algorithm.init()
    task = experiment.source.sample(0, "train", torch.arange(1)).select(0)
    leaves = {name: value.requires_grad_() for name, value in meta.items()}
    features = algorithm.embed(leaves, task)
    loss, _ = algorithm.meta_loss(leaves, task)
    _, labels = task.points()
    logits = (features @ meta[WEIGHT].T + meta[BIAS]).log_softmax(dim=1)
    expected = -torch.stack([logits[p, task.classes[y]] for p, y in enumerate(labels)]).mean()
    torch.testing.assert_close(loss, expected)
    (slope,) = torch.autograd.grad(loss, leaves[MEAN], retain_graph=True)
    torch.testing.assert_close(slope, meta[MEAN] - features.detach().mean(dim=0))
    (slope,) = torch.autograd.grad(loss, leaves[WEIGHT])
    present = set(task.classes.tolist())
    assert {n for n, row in enumerate(slope) if row.abs().max() > 1e-2} == present


def _on_plain_features(classify):
    with seeds.forked("test", "baseline"):
        algorithm = Baseline(MLP((4,), 3, hidden=[]).double(), classify=classify)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(21, 4, generator=draw, dtype=torch.float64)
    y = torch.arange(12) % 3
    task = Task(x[:12], y, x[12:], torch.zeros(9), torch.tensor(1))
    meta = {MEAN: torch.tensor([0.3, -0.2, 0.1, 0.0], dtype=torch.float64)}
    return algorithm.answers(meta, task), task, meta[MEAN]


def test_centroids_are_those_of_scikit_learn_on_centred_features_of_length_1():
    found, task, mean = _on_plain_features("centroid")
    support, query = ((x - mean) / (x - mean).norm(dim=1, keepdim=True) for x in (task.support_x, task.query_x))
    theirs = NearestCentroid().fit(support, task.support_y).predict(query)
    assert found.argmax(dim=1).tolist() == theirs.tolist()


def test_cosines_are_those_of_class_means():
    found, task, _ = _on_plain_features("cosine")
    support = torch.nn.functional.normalize(task.support_x, dim=1)
    means = torch.stack([support[task.support_y == n].mean(dim=0) for n in range(3)])
    expected = torch.stack([torch.cosine_similarity(task.query_x, mean[None]) for mean in means], dim=1)
    torch.testing.assert_close(found, 10 * expected)


def test_logistic_regression_is_that_of_scikit_learn():
    found, task, _ = _on_plain_features("logistic")
    support, query = (np.c_[x.numpy(), np.ones(len(x))] for x in (task.support_x, task.query_x))
    for n in range(3):
        model = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-13, solver="newton-cholesky")
        expected = model.fit(support, (task.support_y == n).numpy()).decision_function(query)
        np.testing.assert_allclose(found[:, n], expected, rtol=1e-8, atol=1e-8)


def test_it_is_tested_on_data_with_other_training_classes(experiment):
    """Its head is no part of a trained learner."""
    from metarun.run.starting_point import restore

    state = loop.start(experiment)
    saved = {**loop.snapshot(state), "split_hash": experiment.source.identity()["split_hash"], "frozen": ""}
    saved["meta"] = {**saved["meta"], WEIGHT: torch.zeros(7, saved["meta"][WEIGHT].shape[1])}
    restore(experiment, state, saved)
    assert len(loop.meta_test(experiment, state.meta, "test", 4).each) == 4


def test_a_trained_learner_is_tested_on_images_of_which_none_are_for_training(metarun, data_root):
    """All of another source's classes are for the test; the contract's check then asks for no meta-loss."""
    write_own_data(Path())
    short = ("meta_steps=1", "val_tasks=2", "test_tasks=2", "model.filters=4", "hydra.run.dir=run")
    assert metarun("algo=baseline", "data=omniglot", f"data.root={data_root}", *short)[0] == 0
    code, out, err = metarun("eval", "run", "data=images", "data.root=letters")
    assert code == 0, err
    assert "trained on omniglot" in out


def test_what_makes_no_sense_is_refused():
    with pytest.raises(SettingError, match="classify"):
        Baseline(MLP((3,), 2), classify="nearest")
