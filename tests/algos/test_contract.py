"""Every algorithm on every task source that conf/ has: it learns, and engine modes, saving and task order do not matter.

An algorithm or a source that is new in conf/ is tested here without a line more, unless it needs other short settings.
Whether it learns takes long to see: by default of an algorithm of each family on one source, with -m slow of all.
"""

import itertools
import re

import pytest
import torch
from helpers.runs import ROOT

from metarun.config.compose import compose
from metarun.engine import loop, replay
from metarun.engine.engine import Engine
from metarun.errors import DivergedError, UsageError
from metarun.run.build import build_experiment
from metarun.run.starting_point import restore
from metarun.storage import checkpoint


def _choices(group):
    return sorted(file.stem for file in (ROOT / "conf" / group).glob("*.yaml"))


# Short runs of small learners: words and outer steps for a source, words for an algorithm.
SOURCES = {
    "omniglot": (["model.filters=8", "meta_batch=8", "data.shots=2"], 60),
    "sequences": (["model.hidden=16", "data.length=12", "meta_batch=10", "algo.meta_lr=0.003"], 150),
    "sinusoid": (["algo.meta_lr=0.01", "meta_batch=10"], 150),
    "tabular": (["meta_batch=10", "model.hidden=[16]"], 100),
}
ALGORITHMS = {
    **{name: ["algo.eval_inner_steps=3"] for name in ("maml", "fomaml", "anil", "pretrain")},
    "averaging": ["algo.eval_inner_steps=3", "algo.learners=3"],
    "lstm_generator": ["algo.eval_inner_steps=3", "algo.hidden=16", "algo.meta_lr=0.003"],
    "boil": ["algo.eval_inner_steps=3"],
    "cavia": ["algo.eval_inner_steps=3", "algo.meta_lr=0.01"],
    "imaml": [
        "algo.inner_steps=8",
        "algo.eval_inner_steps=8",
        "algo.strength=10",
        "algo.meta_lr=0.003",
        "algo.meta_clip=1",
    ],
    "in_context": ["algo.layers=2", "algo.width=16", "algo.meta_lr=0.01"],
    "mann": ["algo.hidden=16", "algo.slots=16", "algo.width=8", "algo.meta_lr=0.01"],
    "scratch": ["algo.eval_inner_steps=10"],
    "maml_pp": ["algo.inner_steps=2"],
    "meta_lstm": ["algo.inner_steps=3", "algo.meta_lr=0.01", "algo.meta_clip=null"],
    "closed_form": ["algo.meta_lr=0.01"],
    "protonet": ["algo.meta_lr=0.01"],
    "reptile": ["algo.inner_lr=0.02", "algo.eval_inner_steps=10", "algo.meta_lr=0.5"],
}
# Settings that make another algorithm of one, tested on one source; training tasks have fewer classes than outputs.
VARIANTS = {("unicorn", "tabular"): ["algo=maml", "algo.head=shared", "algo.eval_inner_steps=3", "data.eval_ways=3"]}
# Smaller still, where nothing has to be learned.
LITTLE = {"omniglot": ["model.filters=4"], "sequences": ["data.length=6"]}
LITTLE |= {"imaml": ["algo.inner_steps=3", "algo.eval_inner_steps=3"]}
READ_LABELS = {"mann", "lstm_generator"}  # as inputs of a network, to which no two are alike
MORE_STEPS = {("protonet", "sequences"): 500}  # untrained, an LSTM's features are good prototypes already
REFUSED = {
    *itertools.product(["protonet", "matching", "baseline"], ["sinusoid"]),
    *itertools.product(["oracle"], ["omniglot", "sequences", "tabular"]),
}
REFUSED |= set(itertools.product(["baseline"], ["sequences", "tabular"]))
# The labels of a task are arbitrary, so that there is nothing to find in all tasks together.
LEARN_NOTHING_ACROSS_TASKS = set(itertools.product(["pretrain"], ["omniglot", "sequences", "tabular"]))
OF_FILES = {"images", "torchvision", "table", "text"}  # of the user's, whose tasks are tested in tests/data
GENERATED = [name for name in _choices("data") if name not in OF_FILES]
COMBINATIONS = [c for c in itertools.product(_choices("algo"), GENERATED) if c not in REFUSED]
COMBINATIONS += VARIANTS
BY_DEFAULT = {"maml": "sinusoid", "reptile": "sinusoid", "protonet": "tabular", "baseline": "omniglot"}
BY_DEFAULT |= {"meta_lstm": "tabular", "lstm_generator": "tabular", "in_context": "sinusoid"}


def _words(algo, data, data_root, little=False):
    words = [f"data={data}", *SOURCES.get(data, ([], 100))[0]]
    words += VARIANTS.get((algo, data)) or [f"algo={algo}", *ALGORITHMS.get(algo, [])]
    words += [*LITTLE.get(data, []), *LITTLE.get(algo, [])] if little else []
    words += [f"data.root={data_root}"] if data == "omniglot" else []
    words += ["engine.replay=false"]  # a recording takes long
    return list({word.partition("=")[0]: word for word in words}.values())  # the last of each key


