"""The in-context learner: what its answers may depend on."""

import pytest
import torch
from helpers.oracles import assert_central_differences

from metarun import seeds
from metarun.algos.in_context import InContext, standardise_columns
from metarun.errors import SettingError
from metarun.models import MLP
from metarun.tasks import Task


def _made(outputs=3, **settings):
    with seeds.forked("test", "in context"):
        model = MLP((4,), outputs, hidden=[6]).double()
        return InContext(model, **{"width": 8, "heads": 2, "layers": 2, **settings})


def _task(classes=True, shots=3, queries=5):
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(3 * shots) % 3
    support, query = (torch.randn(n, 4, generator=draw, dtype=torch.float64) for n in (3 * shots, queries))
    if not classes:
        y = torch.randn(3 * shots, 2, generator=draw, dtype=torch.float64)
    return Task(support, y, query, y[:1].expand(queries, *y.shape[1:]), torch.tensor(5))


@pytest.mark.parametrize("classes", [True, False], ids=["classes", "regression"])
def test_a_query_is_answered_as_if_it_were_the_only_one(classes):
    """Other queries change no bit; fewer of them no more than products of matrices of another size round."""
    algorithm, task = _made(3 if classes else 2), _task(classes)
    meta = algorithm.init()
    answers = algorithm.answers(meta, task)
    others = task.query_x.clone()
    others[1:] = torch.randn(4, 4, dtype=torch.float64) * 100
    assert torch.equal(algorithm.answers(meta, task._replace(query_x=others))[0], answers[0])
    alone = torch.cat([algorithm.answers(meta, task._replace(query_x=x[None])) for x in task.query_x])
    torch.testing.assert_close(alone, answers, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("classes", [True, False], ids=["classes", "regression"])
def test_the_order_of_the_support_set_plays_no_part(classes):
    algorithm, task = _made(3 if classes else 2), _task(classes)
    meta, order = algorithm.init(), torch.randperm(9, generator=torch.Generator().manual_seed(1))
    other = task._replace(support_x=task.support_x[order], support_y=task.support_y[order])
    torch.testing.assert_close(algorithm.answers(meta, other), algorithm.answers(meta, task), rtol=1e-12, atol=1e-12)


def test_labels_are_only_names_and_tasks_may_have_fewer_classes_and_more_shots():
    three, five = _made(), _made(5)
    task, order = _task(shots=6), torch.tensor([2, 0, 1])
    meta = three.init()
    logits = three.answers(meta, task)
    renamed = three.answers(meta, task._replace(support_y=order[task.support_y]))
    torch.testing.assert_close(renamed[:, order], logits, rtol=1e-12, atol=1e-12)
    wide = five.answers(meta, task)
    torch.testing.assert_close(wide[:, :3], logits)
    assert (wide[:, 3:] < -1e30).all()


def test_its_meta_gradient_is_that_of_central_differences():
    algorithm = _made()
    tasks = _task()._replace(query_y=torch.arange(5) % 3).map(lambda tensor: tensor[None])
    assert_central_differences(algorithm, tasks, algorithm.init())


def test_columns_are_permuted_in_training_alone_and_alike_in_support_and_query():
    plain, permuted = _made(), _made(permute_columns=True)
    task = _task()._replace(query_y=torch.arange(5) % 3)
    meta = plain.init()
    assert torch.equal(plain.answers(meta, task), permuted.answers(meta, task))
    losses = {float(permuted.meta_loss(meta, task._replace(key=torch.tensor(key)))[0]) for key in range(8)}
    assert len(losses) > 1
    by_hand = set()
    for order in torch.cartesian_prod(*[torch.arange(4)] * 4).tolist():
        if len(set(order)) == 4:
            turned = task._replace(support_x=task.support_x[:, order], query_x=task.query_x[:, order])
            by_hand.add(round(float(plain.meta_loss(meta, turned)[0]), 9))
    assert {round(loss, 9) for loss in losses} <= by_hand


def test_standardised_columns_forget_shift_and_scale():
    task = _task()
    scale, shift = torch.tensor([1.0, 10.0, 0.1, 3.0]), torch.tensor([5.0, -2.0, 0.0, 1.0])
    expected = standardise_columns(task.support_x, task.query_x)
    found = standardise_columns(task.support_x * scale + shift, task.query_x * scale + shift)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert found[0].mean(dim=0).abs().max() < 1e-9


def test_what_makes_no_sense_is_refused():
    with pytest.raises(SettingError, match="multiple of heads"):
        _made(width=9)
