"""Omniglot's tasks: no class leaks, support and query share nothing, rotations are where they were asked for."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from helpers.drawings import CHARACTERS, SPLIT_SIZES, RealOmniglot
from helpers.oracles import maml, source_of_other_ways
from helpers.runs import ROOT
from PIL import Image

from metarun import seeds
from metarun.engine.engine import Engine
from metarun.errors import DataError, SettingError
from metarun.models import Conv4
from metarun.tasks import SPLITS


@pytest.mark.parametrize("real", [False, True])
def test_splits_are_disjoint_and_have_their_sizes(request, real):
    make = request.getfixturevalue("real_omniglot" if real else "omniglot")
    sizes = [1100, 100, 423] if real else list(SPLIT_SIZES.values())
    source = make()
    names = {split: source.classes(split) for split in SPLITS}
    assert [len(names[split]) for split in SPLITS] == sizes
    assert len(set().union(*names.values())) == sum(sizes)
    assert names["train"] == make(ways=20, shots=5).classes("train")
    assert set(names["train"]) != set(make(split_seed=1).classes("train"))


def test_lakes_split_is_by_alphabets_and_its_tasks_are_within_one(omniglot, monkeypatch):
    monkeypatch.setattr("metarun.data.omniglot.VALIDATION_ALPHABETS", 1)
    source = omniglot(ways=10, split="lake", rotations="none")
    alphabets = {split: {name.partition("/")[0] for name in source.classes(split)} for split in SPLITS}
    assert alphabets["test"] == {name for name, (part, _) in CHARACTERS.items() if part == "images_evaluation"}
    assert alphabets["train"] | alphabets["val"] == {"Greek", "Sanskrit"}
    assert alphabets["train"] != alphabets["val"]
    names = list(source.packed)
    tasks = source.clusters(0, "test", torch.arange(60)).tolist()
    of_tasks = [{names[number].partition("/")[0] for number in task} for task in tasks]
    assert all(len(found) == 1 for found in of_tasks)
    assert all(len({*task}) == 10 for task in tasks)
    assert {number for task in tasks for number in task} == {*source.members["test"].tolist()}, "all are drawn"
    drawings = _drawings(source, source.sample(0, "test", torch.arange(1)).support_x)
    assert [numbers[0] // 20 for numbers in drawings] == tasks[0], "the clusters are the task's classes"


def test_lakes_tasks_have_no_more_ways_than_an_alphabet_has_characters(omniglot):
    with pytest.raises(DataError, match=r"30 \(data.ways\): expected at most 2\d, the classes of a group"):
        omniglot(ways=30, split="lake")


def test_the_split_hash_tells_splits_apart(omniglot):
    first, same, other = (omniglot(**s).identity()["split_hash"] for s in ({}, {"ways": 2}, {"split_seed": 1}))
    assert first == same != other


@pytest.mark.parametrize(
    "change",
    [lambda names: names["train"].pop(), lambda names: names["val"].pop(0), lambda names: names["test"].reverse()],
)
def test_the_split_hash_has_every_name_in_its_split_and_place(omniglot, monkeypatch, change):
    source = omniglot()
    names, before = {split: source.classes(split) for split in SPLITS}, source.identity()["split_hash"]
    monkeypatch.setattr(source, "classes", names.__getitem__)
    assert source.identity()["split_hash"] == before
    names["val"].append(names["train"].pop())  # between two splits
    assert source.identity()["split_hash"] != before
    names["train"].append(names["val"].pop())
    change(names)
    assert source.identity()["split_hash"] != before


def test_the_real_classes_and_pixels_are_those_of_the_published_runs(real_omniglot):
    """A run directory of any version can only be evaluated on the split and the pixels that it was trained on."""
    source = real_omniglot()
    published = {
        (environment["split_hash"], environment["data_digest"])
        for path in (ROOT / "outputs" / "published").glob("*/omniglot*/**/environment.json")
        for environment in [json.loads(path.read_text())]
    }
    assert published == {(source.identity()["split_hash"], source.identity()["data_digest"])}


def _check_drawings(source, archive, alphabet, number):
    """The class by its name, its drawings by drawer, ink bright: decoded independently of the package's own reader."""
    with zipfile.ZipFile(archive) as opened:
        paths = sorted(p for p in opened.namelist() if f"/{alphabet}/character{number:02d}/" in p)
        drawings = [np.asarray(Image.open(io.BytesIO(opened.read(p))).convert("L")) for p in paths]
    assert len(drawings) == 20
    images = source.packed[f"{alphabet}/character{number:02d}"]
    for drawer in (0, 7, 19):
        small = torch.from_numpy(images[drawer, 0]).float() / 255
        ink = 1 - torch.from_numpy(drawings[drawer].copy()).float() / 255
        # Shrinking keeps the mean (to the filter's ringing, which is clipped) and the place of the ink.
        assert abs(small.mean() - ink.mean()) < 0.01
        coarse = torch.nn.functional.adaptive_avg_pool2d(ink[None], 28)[0]
        assert torch.corrcoef(torch.stack([small.flatten(), coarse.flatten()]))[0, 1] > 0.9
        assert ((small > 0.1) & (small < 0.9)).any(), "antialiased"


