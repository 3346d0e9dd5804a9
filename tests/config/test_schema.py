"""The typed root: its ranges, and the fingerprint that makes two configs the same run."""

import pytest

from metarun.config.compose import compose
from metarun.config.edit import with_changes
from metarun.config.schema import check
from metarun.config.targets import trusted_class
from metarun.errors import UsageError


@pytest.fixture(scope="module")
def plain():
    return compose([]).plain()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", -1, r"-1 \(seed\): expected an integer of at least 0"),
        ("seed", True, r"true \(seed\)"),
        ("meta_steps", 0, r"0 \(meta_steps\): expected an integer of at least 1"),
        ("meta_batch", 0, "meta_batch"),
        ("val_every", 0, "val_every"),
        ("checkpoint_every", 0, "checkpoint_every"),
        ("log_every", 0, "log_every"),
        ("val_tasks", 1, "at least 2"),
        ("test_tasks", 1, "at least 2"),
        ("budget", 0, "above 0"),
        ("budget", 1.5, "at most 1"),
        ("budget", float("nan"), "finite"),
        ("budget", "x", "budget"),
        ("objective", "best", "'best' .*val, test"),
        ("logger", "wandb", r"'wandb' \(logger\): expected settings of its own"),
        ("algo", "maml", r"'maml' \(algo\): expected settings of its own"),
        ("engine", None, r"null \(engine\)"),
        ("data", {"_target_": "os.system"}, r"'os.system' \(data._target_\)"),
        ("seeds", 1, "'seeds' .*no such key.*did you mean seed"),
    ],
)
def test_what_is_out_of_range(plain, key, value, said):
    with pytest.raises(UsageError, match=said):
        check({**plain, key: value})


def test_what_is_missing_and_what_came_later(plain):
    for key in ("seed", "algo"):
        with pytest.raises(UsageError, match=rf"'{key}' \(config\): missing"):
            check({name: value for name, value in plain.items() if name != key})
    early = check({name: value for name, value in plain.items() if name not in ("budget", "logger")})
    assert (early.budget, early.logger) == (1.0, None)
    assert early.fingerprint == check(plain).fingerprint


def test_what_was_a_key_once_is_dropped(plain):
    config = check(plain)
    for more in ({"published": {"paper": "X", "mean": 1}}, {"published": "anything"}, {"suggested": {}, "needs": {}}):
        assert check({**plain, **more}) == config
        assert check({**plain, **more}).fingerprint == config.fingerprint


def test_names_of_classes_that_moved(plain):
    logger = {"_target_": "metarun.loggers.WandB"}
    old = {**plain, "device": {**plain["device"], "_target_": "metarun.runtime.Device"}, "logger": logger}
    config = check(old)
    assert config.device == plain["device"]
    assert trusted_class("x", config.logger["_target_"]).__name__ == "WandB"
    assert old["logger"] is logger, "the old one stays as it was"
    assert logger["_target_"] == "metarun.loggers.WandB"


def test_the_budget_is_a_share_of_meta_steps(plain):
    config = check({**plain, "meta_steps": 1000, "budget": 0.25})
    assert config.outer_steps == 250
    assert check({**plain, "meta_steps": 1, "budget": 0.1}).outer_steps == 1
    assert type(check({**plain, "budget": 1}).budget) is float


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("meta_steps=7", True), ("budget=0.5", True), ("val_every=3", True), ("checkpoint_every=3", True), ("log_every=3", True),
        ("device=cpu", True), ("device.tf32=true", True), ("engine=loop", True), ("engine.autocast=bfloat16", True),
        ("logger=wandb", True), ("data=omniglot data.root=/x data.download=false", None),
        ("seed=1", False), ("meta_batch=3", False), ("val_tasks=3", False), ("test_tasks=3", False), ("objective=test", False),
        ("algo.inner_lr=3", False), ("algo=fomaml", False), ("model.hidden=[3]", False), ("data.shots=3", False),
    ],
)  # fmt: skip
def test_the_fingerprint_is_that_of_what_may_not_change(plain, word, same):
    if same is None:
        assert compose(word.split()).fingerprint == compose(["data=omniglot"]).fingerprint
    else:
        changed = compose([word]) if word == "algo=fomaml" else with_changes(plain, [word])
        assert (changed.fingerprint == check(plain).fingerprint) is same


def test_the_fingerprint_of_the_default_run_stays_what_it_was():
    """Checkpoints hold it: a run that was begun with an earlier version must be able to go on."""
    assert compose([]).fingerprint.startswith("89922fe6b0778282")
