"""The interval over tasks, and what an outer step is."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.oracles import maml

from metarun import seeds
from metarun.algos.maml import MAML
from metarun.data.sinusoid import Sinusoid
from metarun.engine import loop
from metarun.engine.engine import Engine
from metarun.engine.processes import Processes
from metarun.errors import DivergedError
from metarun.models import MLP


def _experiment(seed=0, **settings):
    source = Sinusoid()
    source.prepare(torch.device("cpu"))
    with seeds.forked(seed, "init"):
        algorithm = maml(MLP((1,), 1), **{"inner_lr": 0.01, "inner_steps": 1, **settings})
    return loop.Experiment(algorithm, source, Engine(), torch.device("cpu"), seed)


def test_the_interval_covers_the_mean_95_times_in_100():
    """5-way 1-shot with 5 query points: an accuracy is a multiple of 0.2 whose task varies more than its points."""
    generator = torch.Generator().manual_seed(0)
    covered, trials, tasks = 0, 1500, 600
    skill = torch.distributions.Beta(8.0, 2.0)  # how easy a task is; the mean accuracy is 0.8
    torch.manual_seed(0)
    for _ in range(trials):
        easy = skill.sample((tasks,)).double()
        accuracy = torch.bernoulli(easy[:, None].expand(-1, 5), generator=generator).mean(dim=1, keepdim=True)
        result = loop.evaluate(accuracy, "test", "accuracy", 5)
        covered += abs(result.mean[0] - 0.8) <= result.ci95[0]
        assert result.tasks == tasks
    assert abs(covered / trials - 0.95) < 4 * math.sqrt(0.05 * 0.95 / trials)


def test_the_interval_of_errors_is_t_standard_errors_and_that_of_accuracies_has_a_width():
    result = loop.evaluate(torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=torch.float64), "test", "mse", 5)
    assert result.mean == [2.5]
    assert abs(result.ci95[0] - 3.18245 * math.sqrt(5 / 3) / 2) < 1e-12
    right = loop.evaluate(torch.ones(4, 2, dtype=torch.float64), "test", "accuracy", 5)
    assert (right.mean, right.queries) == ([1.0, 1.0], 5)
    assert all(0.15 < ci95 < 0.17 for ci95 in right.ci95), "20 right answers of 20: Wilson's interval ends at 0.839"


class _Tables(Sinusoid):
    """A sinusoid of which three tasks in a row are said to be of one table."""

    clustered_by = "tables"

    def clusters(self, seed, split, index):
        return index[:, None] // 3


def test_tasks_that_share_tables_have_the_interval_over_tables_on_every_rank_and_at_every_step():
    experiment = _experiment(eval_inner_steps=1)
    meta = loop.start(experiment).meta
    plain = loop.meta_test(experiment, meta, "test", 12)
    experiment.source = _Tables()
    found = loop.meta_test(experiment, meta, "test", 12)
    assert (found.mean, found.each, found.unclustered) == (plain.mean, plain.each, plain.ci95)
    assert found.clusters.members == [[number // 3] for number in range(12)]
    each = torch.tensor(found.each, dtype=torch.float64)
    error = max(each.view(4, 3).mean(1).std() / 2, each.std() / math.sqrt(12))
    assert found.ci95[-1] == pytest.approx(3.18245 * error.item())

    experiment.processes.rank, experiment.processes.size = 1, 2
    experiment.processes.join = lambda part, total: each[:, None]
    assert loop.meta_test(experiment, meta, "test", 12).ci95 == found.ci95[-1:], "though it made 6 of the tasks"
    experiment.source.clusters = lambda *_: None
    assert loop.meta_test(experiment, meta, "test", 12).clusters is None


def test_a_metric_that_is_not_finite_is_named_and_enters_no_mean():
    curves = torch.ones(5, 3)
    curves[3, 2] = float("nan")
    with pytest.raises(DivergedError, match="test task 3 is not finite after 2 inner steps"):
        loop.evaluate(curves, "test", "mse", 5)


def test_divergence_stops_before_the_update():
    experiment = _experiment(inner_lr=1e30)
    state = loop.start(experiment)
    before = {name: value.clone() for name, value in state.meta.items()}
    with pytest.raises(DivergedError, match=r"task \d+ is not finite \(outer step 1, after inner step 1\)"):
        next(loop.meta_train(experiment, state, 5, 4))
    assert state.step == 0
    assert all(torch.equal(state.meta[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"inner_lr": 1e30}, "a smaller algo.inner_lr$"),
        ({"meta_lr": 1e30, "meta_optimizer": torch.optim.SGD}, "a smaller algo.inner_lr or algo.meta_lr$"),
    ],
)
def test_divergence_blames_the_rates_that_acted(settings, said):
    """Whatever an outer optimiser keeps of earlier steps: SGD keeps nothing."""
    experiment = _experiment(**settings)
    state = loop.start(experiment)
    with pytest.raises(DivergedError, match=said):
        for _ in loop.meta_train(experiment, state, 5, 4):
            pass
    state.meta["layers.0.bias"].data.fill_(float("nan"))
    with pytest.raises(
        DivergedError, match=r"after 0 inner steps: expected a number; try a smaller algo.inner_lr or algo.meta_lr$"
    ):
        loop.meta_test(experiment, state.meta, "test", 3)


def test_an_expanded_gradient_is_clipped_too():
    """As of a meta-loss with a plain sum of parameters; torch's clipping writes in place."""

    class Plain(MAML):
        def meta_loss(self, meta, task):
            loss, score = super().meta_loss(meta, task)
            return 0 * loss + meta["head.bias"].sum() + meta["layers.0.bias"].sum(), score

    experiment = _experiment()
    with seeds.forked(0, "init"):
        plain = Plain(MLP((1,), 1, hidden=[3]), meta_clip=1.0, meta_lr=1.0, meta_optimizer=torch.optim.SGD)
    experiment = replace(experiment, algorithm=plain)
    state = loop.start(experiment)
    before = state.meta["layers.0.bias"].clone()
    next(loop.meta_train(experiment, state, 1, 4))
    torch.testing.assert_close(before - state.meta["layers.0.bias"].detach(), torch.full((3,), 0.5))