@pytest.mark.parametrize(("alphabet", "number"), [("Greek", 3), ("Sanskrit", 20), ("ULOG", 11)])
def test_images_are_the_archives_drawings(omniglot, data_root, alphabet, number):
    archive = data_root / "omniglot-py" / f"{CHARACTERS[alphabet][0]}.zip"
    _check_drawings(omniglot(), archive, alphabet, number)


def test_images_are_the_real_archives_drawings(real_omniglot, real_data_root):
    source = real_omniglot()
    assert source.examples.shape == (1623 * 20, 1, 28, 28)
    _check_drawings(source, real_data_root / "omniglot-py" / "images_background.zip", "Greek", 3)


def _drawings(source, images):
    """For each 28x28 image the numbers of the drawings that it is, whatever its rotation."""
    if not hasattr(source, "known"):
        source.known = {}
        for number, image in enumerate(source.examples.view(-1, 28, 28)):
            for quarter in range(4):
                source.known.setdefault(torch.rot90(image, quarter).contiguous().numpy().tobytes(), []).append(number)
    return [source.known[(image * 255).round().byte().numpy().tobytes()] for image in images.reshape(-1, 28, 28)]


@pytest.fixture(scope="module")
def identified(omniglot):
    """A source, and for each split its tasks and the drawings that they hold."""
    source = omniglot(ways=5, shots=2, queries=3)
    result = {}
    for split in SPLITS:
        tasks = source.sample(0, split, torch.arange(100))
        result[split] = (_drawings(source, tasks.support_x), _drawings(source, tasks.query_x), tasks)
    return source, result


