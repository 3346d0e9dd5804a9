"""Sequences: they follow their chains, and the chains can be told apart."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.oracles import sample_again, source_of_other_ways

from metarun.data.sequences import Sequences
from metarun.errors import SettingError

CPU = torch.device("cpu")


def _source(**settings):
    source = Sequences(**settings)
    source.prepare(CPU)
    return source


def test_a_task_is_a_function_of_seed_split_and_number():
    source = Sequences()
    source.prepare(CPU)
    whole, others = sample_again(source)
    for other in others:
        # symbols are few, so that single sequences may well occur again
        assert not any(torch.equal(a, b) for a, b in zip(other.support_x, whole.support_x, strict=True))
        assert not torch.isin(other.key, whole.key).any()


def test_sequences_follow_their_chains():
    """The share of each step a -> b over many long sequences is the chain's probability; the first symbol is uniform."""
    source = _source(ways=2, shots=100, queries=100, length=60, symbols=4)
    tasks = source.sample(0, "train", torch.arange(3))
    chains = source.chains(0, "train", torch.arange(3))
    torch.testing.assert_close(chains.sum(-1), torch.ones(3, 2, 4, dtype=torch.float64))
    assert tasks.support_x.shape == (3, 200, 60, 4)
    assert (tasks.support_x.sum(-1) == 1).all()
    for t in range(3):
        x, y = tasks.select(t).points()
        for n in range(2):
            symbols = x[y == n].argmax(-1)  # [200, 60]
            steps = F.one_hot(symbols[:, :-1] * 4 + symbols[:, 1:], 16).sum((0, 1)).view(4, 4).double()
            visits = steps.sum(1, keepdim=True)
            deviation = (chains[t, n] * (1 - chains[t, n]) / visits).sqrt()
            assert ((steps / visits - chains[t, n]).abs() < 4.5 * deviation + 1e-9).all()
            first = torch.bincount(symbols[:, 0], minlength=4)
            assert ((first - 50).abs() < 4.5 * math.sqrt(200 * 0.25 * 0.75)).all()


def test_every_task_of_every_split_and_seed_has_chains_of_its_own():
    source = _source()
    some = [
        source.chains(*address, torch.arange(3)) for address in ((0, "train"), (0, "val"), (0, "test"), (1, "train"))
    ]
    first = torch.cat(some)[:, 0, 0, 0]
    assert len(first.unique()) == 12


def test_chains_are_uniform_on_the_simplex():
    """A coordinate of a flat Dirichlet over V numbers has mean 1/V and variance (V-1) / (V²(V+1))."""
    p = _source(symbols=5).chains(0, "train", torch.arange(3000))[..., 0].flatten()
    assert abs(p.mean() - 0.2) < 0.003
    assert abs(p.var() - 4 / (25 * 6)) < 0.001


def test_support_sequences_tell_the_chains_apart():
    """Bayes with step counts from the support set: what there is to learn is far above chance, and below certainty."""
    source = _source()
    tasks = source.sample(0, "test", torch.arange(300))
    right = 0.0
    for t in range(300):
        task = tasks.select(t)
        steps = [x[:, :-1].transpose(1, 2) @ x[:, 1:] for x in (task.support_x, task.query_x)]  # [n, V, V] counts
        counts = torch.stack([steps[0][task.support_y == n].sum(0) for n in range(3)]) + 1
        log = (counts / counts.sum(-1, keepdim=True)).log()
        right += ((steps[1][:, None] * log).sum((2, 3)).argmax(-1) == task.query_y).double().mean()
    assert 0.85 < right / 300 < 0.99


@pytest.mark.parametrize(
    "bad", [{"ways": 1}, {"shots": 0}, {"queries": 0}, {"length": 1}, {"symbols": 1}, {"length": 2.5}]
)
def test_sequence_settings_out_of_range_are_refused(bad):
    with pytest.raises(SettingError):
        Sequences(**bad)


def test_its_facts_are_those_of_its_settings():
    facts = Sequences(ways=4, shots=2, queries=3, eval_queries=5, length=7, symbols=6).facts()
    assert facts == {
        "name": "sequences", "ways": 4, "shots": 2, "queries": 5, "train_shots": 2, "train_queries": 3,
        "more": {"length": 7, "symbols": 6},
    }  # fmt: skip


@pytest.mark.parametrize("ways", [2, 6])
def test_tasks_of_each_split_are_those_of_a_source_with_their_ways(ways):
    source = source_of_other_ways(Sequences, 4, ways)
    assert source.outputs == max(4, ways)
    assert (source.facts()["ways"], source.facts()["train_ways"]) == (ways, 4)
