"""A module called under other parameters than its own, and left as it was."""

import torch
from helpers.oracles import Linear, image_tasks, norm_model
from torch import nn

from metarun.models.functional import call


def test_a_learner_is_called_under_the_given_parameters_and_keeps_its_own():
    model, other = Linear(3), torch.ones(3, 1, dtype=torch.float64)
    before = model.theta.detach().clone()
    x = torch.arange(6, dtype=torch.float64).view(2, 3)
    torch.testing.assert_close(call(model, {"theta": other}, x), x.sum(dim=1, keepdim=True))
    assert torch.equal(model.theta, before)


def test_the_support_set_reaches_learners_that_have_a_norm_and_no_other_module():
    task = image_tasks(torch.Generator().manual_seed(0)).select(0)
    model = norm_model(norm="support")
    params = dict(model.named_parameters())
    torch.testing.assert_close(
        call(model, params, task.query_x, task.support_x), model(task.query_x, task.support_x), rtol=0, atol=0
    )
    foreign = nn.Sequential(nn.Flatten(), nn.Linear(256, 2)).double()
    torch.testing.assert_close(
        call(foreign, dict(foreign.named_parameters()), task.query_x, task.support_x), foreign(task.query_x)
    )
