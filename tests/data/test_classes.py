"""Sources of classes: splits, draws out of classes of differing sizes, rotations, and what is said of them."""

import logging

import numpy as np
import pytest
import torch

from metarun.data.classes import ClassSource
from metarun.data.packing import Packed
from metarun.errors import DataError, SettingError
from metarun.tasks import SPLITS

COUNTS = {f"class{n:02d}": 3 + 7 * n % 90 for n in range(25)}  # from 3 to 87


class Numbered(ClassSource):
    """Each example holds the number of its class and its own."""

    name = "numbered"
    reads = 0

    def load(self):
        self.reads += 1
        return {
            name: np.array([[place, n] for n in range(count)], np.float32)
            for place, (name, count) in enumerate(COUNTS.items())
        }


class Images(ClassSource):
    """Random images of two channels."""

    def load(self):
        generator = np.random.default_rng(0)
        return {f"{n}": generator.integers(0, 256, (4, 2, 5, 5), np.uint8) for n in range(12)}


def _prepared(cls=Numbered, **settings):
    source = cls(**settings)
    source.prepare(torch.device("cpu"))
    return source


def test_it_is_read_once_when_it_is_asked_for():
    source = Numbered()
    assert (source.reads, source.outputs) == (0, 5)
    assert source.input_shape == (2,)
    source.prepare(torch.device("cpu"))
    source.sample(0, "test", torch.arange(3))
    assert source.reads == 1


def test_the_splits_are_disjoint_shares_of_the_classes():
    source = Numbered(splits=[0.6, 0.2, 0.2])
    names = {split: source.classes(split) for split in SPLITS}
    assert [len(names[split]) for split in SPLITS] == [15, 5, 5]
    assert sorted(name for split in SPLITS for name in names[split]) == sorted(COUNTS)
    assert names == {split: Numbered(splits=[0.6, 0.2, 0.2], ways=3, shots=4).classes(split) for split in SPLITS}
    assert names != {split: Numbered(splits=[0.6, 0.2, 0.2], split_seed=1).classes(split) for split in SPLITS}
    assert [len(Numbered(splits=[0, 0, 1]).classes(split)) for split in SPLITS] == [0, 0, 25]


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ({"train": ["class01", "class02"], "test": ["class02"]}, "class 'class02': is in train and in test"),
        ({"train": ["class01"], "val": ["class99"]}, "class 'class99' of split val: has no examples"),
    ],
)
def test_splits_that_share_a_class_or_lack_one_are_refused(monkeypatch, names, line):
    monkeypatch.setattr(Numbered, "class_splits", lambda _: names)
    for read in (lambda source: source.split_sizes, lambda source: source.prepare(torch.device("cpu"))):
        with pytest.raises(DataError, match=line):
            read(Numbered())


@pytest.mark.parametrize("splits", [[0.5, 0.5], [0.5, 0.2, 0.2], [1.2, -0.1, -0.1], ["a", 0, 1], [True, 0, 0]])
def test_shares_that_are_none_are_refused(splits):
    with pytest.raises(SettingError, match=r"\(splits\): expected three shares"):
        Numbered(splits=splits)


def test_tasks_draw_all_examples_of_all_classes_of_a_split_and_no_other():
    source = _prepared(ways=3, shots=2, queries=1, splits=[0.4, 0.2, 0.4])
    for split in SPLITS:
        task = source.sample(0, split, torch.arange(2000))
        support, query = (x.view(2000, 3, -1, 2) for x in (task.support_x, task.query_x))
        both = torch.cat([support, query], dim=2)
        numbers = both[..., 0]
        assert (numbers == numbers[..., :1]).all(), "the examples of a class are of one class"
        assert (numbers[..., 0].sort(dim=1).values.diff(dim=1) > 0).all(), "the classes of a task differ"
        assert (both[..., 1].sort(dim=2).values.diff(dim=2) > 0).all(), "support and query share nothing"
        assert torch.equal(task.support_y[0], torch.tensor([0, 0, 1, 1, 2, 2]))
        seen = {tuple(map(int, pair)) for pair in both.flatten(0, 2).tolist()}
        places = {list(COUNTS).index(name) for name in source.classes(split)}
        expected = {(place, n) for place in places for n in range(list(COUNTS.values())[place])}
        assert seen <= expected
        assert len(seen) > 0.95 * len(expected)
        assert torch.equal(source.clusters(0, split, torch.arange(2000)).float(), numbers[..., 0])


def test_small_classes_are_left_out_with_a_line_and_the_splits_stay(caplog):
    caplog.set_level(logging.INFO, "metarun")
    source = _prepared(shots=2, queries=1, ways=2, eval_shots=10, eval_queries=10, splits=[0.4, 0.2, 0.4])
    small = [name for name in source.classes("test") if COUNTS[name] < 20]
    assert small
    assert source.split_sizes["test"] == len(source.classes("test")) - len(small)
    drawn = set(source.clusters(0, "test", torch.arange(500)).flatten().tolist())
    assert not drawn & {list(COUNTS).index(name) for name in small}
    assert rf"of test ({small[0]}) have fewer than 20 examples, shots + queries, and are left out" in caplog.text
    assert (
        f"numbered: examples of shape 2; train 10 classes, {sum(COUNTS[n] for n in source.classes('train'))} examples"
        in (caplog.text)
    )
    assert source.identity()["split_hash"] == Numbered(splits=[0.4, 0.2, 0.4]).identity()["split_hash"]


def test_a_split_that_is_small_for_want_of_examples_says_so():
    source = Numbered(shots=40, queries=40)
    assert source.split_sizes["train"] < 16
    assert (
        source.explain_size("train")
        == " that have 80 examples, shots + queries, of 16; lower data.shots or data.queries"
    )
    assert Numbered().explain_size("train") == ""


def test_its_identity_has_every_example_class_and_split():
    class Changed(Numbered):
        def load(self):
            examples = super().load()
            examples["class03"][1, 1] += 1
            return examples

    class Renamed(Numbered):
        def load(self):
            examples = super().load()
            return {("class24b" if name == "class24" else name): value for name, value in examples.items()}

    same, again = Numbered().identity(), Numbered(shots=2).identity()
    assert same == again
    assert Changed().identity()["data_digest"] != same["data_digest"]
    assert Changed().identity()["split_hash"] == same["split_hash"]
    assert Renamed().identity()["data_digest"] != same["data_digest"]
    assert Renamed().identity()["split_hash"] != same["split_hash"]


def test_images_are_turned_with_all_their_channels():
    source, plain = (_prepared(Images, ways=3, shots=2, rotations=r) for r in ("all", "none"))
    task, straight = (s.sample(0, "train", torch.arange(50)) for s in (source, plain))
    turns = []
    for x, p in zip(task.support_x.view(-1, 2, 2, 5, 5), straight.support_x.view(-1, 2, 2, 5, 5), strict=True):
        turns += [q for q in range(4) if torch.equal(torch.rot90(p, q, (2, 3)), x)]
    assert len(turns) == 150
    assert np.bincount(turns, minlength=4).min() > 20
    assert float(task.support_x.max()) <= 1


def test_rotations_of_what_is_no_square_image_are_refused():
    with pytest.raises(DataError, match=r"all \(data.rotations\): expected none"):
        _prepared(rotations="all", ways=2)


def test_the_classes_of_a_user_may_be_packed_already():
    by_class = Packed.of({"a": np.zeros((3, 2), np.float32), "b": np.ones((3, 2), np.float32)})
    assert Packed.of(by_class) is by_class
    assert by_class.starts() == [0, 3]
