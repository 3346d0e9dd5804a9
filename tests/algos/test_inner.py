"""Inner-loop updates against torch's optimisers, finite differences and known factors."""

import torch

from metarun.algos.inner import SGD, Adam, inner_step

CPU = torch.device("cpu")


def trajectory(losses, params, rule, first_order=False):
    """The parameters after 0, 1, ... inner steps."""
    state = rule.init(params)
    yield params
    for loss in losses:
        params, state = inner_step(loss, params, rule, state, first_order=first_order)
        yield params


def test_each_second_order_factor_is_there():
    """With rates .1 .2 .3 .4 .5 on ½θ², MAML's gradient is 0.1512 of the first-order one; each lost factor shows."""

    class Rates(SGD):
        def init(self, params):
            return iter([0.1, 0.2, 0.3, 0.4, 0.5])

        def step(self, params, grads, state):
            rate = next(state)
            return {"x": params["x"] - rate * grads["x"]}, state

    def gradient(first_order):
        x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        *_, last = trajectory([lambda p: 0.5 * p["x"] ** 2] * 5, {"x": x}, Rates(0.0), first_order=first_order)
        return torch.autograd.grad(0.5 * last["x"] ** 2, x)[0]

    torch.testing.assert_close(
        gradient(False) / gradient(True), torch.tensor(0.1512, dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_inner_adam_is_torch_adam():
    target = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    reference = torch.optim.Adam([x], lr=0.1, betas=(0.0, 0.99))
    losses = [lambda p: ((p["x"] - target) ** 4).sum()] * 7
    steps = trajectory(losses, {"x": x.detach().clone()}, Adam(0.1, (0.0, 0.99)))
    for ours in steps:
        torch.testing.assert_close(ours["x"], x.detach(), rtol=1e-12, atol=1e-12)
        reference.zero_grad()
        ((x - target) ** 4).sum().backward()
        reference.step()


def test_gradients_pass_through_inner_adam():
    """Against finite differences, with an eps that keeps Adam's sign-like first step smooth; and finite at g = 0."""

    def last(x, eps):
        *_, params = trajectory([lambda p: ((p["x"] - 1) ** 4).sum()] * 3, {"x": x}, Adam(0.1, eps=eps))
        return params["x"].sum()

    x = torch.tensor([0.3, -0.4, 1.8], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: last(x, 0.1), x)
    at_rest = torch.tensor([0.5, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.isfinite(torch.autograd.grad(last(at_rest, 1e-8), at_rest)[0]).all()


def test_a_loss_that_is_not_finite_leaves_a_nan_also_where_the_gradient_is_finite():
    """(1e20)² is infinite in float32, its slope is not."""
    params = {"x": torch.tensor([1e20]), "y": torch.tensor([1.0])}
    new, _ = inner_step(lambda p: (p["x"] ** 2).sum() + p["y"].sum(), params, SGD(0.1), None)
    assert new["x"].isnan().all()
    finite, _ = inner_step(lambda p: p["y"].sum() + 0 * p["x"].sum(), params, SGD(0.1), None)
    torch.testing.assert_close(finite["y"], torch.tensor([0.9]))
