"""Tabular tasks: there is something to learn exactly where there should be."""

import pytest
import torch
from helpers.oracles import sample_again, source_of_other_ways

from metarun.data.tabular import Tabular
from metarun.errors import SettingError

CPU = torch.device("cpu")


def _sampled(source, n, split="train", seed=0):
    source.prepare(CPU)
    return source.sample(seed, split, torch.arange(n))


@pytest.mark.parametrize("settings", [{}, {"teacher": "mlp", "ways": 3}, {"teacher": "tree"}, {"teacher": "noise"}])
def test_a_task_is_a_function_of_seed_split_and_number(settings):
    source = Tabular(**settings)
    source.prepare(CPU)
    whole, others = sample_again(source)
    for other in others:
        assert not torch.isin(other.support_x, whole.support_x).any()
        assert not torch.isin(other.key, whole.key).any()


@pytest.mark.parametrize("teacher", ["linear", "mlp", "tree", "noise"])
@pytest.mark.parametrize("ways", [2, 5])
def test_tabular_classes_have_equal_numbers(teacher, ways):
    tasks = _sampled(Tabular(ways=ways, shots=3, queries=4, teacher=teacher), 50)
    for y, each in ((tasks.support_y, 3), (tasks.query_y, 4)):
        counts = torch.stack([(y == way).sum(dim=1) for way in range(ways)])
        assert (counts == each).all()


def _nearest_neighbour_accuracy(tasks, scales):
    """Labels each query point as its nearest support point, after scaling the features."""
    distances = torch.cdist(tasks.query_x.double() * scales, tasks.support_x.double() * scales)
    answers = tasks.support_y.gather(1, distances.argmin(dim=-1))
    return (answers == tasks.query_y).double().mean()


@pytest.mark.parametrize("teacher", ["linear", "mlp", "tree"])
def test_knowing_the_shared_feature_scales_helps(teacher):
    """What meta-learning can find: with the scales even nearest neighbours do better than without."""
    source = Tabular(teacher=teacher, shots=10)
    tasks = _sampled(source, 2000, "test")
    blind = _nearest_neighbour_accuracy(tasks, torch.ones(10, dtype=torch.float64))
    knowing = _nearest_neighbour_accuracy(tasks, source.scales)
    assert blind > 0.55, "labels depend on the features"
    assert knowing > blind + 0.04, "and on some more than on others, the same in all tasks"


def test_noise_teaches_nothing():
    source = Tabular(teacher="noise", shots=10)
    tasks = _sampled(source, 4000, "test")
    for scales in (torch.ones(10, dtype=torch.float64), source.scales):
        # 120,000 query points in 4000 tasks; the classes are balanced, which pulls answers a little below one half.
        assert abs(_nearest_neighbour_accuracy(tasks, scales) - 0.5) < 0.01


def test_linear_teachers_are_linear():
    """Logistic regression on the true features separates support and query points of a task together."""
    tasks = _sampled(Tabular(features=3, shots=40, queries=10), 5)
    for t in range(5):
        task = tasks.select(t)
        x = torch.cat([task.support_x, task.query_x]).double()
        y = torch.cat([task.support_y, task.query_y]).double() * 2 - 1
        w = torch.zeros(4, dtype=torch.float64)
        padded = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
        for _ in range(20_000):  # the perceptron's rule ends on separable points, and only there
            wrong = (padded @ w * y <= 0).nonzero()
            if not len(wrong):
                break
            w += y[wrong[0, 0]] * padded[wrong[0, 0]]
        assert ((padded @ w) * y > 0).all()


def test_its_facts_are_those_of_its_settings():
    assert Tabular(features=4, ways=3, shots=2, queries=6, teacher="tree").facts() == {
        "name": "tabular", "ways": 3, "shots": 2, "queries": 6, "train_shots": 2, "train_queries": 6,
        "more": {"features": 4, "teacher": "tree"},
    }  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        {"shots": 0},
        {"queries": 0},
        {"ways": 1},
        {"features": 0},
        {"teacher": "oracle"},
        {"split_seed": -1},
        {"ways": 2.0},
    ],
)
def test_tabular_settings_out_of_range_are_refused(bad):
    with pytest.raises(SettingError):
        Tabular(**bad)


@pytest.mark.parametrize("ways", [2, 6])
def test_tasks_of_each_split_are_those_of_a_source_with_their_ways(ways):
    source = source_of_other_ways(Tabular, 4, ways)
    assert source.outputs == max(4, ways)
    assert (source.facts()["ways"], source.facts()["train_ways"]) == (ways, 4)
