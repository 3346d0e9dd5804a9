"""A learner out of its run, or a file, answers as the run's own test: to the last bit, and for other numbers of classes."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.runs import train

from metarun.errors import DivergedError, MetarunError, RunDirError, UsageError
from metarun.run import trained as module
from metarun.run.build import build_experiment
from metarun.run.loading import SUPPORT, load_trained, save_trained
from metarun.storage.exported import read_exported, write_exported
from metarun.storage.learner_records import Task

LENGTH = ("meta_steps=4", "val_every=2", "val_tasks=4", "test_tasks=6", "meta_batch=2", "device.threads=1")
RUNS = {
    "maml, mlp": ("model.hidden=[8]",),
    "maml, conv4": ("data=omniglot", "model.filters=4", "algo.eval_inner_steps=2"),
    "protonet": ("algo=protonet", "data=tabular", "data.ways=4", "model.hidden=[8]"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_root):
    """Gives the directory of a small run, which is trained when it is first asked for."""
    made = {}

    def give(name):
        if name not in made:
            made[name] = train(tmp_path_factory.mktemp("runs") / "run", *LENGTH, *RUNS[name])
        return made[name]

    return give


def _task(trained, split="test"):
    """The algorithm as `metarun eval` has it, and its first test task."""
    experiment = build_experiment(trained.config)
    experiment.source.prepare(experiment.device)
    return experiment.algorithm, experiment.source.sample(trained.config.seed, split, torch.arange(1)).select(0)


def _numpy(task):
    return task.support_x.numpy(), task.support_y.numpy(), task.query_x.numpy()


@pytest.mark.parametrize("name", RUNS)
def test_answers_are_those_of_the_runs_own_test_from_the_run_and_from_a_file(run, name, tmp_path):
    trained = load_trained(run(name))
    algorithm, task = _task(trained)
    expected = algorithm.predictions(trained.meta, task).detach()
    save_trained(trained, tmp_path / "run.safetensors")
    classes = None if "mlp" in name else int(task.support_y.max()) + 1
    for source in (trained, load_trained(tmp_path / "run.safetensors")):
        answers = source.build(classes, together=True).answer(*_numpy(task))
        assert torch.equal(answers, expected)
    assert not re.search(r"root: /|file: /", json.dumps(read_exported(tmp_path / "run.safetensors")[0].config))


def test_each_query_is_asked_alone_unless_together(run, monkeypatch):
    trained = load_trained(run("maml, conv4"))
    _, task = _task(trained)
    x, y, query = _numpy(task)
    alone, together = (trained.build(5, mode).answer(x, y, query) for mode in (False, True))
    assert (alone - together).abs().max() > 1e-3
    one = trained.build(5).answer(x, y, query[:1])
    assert torch.allclose(one, alone[:, :1], rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(module, "PIECE", 2 * query[0].size)
    assert torch.allclose(trained.build(5).answer(x, y, query), alone, rtol=1e-4, atol=1e-5), "in pieces"
    assert torch.equal(trained.build(5, True).answer(x, y, query), together), "never in pieces"


def test_other_numbers_of_classes_and_of_inner_steps(run):
    trained = load_trained(run("maml, conv4"))
    _, task = _task(trained)
    x, y, query = _numpy(task)
    assert trained.build(3, inner_steps=1).answer(x[y < 3], y[y < 3], query).shape == (2, len(query), 5)
    with pytest.raises(UsageError, match=r"6 classes.*at most 5.*protonet"):
        trained.build(6)
    with pytest.raises(UsageError, match="1 class "):
        trained.build(1)
    free = load_trained(run("protonet"))
    x = np.random.default_rng(0).normal(size=(9, 10)).astype(np.float32)
    for classes in (2, 9):
        y = np.arange(9) % classes
        assert free.build(classes).answer(x, np.sort(y), x).shape == (1, 9, classes)
    with pytest.raises(UsageError, match="no inner steps"):
        free.build(2, inner_steps=3)


def test_answers_that_are_not_finite_are_refused(run):
    trained = load_trained(run("maml, mlp"))
    x = np.full((3, 1), 1e30, np.float32)
    with pytest.raises(DivergedError, match="not finite after 10 inner steps"):
        trained.build(None).answer(x, x, x)


def test_a_learner_of_a_gpu_answers_on_a_machine_without(run, tmp_path, monkeypatch):
    trained = load_trained(run("maml, mlp"))
    config = trained.config.plain()
    device = {**config["device"], "name": "cuda", "tf32": True}
    facts = trained.facts.model_copy(update={"config": {**config, "device": device}})
    save_trained(replace(trained, facts=facts), tmp_path / "x.safetensors")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_trained(tmp_path / "x.safetensors").build(None).device.type == "cpu"


def test_a_run_that_is_not_finished_is_refused(run, tmp_path):
    with pytest.raises(RunDirError, match="expected a run directory, or a file"):
        load_trained(tmp_path / "nowhere")
    with pytest.raises(RunDirError, match="no run there"):
        load_trained(tmp_path)


def test_a_run_from_before_preprocessing_was_kept_is_loaded_by_its_source(run, tmp_path):
    shutil.copytree(run("maml, mlp"), tmp_path / "run")
    environment = tmp_path / "run/environment.json"
    content = json.loads(environment.read_text())
    assert (content.pop("inputs"), content.pop("outputs")) == ({"kind": "numbers", "shape": [1]}, 1)
    environment.write_text(json.dumps(content))
    assert load_trained(tmp_path / "run").facts.inputs == {"kind": "numbers", "shape": [1]}
    content["inputs"], content["outputs"] = {"kind": "numbers", "shape": ["1"]}, 1
    environment.write_text(json.dumps(content))
    with pytest.raises(RunDirError, match="preprocessing"):
        load_trained(tmp_path / "run")


def _change(plain, place, value):
    """The plain facts with this value at a place; without it where the value is `...`."""
    *path, last = place.split(".")
    plain = part = json.loads(json.dumps(plain))
    for key in path:
        part = part[key]
    if value is ...:
        part.pop(last)
    else:
        part[last] = value
    return plain


PLACES = (
    "name",
    "config",
    "config.algo",
    "config.model",
    "config.model._target_",
    "config.model.hidden",
    "config.data",
)
PLACES += ("config.device", "config.device.name", "config.engine", "config.logger", "config.seed", "config.meta_batch")
PLACES += ("inputs", "inputs.kind", "inputs.shape", "outputs", "metric", "summary", "task", "task.classes", "version")
VALUES = (..., None, "x", [[1]], {"_target_": "os.system"})


def test_what_a_stranger_wrote_is_refused_in_a_line_or_answers(run, tmp_path):
    """The digest is no secret. Nothing is seen but answers, and errors of metarun's own."""
    file = tmp_path / "x.safetensors"
    trained = load_trained(run("protonet"))
    x = np.zeros((4, 10), np.float32)
    task = Task(classes=["a", "b"])
    adapted = replace(trained, facts=trained.facts.model_copy(update={"task": task}), support=(x, np.arange(4) % 2))
    save_trained(adapted, file)
    facts, tensors = read_exported(file)
    refused = []
    for place in PLACES:
        for value in VALUES:
            content = _Facts(_change(facts.plain(), place, value))
            write_exported(file, content, tensors, "")
            try:
                found = load_trained(file)
                found.build(2).answer(x, np.arange(4) % 2, x)
            except MetarunError as error:
                refused.append(str(error))
    assert not any("\n" in line for line in refused)
    assert len(refused) > len(PLACES) * len(VALUES) / 2


