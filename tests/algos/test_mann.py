"""The memory-augmented network against what a memory has to do."""

import pytest
import torch
from helpers.oracles import assert_central_differences

from metarun import seeds
from metarun.algos.mann import MANN, _Memory
from metarun.errors import SettingError
from metarun.models import MLP
from metarun.tasks import Task


def _memory(**settings):
    with seeds.forked("test", "mann"):
        return _Memory(
            **{"features": 4, "outputs": 3, "hidden": 7, "slots": 5, "width": 7, "forgetting": 0.9, **settings}
        ).double()


def test_a_memory_written_with_x_and_y_answers_x_with_y():
    """A controller that does nothing, keys that are x, values that are y."""
    memory = _memory()
    with torch.no_grad():
        for value in memory.parameters():
            value.zero_()
        memory.key.weight[:4, :4] = torch.eye(4)
        memory.value.weight[:3, 7:] = torch.eye(3)
        memory.sharpness.fill_(20.0)
        memory.answer.weight[:, 7 : 7 + 3] = torch.eye(3)
    x = torch.eye(4, dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[[2, 0, 1, 0]]
    torch.testing.assert_close(memory(torch.cat([x, y], dim=1), x), y, rtol=0, atol=1e-12)


def _task(queries=3):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(6 + queries, 4, generator=draw, dtype=torch.float64)
    y = torch.arange(6 + queries) % 3
    return Task(x[:6], y[:6], x[6:], y[6:], torch.tensor(11))


def _made(**settings):
    with seeds.forked("test", "mann"):
        return MANN(MLP((4,), 3, hidden=[6]).double(), **{"hidden": 8, "slots": 4, "width": 5, **settings})


def test_no_query_knows_of_another():
    algorithm, task = _made(), _task()
    meta = algorithm.init()
    together = algorithm.answers(meta, task)
    alone = torch.cat([algorithm.answers(meta, task._replace(query_x=x[None])) for x in task.query_x])
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-12)


def test_it_reads_in_the_order_of_the_task_and_overwrites_what_is_used_least():
    algorithm, task = _made(), _task()
    meta = algorithm.init()
    other = algorithm.answers(meta, task._replace(key=torch.tensor(12)))
    assert not torch.allclose(algorithm.answers(meta, task), other), "six points in four rows: the order decides"


def test_its_meta_gradient_is_that_of_central_differences():
    algorithm = _made()
    assert_central_differences(algorithm, _task().map(lambda tensor: tensor[None]), algorithm.init())


def test_what_makes_no_sense_is_refused():
    with pytest.raises(SettingError, match="forgetting"):
        _made(forgetting=1)