def test_a_gradient_whose_squares_overflow_is_shortened_and_not_lost():
    class Steep(MAML):
        def meta_loss(self, meta, task):
            loss, score = super().meta_loss(meta, task)
            return 0 * loss + 3e25 * meta["head.bias"].sum() + 2e25 * meta["layers.0.bias"].sum(), score

    with seeds.forked(0, "init"):
        steep = Steep(MLP((1,), 1, hidden=[4]), meta_clip=5.0, meta_lr=1.0, meta_optimizer=torch.optim.SGD)
    experiment = replace(_experiment(), algorithm=steep)
    state = loop.start(experiment)
    before = {name: value.detach().clone() for name, value in state.meta.items()}
    next(loop.meta_train(experiment, state, 1, 4))
    moved = {name: (before[name] - value).detach() for name, value in state.meta.items()}
    torch.testing.assert_close(moved["head.bias"], torch.full((1,), 3.0))  # (3, 2, 2, 2, 2) has norm 5
    torch.testing.assert_close(moved["layers.0.bias"], torch.full((4,), 2.0))


def test_evaluating_between_steps_changes_no_training_number():
    def losses(evaluate):
        experiment = _experiment()
        state = loop.start(experiment)
        found = []
        for report in loop.meta_train(experiment, state, 10, 4):
            found.append(report.loss.item())
            if evaluate:
                loop.meta_test(experiment, state.meta, "val", 20)
        return found

    assert losses(True) == losses(False)


def test_meta_training_goes_on_bitwise_from_a_snapshot():
    experiment = _experiment()
    whole = loop.start(experiment)
    list(loop.meta_train(experiment, whole, 12, 4))
    first, second = loop.start(experiment), loop.start(experiment)
    list(loop.meta_train(experiment, first, 7, 4))
    loop.restore(second, loop.snapshot(first))
    list(loop.meta_train(experiment, second, 12, 4))
    assert all(torch.equal(whole.meta[name], second.meta[name]) for name in whole.meta)


