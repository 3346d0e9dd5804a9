"""What a run is made of: digests that see other data and nothing else, and the words for what has changed."""

from dataclasses import replace

import pytest
import torch

from metarun.config.compose import compose
from metarun.data.sinusoid import Sinusoid
from metarun.run.identity import describe_changes, digest_first_tasks
from metarun.storage.records import Identity
from metarun.tasks import SPLITS


class Own(Sinusoid):
    """A source of a user's, whose inputs are scaled by what it has read."""

    def __init__(self, scale=1.0):
        super().__init__(shots=5)
        self.scale, self.seeds = scale, set()
        self.prepare(torch.device("cpu"))

    def sample(self, seed, split, index):
        self.seeds.add(seed)
        task = super().sample(seed, split, index)
        return task._replace(query_x=task.query_x * self.scale)


def test_first_tasks_see_other_data_but_not_the_last_bits_of_another_machine():
    first = digest_first_tasks(Own(), SPLITS)
    assert len(set(first.values())) == 3, "splits have other tasks"
    assert digest_first_tasks(Own(1 + 2**-23), SPLITS) == first
    for scale in (1.01, -1.0):
        other = digest_first_tasks(Own(scale), SPLITS)
        assert all(other[split] != first[split] for split in SPLITS)
    assert digest_first_tasks(Own(), ("test",)) == {"test": first["test"]}


def test_what_metarun_generates_is_known_by_its_settings():
    source = Sinusoid()
    source.prepare(torch.device("cpu"))
    assert digest_first_tasks(source, SPLITS) == {}


A, B = "a" * 64, "b" * 64
PAIR = f"was {A[:12]}, is {B[:12]}"
CASES = {
    "nothing": ({"data_digest": A, "code": {"net": A}}, {"data_digest": A, "code": {"net": A}}, []),
    "unknown then": ({}, {"data_digest": A, "split_hash": A, "first_tasks": {"test": A}, "code": {"net": A}}, []),
    "unknown now": ({"data_digest": A, "first_tasks": {"train": A}, "code": {"net": A}}, {"first_tasks": {"test": B}}, []),
    "code": ({"code": {"net": A, "x": A}}, {"code": {"net": B, "x": A}}, [f"net {PAIR}"]),
    "data": ({"data_digest": A, "split_hash": A}, {"data_digest": B, "split_hash": B}, [f"the data (Sinusoid) {PAIR}"]),
    "split": ({"split_hash": A}, {"split_hash": B}, [f"the class split of the data (Sinusoid) {PAIR}"]),
    "tasks": ({"first_tasks": {"train": A, "test": A}}, {"first_tasks": {"test": B}}, [f"the test tasks of the data (Sinusoid) {PAIR}"]),
    "pixels": ({"pixels_digest": A}, {"pixels_digest": B}, []),  # other last bits of another Pillow
    "both": ({"code": {"net": A}, "data_digest": A}, {"code": {"net": B}, "data_digest": B}, [f"net {PAIR}", f"the data (Sinusoid) {PAIR}"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_has_changed_is_named_and_what_is_not_known_is_not(case):
    before, now, expected = CASES[case]
    config = compose([])
    assert describe_changes(Identity(**before), Identity(**now), config, config) == expected


def test_tasks_of_other_settings_are_not_compared_and_those_of_another_folder_are():
    before, now = (Identity(first_tasks={"test": digest}) for digest in (A, B))

    def config(**data):
        whole = compose([])
        return replace(whole, data=whole.data | data)

    assert describe_changes(before, now, config(root="/old"), config(root="/old", eval_shots=3)) == []
    (moved,) = describe_changes(before, now, config(root="/old"), config(root="/new"))
    assert moved == f"the test tasks of the data (data.root=/new, was /old) {PAIR}"
