"""Closed-form heads against scikit-learn and finite differences."""

import pytest
import torch
from helpers.oracles import assert_central_differences, image_tasks
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC

from metarun import seeds
from metarun.algos.closed_form import ClosedForm, solve_head
from metarun.errors import SettingError
from metarun.models import MLP, Conv4
from metarun.tasks import Task

LAMBDA = 0.5
THEIRS = {
    "ridge": lambda: Ridge(alpha=LAMBDA, fit_intercept=False),
    "logistic": lambda: LogisticRegression(C=1 / LAMBDA, fit_intercept=False, tol=1e-13, solver="newton-cholesky"),
    "svm": lambda: LinearSVC(C=1 / (2 * LAMBDA), loss="squared_hinge", fit_intercept=False, dual=False, tol=1e-12),
}


def _points(features, size=1.0):
    """3-way 4-shot tasks of plain numbers."""
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat_interleave(4)
    x = size * (torch.randn(12, features, generator=draw, dtype=torch.float64) + y[:, None] / 2)
    query = torch.randn(5, features, generator=draw, dtype=torch.float64)
    return Task(x, y, query, torch.zeros(5, dtype=torch.int64), torch.tensor(1))


def _solver(name, features, outputs=3, **settings):
    model = MLP((features,), outputs, hidden=[]).double()
    return ClosedForm(model, solver=name, scale=1.0, penalty=LAMBDA, **settings)


@pytest.mark.parametrize("features", [3, 30], ids=["more points", "more features"])
@pytest.mark.parametrize("solver", THEIRS)
def test_the_head_is_that_of_scikit_learn(solver, features):
    task, algorithm = _points(features), _solver(solver, features)
    support, query = (torch.cat([x, torch.ones(len(x), 1)], dim=1).numpy() for x in (task.support_x, task.query_x))
    ours = algorithm.answers(algorithm.init(), task)
    for n in range(3):
        member = (task.support_y == n).long().numpy()
        theirs = THEIRS[solver]().fit(support, member)
        expected = theirs.predict(query) if solver == "ridge" else theirs.decision_function(query)
        close = 1e-6 if solver == "svm" else 1e-8  # liblinear stops there
        torch.testing.assert_close(ours[:, n], torch.from_numpy(expected), rtol=close, atol=close)


def test_the_svm_is_at_the_minimum_of_its_convex_loss():
    task = _points(30)
    x = torch.cat([task.support_x, torch.ones(len(task.support_x), 1)], dim=1)
    members = torch.nn.functional.one_hot(task.support_y).T.double()
    weights = solve_head("svm", x, members, torch.tensor(LAMBDA), 10).requires_grad_()
    hinge = (1 - (2 * members - 1) * (weights @ x.T)).clamp(min=0)
    (slope,) = torch.autograd.grad(hinge.square().sum() + LAMBDA * weights.square().sum(), weights)
    assert slope.abs().max() < 1e-12


@pytest.mark.parametrize("solver", ["logistic", "svm"])
@pytest.mark.parametrize("size", [0.1, 10.0])
def test_ten_newton_steps_are_enough(solver, size):
    task = _points(30, size)
    ten, many = (_solver(solver, 30, newton_steps=steps) for steps in (10, 100))
    torch.testing.assert_close(ten.answers(ten.init(), task), many.answers(many.init(), task), rtol=1e-6, atol=1e-6)


def test_regression_is_ridge_in_the_units_of_the_targets():
    task = _points(3)
    task = task._replace(support_y=torch.randn(12, 2, dtype=torch.float64), query_y=torch.zeros(5, 2))
    algorithm = _solver("ridge", 3, 2)
    support, query = (torch.cat([x, torch.ones(len(x), 1)], dim=1).numpy() for x in (task.support_x, task.query_x))
    expected = THEIRS["ridge"]().fit(support, task.support_y.numpy()).predict(query)
    torch.testing.assert_close(algorithm.answers(algorithm.init(), task), torch.from_numpy(expected))


@pytest.mark.parametrize("solver", THEIRS)
def test_it_is_learned_through_the_solution(solver):
    """Above all through the last Newton step, which stands for all of them."""
    tasks = image_tasks(torch.Generator().manual_seed(0), shots=3, queries=2)
    with seeds.forked("test", "closed form"):
        algorithm = ClosedForm(Conv4((1, 16, 16), 3, filters=4, norm="support").double(), solver=solver, penalty=0.5)
    assert_central_differences(algorithm, tasks, algorithm.init())


@pytest.mark.parametrize("solver", THEIRS)
def test_labels_are_only_names_and_tasks_may_have_fewer_classes(solver):
    task = _points(4)
    three, five = _solver(solver, 4), _solver(solver, 4, 5)
    logits = three.answers(three.init(), task)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(
        three.answers(three.init(), task._replace(support_y=order[task.support_y]))[:, order], logits
    )
    wide = five.answers(five.init(), task)
    torch.testing.assert_close(wide[:, :3], logits)
    assert (wide.argmax(dim=1) < 3).all()
    assert wide.isfinite().all()


def test_what_makes_no_sense_is_refused():
    with pytest.raises(SettingError, match="expected one of ridge, logistic, svm"):
        _solver("lasso", 3)
    for name in ("scale", "penalty"):
        with pytest.raises(SettingError, match=name):
            ClosedForm(MLP((3,), 2), **{name: 0})