@pytest.mark.parametrize(("algo", "data"), sorted(REFUSED))
def test_what_makes_no_sense_is_refused_in_a_line_that_says_why(algo, data, data_root):
    with pytest.raises(UsageError, match=r"no meaning in regression|can tell the truth|have none in common") as refusal:
        build_experiment(compose(_words(algo, data, data_root)))
    assert "\n" not in str(refusal.value)


def _assemble(algo, data, data_root, little=False):
    config = compose(_words(algo, data, data_root, little))
    experiment = build_experiment(config)
    experiment.source.prepare(experiment.device)
    return experiment, loop.start(experiment), config


@pytest.fixture(scope="module", params=COMBINATIONS, ids="-".join)
def combination(request, data_root):
    """An experiment, its state after two outer steps, and its config."""
    experiment, state, config = _assemble(*request.param, data_root, little=True)
    list(loop.meta_train(experiment, state, 2, 4))
    return experiment, state, config


def _few(experiment):
    return experiment.source.sample(0, "test", torch.arange(4))


@pytest.mark.parametrize("file", sorted((ROOT / "conf" / "algo").glob("*.yaml")), ids=lambda file: file.stem)
def test_where_something_meta_learned_begins_has_no_effect_on_a_trained_algorithm(file):
    """By the comments of conf/; `metarun eval` refuses what has no effect."""
    begins = re.findall(
        r"^ *(\w+):[^#\n]*#.*(?:at the beginning; it is meta-learned|all rates begin)", file.read_text(), re.M
    )
    if begins:
        algorithm = build_experiment(compose([f"algo={file.stem}", "data=tabular"])).algorithm
        assert set(begins) <= set(algorithm.training_only)


def test_before_the_first_outer_step_no_outer_rate_is_to_blame():
    experiment = build_experiment(compose(["algo=closed_form", "data=sinusoid", "algo.penalty=1e300"]))
    experiment.source.prepare(experiment.device)
    with pytest.raises(
        DivergedError, match=r"\(outer step 1\): expected numbers; try settings of algo nearer to their"
    ):
        list(loop.meta_train(experiment, loop.start(experiment), 1, 4))


# What they have to learn first takes thousands of outer steps on these.
LONG = {("cavia", "omniglot"), *itertools.product(["imaml"], ["omniglot", "sequences"])}


def _by_length(algo, data):
    marks = [] if BY_DEFAULT.get(algo) == data else [pytest.mark.slow]
    return pytest.param(algo, data, marks=marks, id=f"{algo}-{data}")


@pytest.mark.parametrize(("algo", "data"), itertools.starmap(_by_length, [c for c in COMBINATIONS if c not in LONG]))
def test_learns_more_than_chance(algo, data, data_root):
    experiment, state, config = _assemble(algo, data, data_root)
    before = loop.meta_test(experiment, state.meta, "test", 100)
    steps = MORE_STEPS.get((algo, data), SOURCES.get(data, ([], 100))[1])
    list(loop.meta_train(experiment, state, steps, config.meta_batch))
    after = loop.meta_test(experiment, state.meta, "test", 100)
    if not experiment.algorithm.trains:
        assert after.mean == before.mean
        return
    if experiment.source.metric == "mse":
        assert after.mean[-1] + after.ci95[-1] < 4.25, "the error of who always says 0"
        assert after.mean[-1] < 0.8 * before.mean[-1]
    else:
        assert after.mean[-1] - after.ci95[-1] > 1 / experiment.source.outputs
        assert (algo, data) in LEARN_NOTHING_ACROSS_TASKS or after.mean[-1] - before.mean[-1] > 0.02


