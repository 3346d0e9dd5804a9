"""When a meta-gradient is replayed, and that its numbers stay."""

import copy
import itertools

import pytest
import torch

from metarun import seeds
from metarun.algos.maml import MAML
from metarun.algos.maml_pp import MAMLpp
from metarun.data.sinusoid import Sinusoid
from metarun.engine import engine as engines
from metarun.engine import replay
from metarun.engine.chunking import Chunks
from metarun.engine.engine import Engine
from metarun.models import MLP

STEPS = replay.WARM + replay.TRIALS + 4


@pytest.fixture(autouse=True)
def as_if_replays_were_faster(monkeypatch):
    monkeypatch.setattr(replay, "FASTER", float("inf"))


def _run(engine, start, chunk=4):
    """The gradients of some outer steps on sinusoids, whose meta-parameters change."""
    source = Sinusoid(shots=3, queries=2)
    source.prepare(torch.device("cpu"))
    meta, found = start.init(), []
    ahead = source.sample(0, "train", torch.arange(7 * STEPS))  # in memory they begin where others end
    for step in range(STEPS):
        algorithm, tasks = start.at(step / STEPS), ahead.select(slice(7 * step, 7 * step + 7))
        gradient = engine.meta_gradient(algorithm, meta, tasks, Chunks(chunk, chunk))
        found.append(torch.cat([gradient.losses, *(g.flatten() for g in gradient.grads.values())]))
        meta = {name: value - 0.1 * gradient.grads[name] for name, value in meta.items()}
    return found


def _maml():
    with seeds.forked("test", "replay"):
        return MAML(MLP((1,), 1, hidden=[5]), inner_steps=2)


def test_replays_change_no_bit(monkeypatch):
    """Of chunks of two sizes, in two threads or one."""
    expected = _run(Engine(replay=False), _maml())
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        engine = Engine()
        for got, same in zip(_run(engine, _maml()), expected, strict=True):
            torch.testing.assert_close(got, same, rtol=0, atol=0)
        assert len(engine._replay.recordings) == 2
        assert not engine._replay.given_up


@pytest.mark.parametrize(("cost", "chosen", "tried"), [({1: 1, 2: 3}, 1, replay.TRIALS), ({1: 3, 2: 1}, None, 1)])
def test_a_lone_chunk_is_replayed_in_one_thread_where_that_is_faster(cost, chosen, tried, monkeypatch):
    """By a clock on which a replay costs so much in one thread and in two."""
    expected = _run(Engine(replay=False), _maml(), chunk=7)
    threads, plain = [], replay.unflatten

    def count(*args):
        threads.append(torch.get_num_threads())
        return plain(*args)

    monkeypatch.setattr(replay, "unflatten", count)
    ticks = itertools.count()
    monkeypatch.setattr(replay, "_now", lambda _: float(next(ticks) + 9 * sum(cost[n] for n in threads)))
    before, engine = torch.get_num_threads(), Engine()
    torch.set_num_threads(2)
    try:
        for got, same in zip(_run(engine, _maml(), chunk=7), expected, strict=True):
            torch.testing.assert_close(got, same, rtol=0, atol=0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    trials = threads[: replay.TRIALS + tried]
    assert trials.count(1) == tried
    assert set(threads[replay.TRIALS + tried :]) == {chosen or 2}


def test_a_function_that_does_something_else_each_time_is_found_out(monkeypatch):

    class Odd(MAML):
        def meta_loss(self, meta, task):
            loss, score = super().meta_loss(meta, task)
            return loss * (1 + self.calls()), score

        def calls(self):
            self.count = getattr(self, "count", 0) + 1
            return self.count

    with seeds.forked("test", "replay"):
        odd = Odd(MLP((1,), 1, hidden=[5]))
    engine = Engine()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 1)
        _run(engine, odd)
    assert engine._replay.given_up


def test_what_is_slower_is_not_replayed(monkeypatch):
    monkeypatch.setattr(replay, "FASTER", 0.0)
    engine = Engine()
    _run(engine, _maml())
    assert engine._replay.given_up


def test_what_cannot_be_recorded_is_done_as_before(monkeypatch):
    def refuse(*_):
        raise ValueError("no")

    monkeypatch.setattr("metarun.engine.replay.record", refuse)
    engine = Engine()
    for got, same in zip(_run(engine, _maml()), _run(Engine(replay=False), _maml()), strict=True):
        torch.testing.assert_close(got, same, rtol=0, atol=0)
    assert engine._replay.given_up


def test_an_algorithm_that_changes_on_the_way_and_a_short_run_are_not_recorded():
    with seeds.forked("test", "replay"):
        changing = MAMLpp(MLP((1,), 1, hidden=[5]), inner_steps=2)

    class Late(MAML):
        def at(self, progress):
            """More inner steps in the second half, and itself in the first."""
            later = copy.copy(self)
            later.inner_steps = 3
            return later if progress > 0.5 else self

    with seeds.forked("test", "replay"):
        late = Late(MLP((1,), 1, hidden=[5]), inner_steps=2)
    for algorithm in (changing, late):
        engine = Engine()
        for got, same in zip(_run(engine, algorithm), _run(Engine(replay=False), algorithm), strict=True):
            torch.testing.assert_close(got, same, rtol=0, atol=0, equal_nan=True)
        assert not engine._replay.recordings
    assert Engine().for_run(_maml(), engines.REPLAY_FROM).replay
    assert not Engine().for_run(_maml(), engines.REPLAY_FROM - 1).replay
