"""A class of the user's own as the learner of a config: what its constructor is given, and what it is answered."""

from dataclasses import replace

import pytest
import torch

from metarun.config.compose import compose
from metarun.engine import loop
from metarun.errors import RunDirError, UsageError
from metarun.models.adopt import frozen_digest
from metarun.run.build import build_experiment, build_learner, check_ways_of_eval, refuse_without_effect
from metarun.run.starting_point import restore
from metarun.run.summary import summarize

NET = """
import torch
from torch import nn
from metarun.models.mlp import MLP

class Plain(nn.Sequential):
    def __init__(self, outputs, width=8):
        super().__init__(nn.Flatten(), nn.LazyLinear(width), nn.BatchNorm1d(width), nn.Linear(width, outputs))

class Named(nn.Linear):
    def __init__(self, input_shape, outputs, norm="mine"):
        super().__init__(input_shape[0], outputs)
        assert norm == "mine"

class Chooses(Plain):
    def __init__(self, outputs, norm="batch"):
        super().__init__(outputs)
        self[2] = {"batch": self[2], "group": nn.GroupNorm(2, 8)}[norm]

class Free(Plain):
    def __init__(self, outputs, **others):
        super().__init__(outputs)

class Own(MLP):
    def __init__(self, **others):
        super().__init__(**others)

class Frozen(nn.Module):
    def __init__(self, value=1.0):
        super().__init__()
        self.norm, self.fc = nn.Linear(10, 10).requires_grad_(False), nn.Linear(10, 2)
        nn.init.constant_(self.norm.weight, value)

    def forward(self, x, half=None):
        return self.fc(self.norm(x) if half is None else x)

class Breaks(nn.Module):
    def __init__(self):
        super().__init__()
        open("nothing")
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """An experiment on data=tabular, whose learner is a class of a module in the working directory."""
    (tmp_path / "own_net.py").write_text(NET)
    monkeypatch.setenv("METARUN_TRUST", "own_net")
    monkeypatch.chdir(tmp_path)

    def build(name, *words, **settings):
        config = replace(compose(("data=tabular", *words)), model={"_target_": f"own_net.{name}", **settings})
        return config, build_experiment(config)

    return build


def test_the_constructor_is_given_what_it_takes(build):
    config, experiment = build("Plain", width=6, norm="support")
    learner = experiment.algorithm.model
    assert (learner.own_class, learner.norm, learner.head_name) == ("own_net.Plain", "support", "3")
    state = loop.start(experiment)
    assert {name: tuple(value.shape) for name, value in state.meta.items()}["3.weight"] == (2, 6)
    experiment.source.prepare(experiment.device)
    result = loop.meta_test(experiment, state.meta, "test", 4)
    facts = summarize(config, experiment, state, result, choices={}).learner
    assert (facts.name, facts.norm) == ("Plain", "support"), "the mode is said where a run is summed up"
    assert build("Plain")[1].algorithm.model.norm == "transductive"
    assert build("Named")[1].algorithm.model.norm == "none", "a class that takes norm has it for itself"


def test_the_mode_of_batch_norm_is_not_swallowed_with_other_words(build):
    """It would stay transductive, and answers of `metarun adapt` depend on their company."""
    assert build("Free", norm="support")[1].algorithm.model.norm == "support"
    assert build("Own", hidden=[4], norm="support")[1].algorithm.model.norm == "support", "a Learner has it for itself"


@pytest.mark.parametrize("settings", [{}, {"norm": "batch"}])
def test_the_mode_of_a_test_is_not_taken_for_what_a_class_calls_norm(build, settings):
    config, experiment = build("Chooses", **settings)
    learner = build_learner(config, experiment.source, experiment.device, "support")
    assert (type(learner.module[2]).__name__, learner.norm) == ("BatchNorm1d", "support")
    config, experiment = build("Own", hidden=[4], norm="transductive")
    assert build_learner(config, experiment.source, experiment.device, "support").norm == "support"


def test_a_setting_acts_as_its_class_has_it_where_the_one_beside_it_is_not_given(build):
    words, (config, _) = ["model.norm_eps=1e-3"], build("Own", hidden=[4], norm_eps=1e-3)
    refuse_without_effect(words, config)
    with pytest.raises(UsageError, match=r"model.norm_eps=.*has no effect with model.norm=none"):
        refuse_without_effect(["model={norm_eps:1e-3}"], replace(config, model=config.model | {"norm": "none"}))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("Plain", {"norm": "batch"}, r"'batch' \(model\.norm\): expected one of transductive, support"),
        ("Plain", {"size": 3}, r"model\.size: no such setting of Plain; it has width"),
        ("Breaks", {}, r"model: own_net\.Breaks cannot be built: FileNotFoundError: .* nothing"),
    ],
)
def test_what_is_wrong_with_it_is_said_of_its_class(build, name, settings, words):
    with pytest.raises(UsageError, match=words):
        build(name, **settings)


def test_weights_of_averaging_are_the_constructors(build):
    _, experiment = build("Frozen", "algo=averaging", "algo.learners=3", value=7.0)
    assert experiment.algorithm.init()["fc.weight"].shape == (3, 2, 10)
    frozen = [model.module.norm.weight for model in experiment.algorithm.initial]
    assert all(torch.equal(weight, frozen[0]) for weight in frozen)


def test_a_checkpoint_of_other_frozen_weights_is_refused(build):
    (_, experiment), (_, other) = (build("Frozen", value=value) for value in (1.0, 2.0))
    state = loop.start(experiment)
    assert list(state.meta) == ["fc.weight", "fc.bias"]
    for each in (experiment, other):
        each.source.prepare(each.device)
    hash_ = experiment.source.identity()["split_hash"]
    saved = {**loop.snapshot(state), "split_hash": hash_, "frozen": frozen_digest(experiment.algorithm.model)}
    restore(experiment, loop.start(experiment), saved)
    restore(other, loop.start(other), {**saved, "frozen": ""})  # of a run from before there was a digest
    with pytest.raises(RunDirError, match=r"frozen weights or buffers .*own_net\.Frozen"):
        restore(other, loop.start(other), saved)


def test_an_algorithm_without_a_weight_to_train_is_refused(build):
    with pytest.raises(UsageError, match=r"Prototypical networks \(algo\): expected weights to meta-train"):
        build("Frozen", "algo=protonet")


@pytest.mark.parametrize("algo", ["protonet", "matching", "closed_form", "in_context"])
def test_a_checkpoint_of_any_ways_is_good_for_others(algo):
    trained, tested = (build_experiment(compose(("data=tabular", f"algo={algo}", f"data.ways={n}"))) for n in (3, 6))
    tested.source.prepare(tested.device)
    saved = {**loop.snapshot(loop.start(trained)), "split_hash": trained.source.identity()["split_hash"], "frozen": ""}
    restore(tested, other := loop.start(tested), saved)
    assert loop.meta_test(tested, other.meta, "test", 20).mean[-1] > 0


def test_with_a_shared_head_a_run_is_tested_with_any_ways(tmp_path):
    """The checkpoint of a training with 4 ways, whose val and test tasks have 2, is good for 2 and for 6."""

    def build(*words):
        experiment = build_experiment(compose(("data=tabular", *words)))
        experiment.source.prepare(experiment.device)
        return experiment, loop.start(experiment)

    trained, state = build("algo.head=shared", "data.ways=4", "data.eval_ways=2")
    list(loop.meta_train(trained, state, 2, 4))
    saved = {**loop.snapshot(state), "split_hash": trained.source.identity()["split_hash"], "frozen": ""}
    for ways in (2, 6):
        tested, other = build("algo.head=shared", f"data.ways={ways}")
        check_ways_of_eval(trained.source, tested)
        restore(tested, other, saved)
        result = loop.meta_test(tested, other.meta, "test", 40)
        assert result.mean[0] == pytest.approx(1 / ways, abs=1e-6), "step 0 is exactly chance"
        assert result.mean[-1] > 1.2 / ways
    (own, _), (other, _) = build(), build("data.ways=6")
    with pytest.raises(UsageError, match=r"6 \(data.ways\): expected 2, as in .*protonet, or algo.head=shared with"):
        check_ways_of_eval(own.source, other)