class _Facts:
    """Facts of any kind."""

    def __init__(self, plain):
        self._plain = plain

    def plain(self):
        return self._plain


def test_tensors_that_do_not_fit_are_refused(run, tmp_path):
    file = tmp_path / "x.safetensors"
    trained = load_trained(run("protonet"))
    x, y = np.zeros((4, 10), np.float32), np.arange(4) % 2
    facts = trained.facts.model_copy(update={"task": Task(classes=["a", "b"])})
    save_trained(replace(trained, facts=facts, support=(x, y)), file)
    facts, good = read_exported(file)
    assert set(SUPPORT) <= set(good)
    weight = next(name for name in good if name not in SUPPORT)
    changes = [
        {weight: None},
        {weight: good[weight].astype(np.float64)},
        {weight: good[weight][..., None]},
        {"more": x},
        *({SUPPORT[0]: value} for value in (None, x[:, :9], x.astype(np.float64), x + np.nan, x[:3])),
        *({SUPPORT[1]: value} for value in (None, y + 1, y * 0, y.astype(np.int32), y[:3], x)),
    ]
    for change in changes:
        tensors = {name: value for name, value in {**good, **change}.items() if value is not None}
        write_exported(file, facts, tensors, "")
        with pytest.raises(RunDirError) as caught:
            load_trained(file).build(2)
        assert "\n" not in str(caught.value)
