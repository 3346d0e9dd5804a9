"""The digest of the test tasks, and what an evaluation says of training."""

import torch

from metarun.config.compose import compose
from metarun.engine.loop import evaluate, start
from metarun.intervals import Clusters, Evaluation
from metarun.run import summary
from metarun.run.build import build_experiment
from metarun.run.summary import compare_training
from metarun.storage.records import TASK_DIGITS


def _config(*words):
    return compose(["device=cpu", *words])


def _experiment(*words):
    experiment = build_experiment(_config(*words))
    experiment.source.prepare(torch.device("cpu"))
    return experiment


def test_the_digest_of_test_tasks_is_that_of_the_tasks():
    """Two algorithms on the same tasks share it; another seed, another number of shots or of tasks has another."""

    def digest(*words, tasks=5):
        record = summary.test_tasks_of(
            _experiment(*words), Evaluation([2.0, 1.0], [0.1, 0.1], tasks, [1.0] * tasks, 10)
        )
        assert (record.metric, record.inner_steps, record.each) == ("mse", 1, [1.0] * tasks)
        return record.digest

    same = digest()
    assert digest("algo=reptile", "meta_batch=3", "data.shots=3", "data.eval_shots=10") == same
    assert len({same, digest("seed=1"), digest("data.shots=9"), digest(tasks=6)}) == 4


def test_the_first_tasks_are_the_same_however_many_there_are():
    def digests(tasks, *words):
        result = Evaluation([1.0], [0.1], tasks, [1.0] * tasks, 10)
        return summary.test_tasks_of(_experiment(*words), result).each_digest

    assert digests(150).startswith(digests(7))
    assert len(digests(7)) == 7 * TASK_DIGITS
    assert len({digests(7, seed)[:TASK_DIGITS] for seed in ("seed=0", "seed=1", "data.shots=9")}) == 3


def test_what_tasks_share_is_recorded():
    experiment, each = _experiment(), [2.0, 2.1, 1.0, 1.1, 3.0, 3.1]
    experiment.source.clustered_by = "tables"
    clusters = Clusters([[7], [7], [8], [8], [9], [9]])
    result = evaluate(torch.tensor([each, each]).T.double(), "test", "mse", 10, clusters)
    tasks = summary.test_tasks_of(experiment, result)
    assert tasks.clusters == [[7], [7], [8], [8], [9], [9]]
    found = summary.summarize(_config(), experiment, start(experiment), result, choices={}).test
    assert found.clusters.plain() == {"kind": "tables", "number": 3, "in_task": 1}
    assert found.unclustered == result.unclustered[-1] < found.ci95 == result.ci95[-1]
    assert (found.by_step[0].ci95, found.by_step[0].unclustered) == (found.ci95, found.unclustered)


def test_training_is_compared_by_facts():
    trained = _experiment()
    assert compare_training(trained, _experiment()) is None
    assert compare_training(trained, _experiment("data.eval_shots=3")) is None, "it trained with the same"
    assert compare_training(_experiment("data.eval_shots=3"), _experiment("data.shots=3")).source.shots == 10
    other = compare_training(trained, _experiment(), other_data=True)
    assert (other.source.name, other.other_data) == ("sinusoid", True), "which facts need not show"
    inner = compare_training(trained, _experiment("algo.eval_inner_steps=2"))
    assert inner.source is None
    assert inner.inner.eval_steps == 10
    order = compare_training(trained, _experiment("algo=fomaml"))
    assert (order.source, order.inner, order.details) == (None, None, {"meta_gradient": "second order"})


def test_a_test_with_another_batch_norm_than_in_training_says_so():
    words = ("data=tabular", "model=mlp")
    trained, tested = _experiment(*words), _experiment(*words)
    tested.algorithm.model.norm = "support"
    assert compare_training(trained, tested).norm == trained.algorithm.model.norm == "none"