def test_no_test_character_in_any_rotation_is_a_training_character(identified):
    source, result = identified
    members = {split: set(source.members[split].tolist()) for split in SPLITS}
    for split in SPLITS:
        for part in result[split][:2]:
            assert {n // 20 for numbers in part for n in numbers} == members[split], "all of its classes, and no other"
    assert not members["train"] & members["test"]
    assert not members["val"] & (members["test"] | members["train"])


def test_support_and_query_never_share_a_drawing_and_labels_are_right(identified):
    _, result = identified
    for support, query, tasks in result.values():
        support_ids, query_ids = (
            np.array([numbers[0] for numbers in part]).reshape(100, 5, -1) for part in (support, query)
        )
        assert torch.equal(tasks.support_y, torch.arange(5).repeat_interleave(2).expand(100, -1))
        assert torch.equal(tasks.query_y, torch.arange(5).repeat_interleave(3).expand(100, -1))
        for t in range(100):
            classes = support_ids[t] // 20
            assert (classes == classes[:, :1]).all()
            assert len(set(classes[:, 0])) == 5
            assert (query_ids[t] // 20 == classes[:, :1]).all()
            both = np.concatenate([support_ids[t], query_ids[t]], axis=1)
            assert len(np.unique(both)) == 25


def test_the_classes_of_a_task_come_in_any_order(identified):
    """Else label 0 would always be of an early alphabet, which a head of its own for each label can learn."""
    _, result = identified
    for support_ids, _, tasks in result.values():
        classes = np.array(support_ids).reshape(len(tasks.key), 5, 2)[:, :, 0] // 20
        ranks = classes.argsort(axis=1).argsort(axis=1)
        assert (np.abs(ranks.mean(axis=0) - 2) < 4 * (2 / len(ranks)) ** 0.5).all(), (
            "each label has classes from anywhere"
        )
        assert len(np.unique(ranks, axis=0)) > 50, "of 120 orders, in 100 tasks"


def test_the_clusters_of_a_task_are_its_characters(identified):
    source, result = identified
    for split in SPLITS:
        classes = np.array(result[split][0]).reshape(100, 5, 2)[:, :, 0] // 20
        assert source.clusters(0, split, torch.arange(100)).tolist() == classes.tolist()


def test_all_drawings_are_used(omniglot):
    source = omniglot(shots=2, queries=2)
    seen = {n for numbers in _drawings(source, source.sample(0, "val", torch.arange(400)).support_x) for n in numbers}
    members = set(source.members["val"].tolist())
    assert seen == {20 * member + drawer for member in members for drawer in range(20)}  # missed with 400 exp(-10)


def test_rotations_are_per_class_and_where_they_were_asked_for(omniglot):
    def turns(rotations, split):
        source = omniglot(shots=2, queries=1, rotations=rotations)
        tasks = source.sample(0, split, torch.arange(100))
        plain = omniglot(shots=2, queries=1, rotations="none").sample(0, split, torch.arange(100))
        found = []
        for x, p in zip(tasks.support_x.view(-1, 2, 28, 28), plain.support_x.view(-1, 2, 28, 28), strict=True):
            matching = [q for q in range(4) if torch.equal(torch.rot90(p, q, (1, 2)), x)]
            assert matching, "a class is turned as a whole, by a multiple of 90 degrees"
            found.append(matching[0])
        if (rotations, split) == ("all", "test"):
            same = (torch.tensor(found).view(100, 5).diff(dim=1) == 0).all(dim=1).sum()
            assert same <= 4, "each class has a turn of its own: all five agree in one task of 256"
        return torch.bincount(torch.tensor(found), minlength=4)

    assert (turns("all", "train") > 90).all()
    assert (turns("all", "test") > 90).all()
    assert (turns("train", "train") > 90).all()
    assert turns("train", "val").tolist() == turns("train", "test").tolist() == [500, 0, 0, 0]
    assert turns("none", "train").tolist() == [500, 0, 0, 0]


def test_a_task_is_a_function_of_seed_split_and_number(omniglot):
    source = omniglot()
    whole = source.sample(0, "test", torch.arange(40))
    for one in (0, 39):
        alone = source.sample(0, "test", torch.tensor([one]))
        assert all(torch.equal(a[0], b[one]) for a, b in zip(alone, whole, strict=True))
    other = source.sample(1, "test", torch.arange(40))
    assert not torch.equal(other.support_x, whole.support_x)


def test_zero_steps_and_random_labels_score_at_chance(omniglot):
    """Controls. After no inner step, and when support labels say nothing, 5-way accuracy is 20 %."""
    source = omniglot(shots=5, queries=5)
    with seeds.forked(0, "init"):
        algorithm = maml(Conv4((1, 28, 28), 5, filters=8), inner_lr=0.4)
    tasks = source.sample(0, "test", torch.arange(100))
    curve = Engine().adaptation_curves(algorithm, algorithm.init(), tasks).mean(dim=0)
    assert abs(curve[0] - 0.2) < 0.03
    assert curve[-1] > 0.5, "with labels, even an untrained network learns something"
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.stack([y[torch.randperm(25, generator=generator)] for y in tasks.support_y])
    curve = Engine().adaptation_curves(algorithm, algorithm.init(), tasks._replace(support_y=shuffled)).mean(dim=0)
    assert abs(curve[-1] - 0.2) < 0.04


@pytest.mark.parametrize(
    "bad",
    [
        {"ways": 1}, {"eval_ways": 1}, {"shots": 0}, {"shots": 11}, {"shots": 1, "queries": 20}, {"queries": 0},
        {"rotations": "some"}, {"split_seed": -1}, {"eval_shots": 11}, {"split": "lakes"},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(bad):
    RealOmniglot(ways=100, shots=10)
    with pytest.raises(SettingError):
        RealOmniglot(**bad)


def test_its_facts_are_those_of_its_settings():
    assert RealOmniglot(ways=20, shots=5, queries=3, eval_shots=1, rotations="train").facts() == {
        "name": "omniglot", "ways": 20, "shots": 1, "queries": 3, "train_shots": 5, "train_queries": 3,
        "more": {"rotations": "train"},
    }  # fmt: skip


def test_tasks_of_each_split_are_those_of_a_source_with_their_ways(omniglot):
    assert source_of_other_ways(omniglot, 4, 3).outputs == 4
