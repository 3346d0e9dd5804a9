"""Training from scratch against torch's own optimiser, and scikit-learn's estimators against themselves."""

import copy

import torch

from metarun.config.compose import compose
from metarun.engine import loop
from metarun.run.build import build_experiment
from metarun.tasks import example_losses


def test_it_trains_the_initial_weights_on_the_support_set_as_torch_does():
    experiment = build_experiment(compose(("algo=scratch", "data=tabular", "algo.eval_inner_steps=4")))
    experiment.source.prepare(experiment.device)
    task = experiment.source.sample(0, "test", torch.arange(1)).select(0)
    model = copy.deepcopy(experiment.algorithm.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(4):
        optimizer.zero_grad()
        example_losses(model(task.support_x), task.support_y).mean().backward()
        optimizer.step()
    state = loop.start(experiment)
    before = {name: value.clone() for name, value in state.meta.items()}
    list(loop.meta_train(experiment, state, 2, 4))
    assert all(torch.equal(state.meta[name], value) for name, value in before.items()), "meta-training changes nothing"
    torch.testing.assert_close(experiment.algorithm.predictions(state.meta, task)[-1], model(task.query_x))
