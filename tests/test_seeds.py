import math

import pytest
import torch

from metarun import seeds


def _counter(*words):
    return tuple(torch.tensor([word]) for word in words)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [  # the published known answers of Random123
        (0, (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (2**64 - 1, (2**32 - 1,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            0x299F31D0A4093822,
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_answers(key, counter, expected):
    assert tuple(int(word) for word in seeds.philox(key, _counter(*counter))) == expected


def test_a_number_depends_on_its_address_and_index_alone():
    whole = seeds.uniform((0, "train", "x"), torch.arange(1000), 7)
    shuffled = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(seeds.uniform((0, "train", "x"), shuffled, 7), whole[shuffled])
    assert torch.equal(seeds.uniform((0, "train", "x"), torch.tensor([17]), 7)[0], whole[17])
    for other in [(1, "train", "x"), (0, "test", "x"), (0, "train", "y")]:
        assert not torch.isin(seeds.uniform(other, torch.arange(1000), 7), whole).any()


def test_indices_beyond_32_bits_have_numbers_of_their_own():
    low, high = seeds.words((0,), torch.tensor([1, 1 + 2**32]), 4)
    assert not torch.equal(low, high)


def test_uniform_and_normal_have_their_moments():
    n = 400_000
    u = seeds.uniform((1,), torch.arange(1000), n // 1000).flatten()
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 4 * math.sqrt(1 / 12 / n)
    assert abs(u.var() - 1 / 12) < 1e-3
    z = seeds.normal((1,), torch.arange(1000), n // 1000).flatten()
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 0.1
    inside = (z.abs() < 1.959964).double().mean()
    assert abs(inside - 0.95) < 4 * math.sqrt(0.05 * 0.95 / n)


def test_distinct_draws_differ_and_are_uniform():
    draws = seeds.distinct((2,), torch.arange(20_000), 2, 6, 3)
    assert draws.shape == (20_000, 2, 3)
    assert all(len(set(row)) == 3 for row in draws.flatten(0, 1).tolist())
    # All 6*5*4 ordered triples are equally likely: chi-square with 119 degrees of freedom, mean 119, sd 15.4.
    triples = (draws * torch.tensor([36, 6, 1])).sum(-1).flatten()
    counts = torch.bincount(triples, minlength=216)
    counts = counts[counts > 0].double()
    assert len(counts) == 120
    expected = 40_000 / 120
    assert ((counts - expected) ** 2 / expected).sum() < 119 + 4 * 15.4


@pytest.mark.parametrize("most", [6, 1000])  # by sorting, and one after the other
def test_distinct_draws_of_differing_sizes_differ_and_are_uniform(most):
    sizes = torch.tensor([6, 4]).expand(20_000, 2)
    draws = seeds.distinct_of_sizes((2,), torch.arange(20_000), sizes, most, 3)
    assert draws.shape == (20_000, 2, 3)
    assert all(len(set(row)) == 3 for row in draws.flatten(0, 1).tolist())
    for row, size in enumerate((6, 4)):  # all ordered triples are equally likely: chi-square, 4 sd above its mean
        triples = (draws[:, row] * torch.tensor([36, 6, 1])).sum(-1)
        counts = torch.bincount(triples, minlength=216)
        counts = counts[counts > 0].double()
        kinds = size * (size - 1) * (size - 2)
        assert len(counts) == kinds
        expected = 20_000 / kinds
        assert ((counts - expected) ** 2 / expected).sum() < kinds - 1 + 4 * (2 * (kinds - 1)) ** 0.5


def test_draws_of_one_size_are_those_of_distinct():
    """Omniglot's tasks are those of all earlier versions."""
    sizes = torch.full((50, 3), 20)
    assert torch.equal(
        seeds.distinct_of_sizes((1, "x"), torch.arange(50), sizes, 20, 5),
        seeds.distinct((1, "x"), torch.arange(50), 3, 20, 5),
    )


def test_all_of_a_row_can_be_drawn():
    sizes = torch.tensor([[100, 70]]).expand(5, 2)
    draws = seeds.distinct_of_sizes((3,), torch.arange(5), sizes, 100, 70)
    assert all(sorted(row) == list(range(70)) for row in draws[:, 1].tolist())


def test_building_a_learner_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    with seeds.forked(0, "init"):
        first = torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    with seeds.forked(0, "init"):
        assert torch.equal(torch.rand(3), first)
    with seeds.forked(1, "init"):
        assert not torch.equal(torch.rand(3), first)
