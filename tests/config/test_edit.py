"""Changes of a saved config."""

import pytest

from metarun.config.compose import compose
from metarun.config.edit import with_changes
from metarun.errors import UsageError


@pytest.fixture(scope="module")
def plain():
    return compose(["algo.meta_lr=1"]).plain()


def test_values_and_choices_that_may_have_another_name(plain):
    config = with_changes(
        plain, ["device.threads=2", "device=cpu", "data.shots=3", "logger=tensorboard", "engine=loop"]
    )
    assert (config.device["threads"], config.device["name"], config.data["shots"]) == (2, "cpu", 3)
    assert config.engine["mode"] == "loop"
    assert config.logger["_target_"].endswith("TensorBoard")
    assert with_changes(plain, ["logger=null"]).logger is None
    assert with_changes(plain, []).plain() == plain, "and the saved one stays as it was"


def test_settings_in_braces_leave_the_others_as_they_are(plain):
    """As Hydra merges them."""
    plain = with_changes(plain, ["engine=loop", "device=cpu", "device.deterministic=false"]).plain()
    words = ["engine={autocast:null}", "device={threads:1}", "algo={inner_lr:0.02,meta_lr:3}", "data={shots:5}"]
    config = with_changes(plain, words)
    assert (config.engine["mode"], config.device["name"], config.device["deterministic"]) == ("loop", "cpu", False)
    assert (config.device["threads"], config.algo["inner_lr"], config.data["shots"]) == (1, 0.02, 5)
    assert config.algo["_target_"] == plain["algo"]["_target_"]
    with pytest.raises(UsageError, match="did you mean threads"):
        with_changes(plain, ["device={thread:1}"])


def test_a_place_may_begin_with_the_home_folder(plain, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    plain = plain | {"data": plain["data"] | {"root": "/elsewhere"}}
    assert with_changes(plain, ["data.root=~/letters"]).data["root"] == "/home/ann/letters"


def test_a_number_that_was_saved_as_an_integer_may_become_another(plain):
    assert with_changes(plain, ["algo.meta_lr=0.5"]).algo["meta_lr"] == 0.5


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("test_tasks=2.5", r"2\.5 \(test_tasks\): expected an integer"),
        ("test_tasks=1", "at least 2"),
        ("data.shotss=3", "did you mean shots"),
        ("nothing.here=3", "no such key"),
        ("data=tabular", "settings of its own, such as data.key=value"),
        ("+algo.x=1", "key of the saved config"),
        ("~algo.inner_lr", "key of the saved config"),
        ("seed=1,2", "key of the saved config"),
        ("hydra.run.dir=x", "key of the saved config"),
        ("device=gpu", "auto, cpu, cuda"),
        ("algo._target_=os.system", "METARUN_TRUST"),
    ],
)
def test_what_is_no_change_of_a_saved_config(plain, word, said):
    with pytest.raises(UsageError, match=said):
        with_changes(plain, [word])


def test_nothing_is_interpolated(plain):
    with pytest.raises(UsageError, match=r"'\$\{oc.env:HOME\}' \(seed\)"):
        with_changes(plain, ["seed=${oc.env:HOME}"])
    assert with_changes(plain, ["data.eval_queries=${seed}"]).data["eval_queries"] == "${seed}", (
        "left to the constructor"
    )


def test_a_setting_that_is_newer_than_the_saved_config_can_be_given(plain):
    old = {**plain, "data": {key: value for key, value in plain["data"].items() if key != "train_tasks"}}
    assert with_changes(old, ["data.train_tasks=3"]).data["train_tasks"] == 3
