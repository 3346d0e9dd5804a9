"""The table of key policies: complete, and what has to follow from it."""

import copy

import pytest
import yaml
from helpers.runs import ROOT

from metarun.config.compose import compose
from metarun.config.edit import with_changes
from metarun.config.keys import KEYS, NEWER, differing_keys, key_of, keys_that, leaves, policy
from metarun.config.schema import check


def test_every_root_key_has_a_row():
    root = yaml.safe_load((ROOT / "conf/config.yaml").read_text())
    chosen = [name for entry in root.pop("defaults") if isinstance(entry, dict) for name in entry]
    missing = {*root, *chosen, *compose([]).plain()} - KEYS.keys()
    assert not missing, "add it to metarun/config/keys.py: what may be done with it?"


def test_every_row_is_a_key_that_there_is():
    plain = compose(["data=omniglot", "engine=compile"]).plain()
    plain["data"] |= compose(["data=table"]).data
    words = {"experiment", "sweep", "hydra", "suggested", "needs", "zip"}
    keys = {key for key, _ in leaves(plain)} | {key.partition(".")[0] for key, _ in leaves(plain)}
    assert KEYS.keys() - words <= keys | {*NEWER}


@pytest.mark.parametrize(
    ("question", "keys"),
    [
        (
            "resume",
            "meta_steps budget val_every checkpoint_every log_every data.root data.file data.download device engine logger",
        ),
        ("reproduce", "data.root data.file data.download device"),
        ("length", "meta_steps budget"),
        ("by_name", "device engine logger"),
    ],
)
def test_what_the_readme_and_the_help_promise(question, keys):
    assert keys_that(question) == keys.split()


@pytest.mark.parametrize(
    ("key", "question", "answer"),
    [
        ("device.threads", "resume", True),
        ("device.tf32", "identity", True),
        ("engine.chunk", "identity", False),
        ("engine.autocast", "evaluate", False),
        ("data.rooty", "resume", False),
        ("data.shots", "evaluate", True),
        ("algo.meta_optimizer.betas", "resume", False),
        ("meta_steps", "published", False),
        ("budget", "published", True),
        ("hydra.run.dir", "published", True),
        ("published.mean", "digits", False),
        ("never.heard.of", "resume", False),
    ],
)
def test_a_key_has_the_policy_of_the_longest_row(key, question, answer):
    assert getattr(policy(key), question) is answer


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("seed=1", "seed"),
        ("+algo.x=a=b", "algo.x"),
        ("~algo", "algo"),
        ("+algo@x=maml", "algo"),
        ("hydra/launcher=ray", "hydra.launcher"),
    ],
)
def test_the_key_of_a_word(word, key):
    assert key_of(word) == key


def test_keys_in_which_two_configs_differ():
    old = {"a": 1, "b": {"c": [1], "d": None, "e": {}}, "f": True}
    assert differing_keys(old, {"a": 1.0, "b": {"c": [1], "e": {"g": 1}}, "f": True, "h": None}) == [
        "a",
        "b.d",
        "b.e",
        "b.e.g",
        "h",
    ]
    assert differing_keys(old, old) == []
    assert dict(leaves(old)) == {"a": 1, "b.c": [1], "b.d": None, "b.e": {}, "f": True}


OTHERS = {  # of keys that earlier runs lack, another value, by the words of a run that has them
    "algo=maml": {"data.eval_ways": 7, "data.train_tasks": 7, "data.split": "lake", "algo.head": "shared"},
    "algo=lstm_generator": {"algo.write": "outer", "algo.fast_layers": True},
}


def test_keys_that_earlier_runs_lack_are_known():
    assert {key for others in OTHERS.values() for key in others} == NEWER.keys()


@pytest.mark.parametrize("word", OTHERS)
def test_a_value_that_means_what_earlier_runs_did_without_the_key_is_no_other_setting(word):
    meant = [f"{key}={NEWER[key]}" for key in OTHERS[word] if key.startswith("algo.")]
    plain = compose(["data=omniglot", word, *meant]).plain()
    old = copy.deepcopy(plain)
    for key, other in OTHERS[word].items():
        section, _, name = key.partition(".")
        del old[section][name]
        new = {**plain, section: plain[section] | {name: other}}
        assert differing_keys(plain, new) == [key]
        assert check(new).fingerprint != check(plain).fingerprint
    assert differing_keys(old, plain) == []
    assert check(old).fingerprint == check(plain).fingerprint
    assert with_changes(old, [*meant, "data.shots=3"]).algo == plain["algo"]
