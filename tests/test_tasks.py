"""Minibatches, owners and sizes of tasks."""

import pytest
import torch

from metarun.errors import SettingError
from metarun.tasks import example_losses, keys, minibatches, owner_of, score, sizes, ways_of


def test_minibatches_come_from_the_key_and_cover_the_points():
    key = torch.tensor(12345)
    drawn = list(minibatches(key, 10, 5, 6))
    for first in (0, 2, 4):  # each pair of minibatches is one shuffle
        assert sorted(torch.cat(drawn[first : first + 2]).tolist()) == list(range(10))
    assert len({tuple(places.tolist()) for places in drawn}) == 6
    assert all(torch.equal(a, b) for a, b in zip(drawn, minibatches(key, 10, 5, 6), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(drawn, minibatches(key + 1, 10, 5, 6), strict=True))
    uneven = torch.cat(list(minibatches(key, 10, 4, 5)))
    assert sorted(uneven.tolist()) == sorted([*range(10)] * 2), "no point is passed over where a shuffle ends"
    assert list(minibatches(key, 10, 10, 3)) == list(minibatches(key, 10, None, 3)) == [None] * 3
    counts = torch.zeros(6)
    for number in range(1500):
        counts += torch.bincount(next(minibatches(torch.tensor(number), 6, 2, 1)), minlength=6)
    assert ((counts - 500).abs() < 4 * 500**0.5).all(), "every point is as likely"


def test_rounded_outputs_have_a_loss_and_a_score_of_full_precision():
    """bfloat16 has no number between 0.664 and 0.668."""
    logits, classes = torch.tensor([[2.0, 0], [0, 2], [2, 0]]).bfloat16(), torch.tensor([0, 1, 1])
    assert score(logits, classes) == pytest.approx(2 / 3, abs=1e-7)
    expected = -logits.double().log_softmax(dim=1)[range(3), classes]
    torch.testing.assert_close(example_losses(logits, classes), expected.float())
    values = torch.tensor([[1.0], [2], [4]]).bfloat16()
    assert score(values, torch.tensor([[0.0], [0], [0]])) == 7
    assert score(values, torch.full((3, 1), 0.3)) == pytest.approx((0.7**2 + 1.7**2 + 3.7**2) / 3)
    assert example_losses(logits.double(), classes).dtype == torch.float64


def test_tasks_in_a_row_have_an_owner_each_and_taken_again_the_same():
    owners = [owner_of(keys(7, "train", torch.arange(first, first + 5)), 5) for first in (0, 5, 13)]
    for some in owners:
        assert sorted(some.tolist()) == [0, 1, 2, 3, 4]
    assert torch.equal(owners[0], owners[1]), "number n belongs to n mod M, from wherever it counts"
    assert torch.equal(owners[2], owners[0].roll(-3))


def test_sizes_not_given_are_those_of_training():
    assert sizes(5, None, None, None) == ((5, 5), (5, 5))
    assert sizes(5, 3, None, None) == ((5, 3), (5, 3))
    assert sizes(5, None, 1, None) == ((5, 5), (1, 1))
    assert sizes(5, 3, 1, 2) == ((5, 3), (1, 2))
    assert sizes(5, 3, 1, 2).facts() == {"shots": 1, "queries": 2, "train_shots": 5, "train_queries": 3}
    with pytest.raises(SettingError):
        sizes(5, 0, None, None)


def test_ways_not_given_are_those_of_training():
    assert ways_of(5, None) == (5, 5)
    assert ways_of(5, None).facts() == {"ways": 5}
    assert ways_of(60, 5).facts() == {"ways": 5, "train_ways": 60}
    assert [ways_of(60, 5).of(split) for split in ("train", "val", "test")] == [60, 5, 5]
    for bad in ((1, None), (5, 1)):
        with pytest.raises(SettingError):
            ways_of(*bad)
