"""Prototypical networks against class means, symmetries and finite differences."""

import pytest
import torch
from helpers.oracles import assert_central_differences, image_tasks

from metarun import seeds
from metarun.algos.protonet import ProtoNet
from metarun.models import MLP, Conv4
from metarun.tasks import Task

CPU = torch.device("cpu")


def test_prototypes_are_class_means_in_a_learned_space():
    """On an identity body minus the squared distances to the class means, in whatever order the support set is."""
    tasks = image_tasks(torch.Generator().manual_seed(0), shots=3, queries=2)
    flat = Task(tasks.support_x.flatten(2), tasks.support_y, tasks.query_x.flatten(2), tasks.query_y, tasks.key)
    with seeds.forked("test", "proto"):
        algorithm = ProtoNet(MLP((256,), 3, hidden=[]).double())
    task = flat.select(0)
    means = torch.stack([task.support_x[task.support_y == n].mean(0) for n in range(3)])
    expected = -(torch.cdist(task.query_x, means) ** 2)
    torch.testing.assert_close(algorithm.answers({}, task), expected, rtol=1e-9, atol=1e-9)
    with seeds.forked("test", "proto"):
        algorithm = ProtoNet(Conv4((1, 16, 16), 3, filters=4).double())
    meta = algorithm.init()
    assert not [name for name in meta if name.startswith("head")]
    shuffled = torch.tensor([5, 0, 8, 3, 1, 7, 2, 6, 4])
    other = tasks.select(0)._replace(support_x=tasks.support_x[0][shuffled], support_y=tasks.support_y[0][shuffled])
    torch.testing.assert_close(algorithm.answers(meta, tasks.select(0)), algorithm.answers(meta, other))


def test_tasks_of_fewer_classes_than_there_are_outputs_are_answered_as_with_as_many():
    tasks = image_tasks(torch.Generator().manual_seed(0), shots=3, queries=2).select(0)
    with seeds.forked("test", "proto"):
        many = ProtoNet(Conv4((1, 16, 16), 7, filters=4).double())
    with seeds.forked("test", "proto"):
        three = ProtoNet(Conv4((1, 16, 16), 3, filters=4).double())
    meta = three.init()
    logits = many.answers(meta, tasks)
    torch.testing.assert_close(logits[:, :3], three.answers(meta, tasks))
    assert logits.isfinite().all()
    assert (logits.argmax(dim=-1) < 3).all()
    loss, _ = many.meta_loss(meta, tasks)
    torch.testing.assert_close(loss, three.meta_loss(meta, tasks)[0])
    leaves = {name: value.requires_grad_() for name, value in meta.items()}
    grads = torch.autograd.grad(many.meta_loss(leaves, tasks)[0], list(leaves.values()))
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("norm", ["transductive", "support"])
def test_prototypes_are_learned_through_support_and_query(norm):
    tasks = image_tasks(torch.Generator().manual_seed(0), shots=2, queries=2)
    with seeds.forked("test", "proto"):
        model = Conv4((1, 16, 16), 3, filters=4, norm=norm).double()
        for name in model.norm_parameters:
            torch.nn.init.uniform_(model.get_parameter(name), 0.5, 1.5)
    algorithm = ProtoNet(model)
    meta = algorithm.init()
    assert_central_differences(algorithm, tasks, meta)
    task = tasks.select(0)
    alone = torch.cat([algorithm.answers(meta, task._replace(query_x=x[None])) for x in task.query_x])
    together = algorithm.answers(meta, task)
    assert torch.allclose(alone, together) == (norm == "support"), "with the support set's statistics each stands alone"
    same = task._replace(query_x=task.support_x[::2])  # with one shot a class, a query that is its prototype
    first = same._replace(support_x=task.support_x[::2], support_y=task.support_y[::2])
    assert algorithm.answers(meta, first).diagonal().abs().max() < 1e-9, "a drawing is at no distance from itself"
