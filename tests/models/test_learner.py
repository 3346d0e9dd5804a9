"""Batch norm by the statistics of the examples that are passed in, against torch's."""

import pytest
import torch
import torch.nn.functional as F
from helpers.oracles import image_tasks, norm_model

from metarun.models.learner import TaskNorm


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3, 5)])
@pytest.mark.parametrize("first", [None, 2])
def test_it_normalises_by_the_first_examples_or_by_all(shape, first):
    norm = TaskNorm(4, scale=True, eps=1e-2).double()
    torch.nn.init.normal_(norm.shift)
    torch.nn.init.normal_(norm.scale)
    x = torch.randn(shape, dtype=torch.float64) * 3 + 1
    sample = (x if first is None else x[:first]).movedim(1, 0).flatten(1)
    mean, variance = sample.mean(dim=1), sample.var(dim=1, correction=0)
    expected = F.batch_norm(x, mean, variance, norm.scale, norm.shift, training=False, eps=1e-2)
    torch.testing.assert_close(norm(x, first), expected, rtol=1e-10, atol=1e-12)
    norm.reset_parameters()
    torch.testing.assert_close(norm(x, first), F.batch_norm(x, mean, variance, eps=1e-2), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", ["transductive", "support"])
def test_a_query_stands_alone_only_with_the_support_sets_statistics(mode):
    model = norm_model(norm=mode)
    task = image_tasks(torch.Generator().manual_seed(0)).select(0)
    together = model(task.query_x, task.support_x)
    alone = torch.cat([model(x[None], task.support_x) for x in task.query_x])
    assert torch.allclose(together, alone) == (mode == "support")
    own = model(task.query_x)
    assert torch.allclose(together, own) == (mode == "transductive")


def test_norm_parameters_are_the_norms_own():
    names = norm_model(norm_scale=True).norm_parameters
    assert names == {f"blocks.{n}.norm.{name}" for n in range(4) for name in ("shift", "scale")}
