"""Every algorithm on every task source that conf/ has: they learn, and engine modes, saving and task order "
"do not matter."""

import itertools

import pytest
import torch
from conftest import ROOT

from metarun import experiment as experiments
from metarun import loop
from metarun.compose import compose
from metarun.engine import Engine
from metarun.tasks import Task


def _choices(group):
    return sorted(file.stem for file in (ROOT / "conf" / group).glob("*.yaml"))


# What makes a source small enough for a test, and by how much the metric has to move in that time.
SMALL = {
    "omniglot": (["model.filters=16", "meta_batch=8", "data.shots=2"], 60),
    "tabular": ([], 100),
    "sinusoid": (["algo.meta_lr=0.01"], 150),
}


@pytest.fixture(scope="module", params=itertools.product(_choices("algo"), _choices("data")), ids="-".join)
def combination(request, data_root):
    algo, data = request.param
    words, steps = SMALL.get(data, ([], 150))
    root = [f"data.root={data_root}"] if data == "omniglot" else []
    config = compose([f"algo={algo}", f"data={data}", "algo.eval_inner_steps=3", *words, *root])
    experiment = experiments.assemble(config)
    experiment.source.prepare(experiment.device)
    state = loop.start(experiment)
    before = loop.meta_test(experiment, state.meta, "test", 100)
    list(loop.meta_train(experiment, state, steps, config.meta_batch))
    return experiment, state, before, config


def _few(experiment):
    return experiment.source.sample(0, "test", torch.arange(4))


def test_learns_more_than_it_knew(combination):
    experiment, state, before, _ = combination
    after = loop.meta_test(experiment, state.meta, "test", 100)
    if experiment.source.metric == "accuracy":
        assert after.mean[-1] - after.ci95[-1] > 1 / experiment.source.outputs, "above chance"
        assert after.mean[-1] - before.mean[-1] > 0.02
    else:
        assert after.mean[-1] < 0.8 * before.mean[-1]


def test_loop_and_vmap_agree(combination):
    experiment, state, _, _ = combination
    engines = [Engine(mode) for mode in ("loop", "vmap")]
    gradients = [e.meta_gradient(experiment.algorithm, state.meta, _few(experiment)).grads for e in engines]
    flat = [torch.cat([grad.flatten() for grad in grads.values()]) for grads in gradients]
    assert (flat[0] - flat[1]).norm() <= 1e-4 * flat[0].norm()
    results = [e.adaptation_curves(experiment.algorithm, state.meta, _few(experiment)) for e in engines]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5 if experiment.source.metric == "mse" else 0.021)


def test_task_order_does_not_matter(combination):
    experiment, state, _, _ = combination
    tasks = _few(experiment)
    order = [2, 0, 3, 1]
    forward, back = (
        Engine().meta_gradient(experiment.algorithm, state.meta, some).losses
        for some in (tasks, Task(*(t[order] for t in tasks)))
    )
    torch.testing.assert_close(forward[order], back, rtol=1e-4, atol=1e-5)


def test_saved_and_loaded_it_is_the_same(combination, tmp_path):
    from metarun import checkpoint

    experiment, state, _, config = combination
    checkpoint.save(tmp_path, state.step, loop.snapshot(state), keep=set())
    loaded = loop.start(experiment)
    loop.restore(loaded, checkpoint.load(tmp_path, state.step))
    assert all(torch.equal(loaded.meta[name], state.meta[name]) for name in state.meta)
    a, b = (next(loop.meta_train(experiment, s, s.step + 1, config.meta_batch)) for s in (state, loaded))
    assert torch.equal(a.loss, b.loss)
    assert all(torch.equal(loaded.meta[name], state.meta[name]) for name in state.meta)