def test_loop_and_vmap_agree(combination):
    """In float64, where an inner Adam, which divides by a gradient's size, makes 1e-9 of a rounding of 1e-17."""
    experiment, state, _ = combination
    meta = {name: value.double() for name, value in state.meta.items()}
    tasks = _few(experiment).to(torch.float64)
    engines = [Engine("loop"), Engine("vmap"), Engine("vmap", 3, 3)]
    gradients = [e.meta_gradient(experiment.algorithm.at(0.2), meta, tasks) for e in engines]
    curves = [e.adaptation_curves(experiment.algorithm, meta, tasks) for e in engines]
    flat = [torch.cat([grad.flatten() for grad in some.grads.values()]) for some in gradients]
    for n in (1, 2):
        assert (flat[n] - flat[0]).norm() <= 1e-8 * flat[0].norm()
        torch.testing.assert_close(gradients[n].losses, gradients[0].losses, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(curves[n], curves[0], rtol=1e-9, atol=1e-12)


def test_meta_training_begins_alike_whatever_was_drawn_before(combination):
    experiment, *_ = combination
    before = torch.get_rng_state()
    starts = [(torch.manual_seed(number), loop.start(experiment).meta)[1] for number in (1, 2)]
    torch.set_rng_state(before)
    assert all(torch.equal(value, starts[1][name]) for name, value in starts[0].items())


@pytest.mark.slow
def test_a_replay_changes_no_bit(combination, monkeypatch):
    experiment, state, _ = combination
    monkeypatch.setattr(replay, "FASTER", float("inf"))
    engine = Engine("vmap", replay=True)
    for step in range(replay.WARM + replay.TRIALS + 3):
        tasks = experiment.source.sample(0, "train", torch.arange(4 * step, 4 * step + 4))
        found = engine.meta_gradient(experiment.algorithm, state.meta, tasks)
    expected = Engine("vmap", replay=False).meta_gradient(experiment.algorithm, state.meta, tasks)
    assert all(torch.equal(found.grads[name], expected.grads[name]) for name in state.meta)
    assert torch.equal(found.losses, expected.losses)
    assert not (engine._replay.given_up and experiment.algorithm.trains)


def test_query_answers_play_no_part_in_the_answers(combination):
    """Tested on a task, an algorithm must not have seen what it is judged by.

    If it has not, its accuracies add up to 1 over all constant answers there could be; and its squared error is, in a
    number added to all answers, a parabola whose curvature is known.
    """
    experiment, state, _ = combination
    tasks = _few(experiment)

    def judged_by(query_y):
        some = tasks._replace(query_y=query_y)
        return experiment.engine.adaptation_curves(experiment.algorithm, state.meta, some).double()

    if experiment.source.metric == "accuracy":
        total = sum(judged_by(torch.full_like(tasks.query_y, n)) for n in range(experiment.source.outputs))
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-5, atol=1e-5)
    else:
        up, down, same = (judged_by(tasks.query_y + shift) for shift in (3, -3, 0))
        torch.testing.assert_close(up + down - 2 * same, torch.full_like(same, 18), rtol=1e-3, atol=1e-3)


def test_labels_are_only_names(combination, request):
    """Relabelled tasks are answered alike, once the rows of the head, wherever something has such, are in that order."""
    experiment, state, _ = combination
    algorithm, classes = experiment.algorithm, experiment.source.outputs
    if experiment.source.metric == "mse" or request.node.callspec.params["combination"][0] in READ_LABELS:
        return
    meta = {name: value.double() for name, value in state.meta.items()}
    moved = dict(meta)
    for name, value in meta.items():
        if name.endswith(f"{algorithm.model.head_name}.weight") and value.shape[-2:-1] == (classes,):
            bias = f"{name.removesuffix('weight')}bias"
            moved |= {name: value.roll(1, -2), bias: meta[bias].roll(1, -1)}
    tasks = _few(experiment).to(torch.float64)
    support_y, query_y = ((y + 1) % classes for y in (tasks.support_y, tasks.query_y))
    renamed = tasks._replace(support_y=support_y, query_y=query_y, classes=tasks.classes.roll(1, -1))
    engine = Engine("vmap")
    before, after = (engine.adaptation_curves(algorithm, *some) for some in ((meta, tasks), (moved, renamed)))
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-12)
    before, after = (engine.meta_gradient(algorithm, *some).losses for some in ((meta, tasks), (moved, renamed)))
    torch.testing.assert_close(after, before, rtol=1e-7, atol=1e-9)


def test_task_order_does_not_matter(combination):
    experiment, state, _ = combination
    tasks = _few(experiment)
    order = [2, 0, 3, 1]
    forward, back = (
        Engine().meta_gradient(experiment.algorithm, state.meta, some).losses for some in (tasks, tasks.select(order))
    )
    torch.testing.assert_close(forward[order], back, rtol=1e-4, atol=1e-5)


def test_evaluation_leaves_everything_as_it_was(combination):
    experiment, state, _ = combination
    before = {name: value.clone() for name, value in state.meta.items()}
    model = {name: value.clone() for name, value in experiment.algorithm.model.state_dict().items()}
    first, second = (loop.meta_test(experiment, state.meta, "val", 4) for _ in range(2))
    assert first == second
    assert all(torch.equal(state.meta[name], before[name]) for name in before)
    assert all(torch.equal(value, model[name]) for name, value in experiment.algorithm.model.state_dict().items())


def test_saved_and_loaded_it_is_the_same(combination, tmp_path):
    experiment, state, config = combination
    about = {
        "best": [0, None],
        "chunks": [1, 1],
        "metrics": "",
        "config": "",
        "frozen": "",
        **experiment.source.identity(),
    }
    saved = {key: about[key] for key in ("best", "chunks", "metrics", "config", "split_hash", "frozen")}
    checkpoint.save(tmp_path, state.step, {**loop.snapshot(state), **saved}, keep=set())
    loaded = loop.start(experiment)
    restore(experiment, loaded, checkpoint.load(tmp_path, state.step))
    assert all(torch.equal(loaded.meta[name], state.meta[name]) for name in state.meta)
    a, b = (next(loop.meta_train(experiment, s, s.step + 1, config.meta_batch)) for s in (state, loaded))
    assert torch.equal(a.loss, b.loss)
    assert all(torch.equal(loaded.meta[name], state.meta[name]) for name in state.meta)
