"""Implicit MAML against closed forms and against MAML."""

import torch
from helpers.oracles import Linear, quadratic
from torch.func import jacrev

from metarun.algos.imaml import IMAML, dot, solve
from metarun.engine.engine import Engine


def _made(**settings):
    model = Linear(5)
    torch.nn.init.constant_(model.theta, 0.3)
    return IMAML(model, **{"inner_lr": 0.1, "inner_steps": 200, "cg_steps": 8, "damping": 0.0, **settings})


def test_on_a_quadratic_it_is_the_closed_form():
    """φ* = (A + λI)⁻¹(Ac + λθ), so that dφ*/dθ = λ(A + λI)⁻¹."""
    tasks, a, c, b, d = quadratic()
    algorithm = _made()
    meta = algorithm.init()
    eye = torch.eye(5, dtype=torch.float64)
    jacobian = 2.0 * torch.linalg.inv(a + 2.0 * eye)
    solution = torch.linalg.solve(a + 2.0 * eye, a @ c + 2.0 * meta["theta"])
    *_, last = algorithm.adapt(meta, tasks.select(0), 200)
    torch.testing.assert_close(last["theta"], solution)
    expected = jacobian.T @ b @ (solution - d)
    for mode in ("loop", "vmap"):
        gradient = Engine(mode).meta_gradient(algorithm, meta, tasks)
        torch.testing.assert_close(gradient.grads["theta"], expected, rtol=1e-8, atol=1e-8)


def test_its_gradient_is_that_of_differentiating_all_inner_steps():
    """MAML's way, through two hundred steps on the same inner problem."""
    tasks = quadratic()[0]
    algorithm = _made()
    task, meta = tasks.select(0), algorithm.init()

    def unrolled(theta):
        params, prior = theta, theta
        for _ in range(200):
            slope = jacrev(lambda p: algorithm.loss({"theta": p, "prior.theta": prior}, task.support_x, task.support_y))
            params = params - 0.1 * slope(params)
        return algorithm.judge({"theta": params}, task)[0]

    ours = Engine("loop").meta_gradient(algorithm, meta, tasks).grads["theta"]
    torch.testing.assert_close(ours, jacrev(unrolled)(meta["theta"]), rtol=1e-7, atol=1e-9)


def test_conjugate_gradients_solve_a_system_in_as_many_steps_as_it_has_unknowns():
    draw = torch.Generator().manual_seed(0)
    half = torch.randn(6, 6, generator=draw, dtype=torch.float64)
    matrix, target = half @ half.T + torch.eye(6), torch.randn(6, generator=draw, dtype=torch.float64)

    def multiply(v):
        whole = matrix @ torch.cat([v["a"], v["b"]])
        return {"a": whole[:2], "b": whole[2:]}

    found = solve(multiply, {"a": target[:2], "b": target[2:]}, 6)
    torch.testing.assert_close(torch.cat([found["a"], found["b"]]), torch.linalg.solve(matrix, target))
    more = solve(multiply, {"a": target[:2], "b": target[2:]}, 60)
    assert all(torch.allclose(more[name], found[name]) for name in found), "a step on a solved system changes nothing"
    assert dot(found, found) == torch.cat([found["a"], found["b"]]).square().sum()


def test_a_curvature_that_is_no_number_is_not_taken_for_a_solution():
    found = solve(lambda v: {"a": v["a"] * torch.nan}, {"a": torch.ones(2)}, 1)
    assert found["a"].isnan().all()
