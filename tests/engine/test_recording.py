"""Recordings against the functions that they are of."""

import pytest
import torch

from metarun.engine.recording import record


def _draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _second_order(w, x):
    w = w.detach().requires_grad_()
    [g] = torch.autograd.grad((x @ w).tanh().square().sum(), w, create_graph=True)
    [h] = torch.autograd.grad(g.square().sum(), w)
    return [h, g.detach().T[None].expand(2, -1, -1).transpose(1, 2).reshape(2, -1)]


def test_a_recording_does_the_same_to_other_numbers():
    recorded = record(_second_order, [_draw(3, 2), _draw(5, 3)])
    for seed in (1, 2):
        inputs = [_draw(3, 2, seed=seed), _draw(5, 3, seed=seed)]
        for got, expected in zip(recorded(*inputs), _second_order(*inputs), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_inputs_may_begin_anywhere_in_their_memory():
    """Nor is a view of a view of an input taken for one of its memory from the beginning."""

    def function(x):
        return [view * 2 for view in (x.T[0], x.view(-1).view(2, 3), x[None].transpose(1, 2), x.T.reshape(-1))]

    recorded = record(function, [_draw(3, 2)])
    inside = _draw(7, 2)[4:]
    for got, expected in zip(recorded(inside), function(inside), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_views_of_views_become_one():
    """The product is the owner of five views, of which two are the same and one changes nothing."""
    views = []

    def function(x):
        product = x @ x.T
        views[:] = [product.T.T, product[None].transpose(1, 2)[0], product.T, product.view(-1)]
        return [view * 2 for view in views]

    x = _draw(3, 3)
    recorded = record(function, [x])
    for got, expected in zip(recorded(x), function(x), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    made = [n.target for n in recorded.__self__.graph.nodes if n.target is torch.as_strided]
    assert len(made) == 2, "the transpose and the flat one"


def test_products_with_one_are_left_out():
    """Where that changes the type of the result, or where its numbers lie, they stay."""
    recorded = record(lambda x, n: [x * 1 + x / 1, n / 1 - 0.5], [_draw(2), torch.tensor([1, 2])])
    assert [n.target for n in recorded.__self__.graph.nodes if n.op == "call_function"] == [
        torch.add,
        torch.div,
        torch.sub,
    ]
    results = recorded(torch.tensor([3.0, 4.0]), torch.tensor([5, 6]))
    assert [result.tolist() for result in results] == [[6, 8], [4.5, 5.5]]
    spread = record(lambda x: [(x.expand(2, 3) * 1).view(6) + 1], [_draw(2, 1)])
    assert spread(torch.tensor([[3.0], [4.0]]))[0].tolist() == [4, 4, 4, 5, 5, 5]


@pytest.mark.parametrize(
    "function", [lambda x: [x], lambda x: [x[0]], lambda x: [x * 1], lambda x: [y := x + 1, y * 1]]
)
def test_a_result_that_is_an_input_is_refused(function):
    """Whoever changes the result in place would change the input, or the other result."""
    with pytest.raises(ValueError, match="new tensors"):
        record(function, [_draw(2, 2)])