@pytest.mark.parametrize("size", [1, 2])
def test_a_finite_number_of_training_tasks_is_taken_over_and_over(size):
    """By each rank its share of the same meta-batches; validation and test know nothing of it."""
    asked = []

    class Asked(Sinusoid):
        def sample(self, seed, split, index):
            asked.append((split, index.tolist()))
            return super().sample(seed, split, index)

    experiment = _experiment()
    experiment.source, experiment.train_tasks = Asked(), 5
    meta_batches = [[0, 1, 2, 3], [4, 0, 1, 2], [3, 4, 0, 1]]
    for rank in range(size):
        experiment.processes.rank, experiment.processes.size = rank, size
        state, shares = (
            loop.start(experiment),
            [batch[rank * 4 // size : (rank + 1) * 4 // size] for batch in meta_batches],
        )
        state.step = 1 if size == 2 else 0  # as a run that goes on
        experiment.processes.sum = lambda values: values
        experiment.processes.join = lambda part, total: part
        list(loop.meta_train(experiment, state, 3, 4))
        numbers = [number for share in shares[1 if size == 2 else 0 :] for number in share]
        assert [number for split, index in asked if split == "train" for number in index] == numbers
        assert len(asked) <= 2, "small tasks are drawn for several steps at once"
        asked.clear()
    experiment.processes = Processes()
    loop.meta_test(experiment, state.meta, "val", 8)
    assert asked == [("val", [*range(8)])]


def test_algorithms_are_tested_on_the_same_tasks_in_any_batches():
    experiment = _experiment()
    state = loop.start(experiment)
    a, b = (loop.meta_test(experiment, state.meta, "test", 50, batch=batch) for batch in (50, 7))
    torch.testing.assert_close(torch.tensor(a.mean), torch.tensor(b.mean), rtol=1e-6, atol=0)


def test_logits_that_are_not_finite_are_no_guess():
    from metarun.tasks import score

    logits = torch.tensor([[1.0, 0.0], [float("nan"), 0.0]])
    assert torch.isnan(score(logits, torch.tensor([0, 0])))
    assert score(logits[:1], torch.tensor([0])) == 1


class _Spoiled:
    """A source whose numbers are what a test makes of them."""

    def __init__(self, source, spoil):
        self.source, self.spoil = source, spoil

    def __getattr__(self, name):
        return getattr(self.source, name)

    def sample(self, seed, split, index):
        return self.spoil(self.source.sample(seed, split, index))


def _on(algorithm, source):
    from metarun.engine.engine import Engine

    return loop.Experiment(algorithm, source, Engine(chunk=8, eval_chunk=8), torch.device("cpu"), 0)


def _sinusoid():
    from metarun.data.sinusoid import Sinusoid

    source = Sinusoid(shots=5, queries=5)
    source.prepare(torch.device("cpu"))
    return source


def _algorithms():
    from metarun.algos.averaging import Averaging
    from metarun.algos.maml import MAML
    from metarun.algos.maml_pp import MAMLpp
    from metarun.algos.meta_lstm import MetaLSTM
    from metarun.algos.reptile import Reptile
    from metarun.models import MLP

    def model():
        return MLP((1,), 1, hidden=[8])

    yield MAML(model(), inner_lr=1e-30, inner_steps=3, eval_inner_steps=3)
    yield MAML(model(), inner_lr=1e-30, inner_steps=3, eval_inner_steps=3, first_order=True)
    yield MAMLpp(model(), inner_lr=1e-30, inner_steps=3)
    yield MetaLSTM(model(), inner_steps=3)
    yield Reptile(model(), inner_lr=1e-30, inner_steps=3, eval_inner_steps=3)
    yield Averaging(model(), learners=2, inner_lr=1e-30, inner_steps=3, eval_inner_steps=3)


@pytest.mark.parametrize("algorithm", _algorithms(), ids=lambda a: type(a).__name__)
def test_an_infinite_inner_loss_stops_the_run_even_where_its_gradient_is_finite(algorithm):
    """(1e25)² is infinite in float32 while its slope is not; the query loss never sees that point."""

    def spoil(task):
        task.support_y[2, 0] = 1e25  # of the third task
        return task

    experiment = _on(algorithm, _Spoiled(_sinusoid(), spoil))
    state = loop.start(experiment)
    before = {name: value.clone() for name, value in state.meta.items()}
    with pytest.raises(DivergedError, match=r"of training task 10 is not finite \(outer step 2, inner step 1\)"):
        state.step = 1
        next(loop.meta_train(experiment, state, 5, 8))
    assert all(torch.equal(value, before[name]) for name, value in state.meta.items())
    assert not state.optimizer.state


def test_more_ranks_than_tasks_give_what_a_single_rank_gives():
    experiment, parts = _experiment(), []
    meta = loop.start(experiment).meta
    whole = loop.meta_test(experiment, meta, "val", 2)

    class Rank(Processes):
        def join(self, part, total):
            parts.append(part)
            return torch.cat(parts) if len(parts) == self.size else torch.zeros(total, *part.shape[1:])

    for rank in range(3):
        experiment.processes = Rank()
        experiment.processes.rank, experiment.processes.size = rank, 3
        joined = loop.meta_test(experiment, meta, "val", 2)
    assert [len(part) for part in parts] == [1, 1, 0]
    assert joined.mean == pytest.approx(whole.mean, rel=1e-6)


def test_a_metric_that_is_not_finite_enters_no_mean():
    from metarun.algos.maml import MAML
    from metarun.models import MLP

    def spoil(task):
        task.query_y[3] = float("nan")
        return task

    experiment = _on(MAML(MLP((1,), 1, hidden=[8])), _Spoiled(_sinusoid(), spoil))
    with pytest.raises(DivergedError, match="the metric of test task 3 is not finite after 0 inner steps"):
        loop.meta_test(experiment, loop.start(experiment).meta, "test", 6)


def test_an_update_that_overflows_is_not_saved():
    from metarun.algos.maml import MAML
    from metarun.models import MLP

    experiment = _on(MAML(MLP((1,), 1, hidden=[8]), meta_lr=1e38), _sinusoid())
    state = loop.start(experiment)
    with torch.no_grad():
        next(iter(state.meta.values())).fill_(float("inf"))
    with pytest.raises(DivergedError, match=r"\(after outer step 0\).*meta_lr"):
        loop.snapshot(state)
