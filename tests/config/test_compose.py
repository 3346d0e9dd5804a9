"""Composed configs: every choice, what task sources suggest and algorithms need, and one line for what is wrong."""

import sys

import pytest
import yaml
from helpers.runs import ROOT
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from metarun.config.compose import complete, compose
from metarun.config.folders import OWN, ConfigFolders
from metarun.config.overrides import spell_for_hydra
from metarun.config.targets import settings_of
from metarun.config.through_hydra import hydra_settings
from metarun.errors import UsageError

BAD = [
    (["algo=mamll"], ["'mamll' (algo)", "anil, averaging, baseline", "did you mean maml?"]),
    (
        ["data=omniglott"],
        ["'omniglott'", "omniglot, sequences, sinusoid, table, tabular, text, torchvision", "did you mean omniglot?"],
    ),
    (["model=conv5"], ["'conv5'", "conv4, lstm, mlp, resnet12"]),
    (["engine=fast"], ["'fast'", "loop, vmap"]),
    (["device=gpu"], ["'gpu'", "auto, cpu, cuda"]),
    (["experiment=none"], ["'none'", "finn2017/omniglot_5w1s"]),
    (["sweep=none"], ["'none'", "seeds"]),
    (["algo.inner_lrr=1"], ["algo.inner_lrr", "did you mean inner_lr?"]),
    (["meta_step=3"], ["meta_step", "did you mean meta_steps?"]),
    (["foo.bar=3"], ["foo.bar"]),
    (["suggested.inner=1"], ["suggested.inner", "inner_lr"]),
    (["seed=abc"], ["'abc'", "seed", "integer"]),
    (["seed=null"], ["null", "seed", "integer"]),
    (["seed=1.5"], ["1.5", "integer"]),
    (["meta_steps=1.5"], ["1.5", "meta_steps", "integer"]),
    (["test_tasks=true"], ["true", "integer"]),
    (["algo.inner_lr=abc"], ["'abc'", "algo.inner_lr", "a number"]),
    (["algo.inner_lr=[1,2]"], ["algo.inner_lr", "a number"]),
    (["algo.first_order=maybe"], ["'maybe'", "true or false"]),
    (["model.hidden=40"], ["40", "model.hidden", "a list"]),
    (["model.hidden=[a]"], ["integer"]),
    (["data.shotts=3"], ["did you mean shots?"]),
    (["data.ways=5"], ["data.ways", "data (Sinusoid) has train_tasks, shots, queries"]),
    (["algo=meta_lstm", "algo.inner_lr=0.1"], ["algo.inner_lr", "no such key"]),
    (["algo=maml_pp", "algo.first_order=true"], ["algo.first_order", "did you mean first_order_until?"]),
    (["engine=loop", "engine.chunk=3"], ["engine.chunk", "no such key"]),
    (["published={paper: x, mean: 1}"], ["published", "no such key"]),
    (["+foo=1"], ["'foo'", "no such key"]),
    (["+algo.foo=1"], ["algo.foo", "no such key"]),
    (["data=null"], ["'data=null'", "data=NAME"]),
    (["logger="], ["'logger='", "leave it out"]),
    (["device=null"], ["'device=null'", "device=NAME"]),
    (["model=nan"], ["'model=nan'", "model=NAME"]),
    (["algo.meta_optimizer=SGD"], ["'SGD' (algo.meta_optimizer)", "settings of its own"]),
    (["algo.meta_optimizer.weight_dekay=1"], ["algo.meta_optimizer (Adam) has", "did you mean weight_decay?"]),
    (["algo.meta_optimizer.weight_decay=much"], ["'much' (algo.meta_optimizer.weight_decay)", "a number"]),
    (["algo.meta_optimizer.x.y=1"], ["'algo.meta_optimizer.x'", "no such key"]),
    (["model.outputs=3"], ["'model.outputs'", "no such key"]),
    (["~seed"], ["'seed'", "missing"]),
    (["~algo"], ["algo"]),
    (["seed=0,1"], ["'seed=0,1'", "add -m"]),
    (["algo._target_=os.system"], ["'os.system' (algo._target_)", "METARUN_TRUST"]),
    (["algo.meta_optimizer._target_=subprocess.Popen"], ["'subprocess.Popen'", "METARUN_TRUST"]),
    (["hydra.launcher._target_=os.system"], ["hydra.launcher._target_", "METARUN_TRUST"]),
    (["hydra.launcher._target_=hydra_plugins.no"], ["hydra_plugins.no"]),
    (["+hydra.callbacks.x._target_=logging.FileHandler"], ["hydra.callbacks.x._target_", "METARUN_TRUST"]),
]


@pytest.mark.parametrize("row", BAD, ids=lambda row: " ".join(row[0]))
def test_what_is_wrong_is_said_in_a_line(row):
    words, said = row
    with pytest.raises(UsageError) as error:
        compose(words)
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in said), error.value


@pytest.mark.parametrize("word", ["logger=[]", "logger=null", "experiment=[]", "sweep=[]"])
def test_what_may_be_left_out_may_be_chosen_away(word):
    assert compose([word]).fingerprint == compose([]).fingerprint


@pytest.mark.parametrize("group", ["algo", "data", "device", "engine", "logger"])
def test_every_choice_composes(group):
    """Experiments are composed in tests/test_readme.py."""
    for name in OWN.options(group):
        assert not {"suggested", "needs", "experiment"} & compose([f"{group}={name}"]).plain().keys()


def test_only_task_sources_suggest_and_only_algorithms_need():
    for path in (ROOT / "conf").rglob("*.yaml"):
        root = yaml.safe_load(path.read_text()) or {}
        room = path.relative_to(ROOT / "conf").parts[0]
        assert "suggested" not in root or room in ("data", "config.yaml"), path
        assert "needs" not in root or room in ("algo", "config.yaml"), path


def test_what_is_suggested_and_needed_arrives():
    config = compose(["algo=lstm_generator", "data=omniglot"])
    assert (config.meta_batch, config.algo["generate"], config.algo["inner_lr"]) == (32, "head", 0.4)
    assert config.model["norm"] == "transductive"
    assert compose(["algo=meta_lstm", "data=omniglot"]).model["norm"] == "support"
    assert compose(["algo=oracle"]).data["tell"] is True
    assert compose(["suggested.inner_lr=7"]).algo["inner_lr"] == 7
    assert compose(["data=omniglot", "algo.inner_lr=7"]).algo["inner_lr"] == 7


@pytest.mark.parametrize(
    ("words", "target"),
    [(["data=omniglot"], "Conv4"), (["data=omniglot", "model=mlp"], "MLP"), (["model=mlp", "data=omniglot"], "MLP")],
)
def test_a_learner_chosen_by_hand_wins(words, target):
    assert compose(words).model["_target_"] == f"metarun.models.{target}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("_target_: os.mkdir\npath: owned\n", "'os.mkdir' (algo._target_)"),
        ("# @package hydra.callbacks\nx:\n  _target_: os.mkdir\n  path: owned\n", "hydra.callbacks.x._target_"),
        ("# @package hydra\nlauncher:\n  _target_: subprocess.Popen\n", "hydra.launcher._target_"),
        ("x: !!python/object/apply:os.mkdir [owned]\n", "(--config-dir): expected YAML files of plain settings"),
        ("x: " + "[" * 500 + "]" * 500, "(--config-dir)"),
        ("x: [\n", "(--config-dir)"),
        ("\x00", "(--config-dir)"),
    ],
)
def test_a_strangers_choices_run_nothing(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo/evil.yaml").write_text(content)
    with pytest.raises(UsageError) as error:
        compose(["algo=evil"], ConfigFolders(None, tmp_path))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "owned").exists()


def test_a_task_source_of_ones_own_has_to_choose_a_learner(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/flat.yaml").write_text("_target_: metarun.data.tabular.Tabular\nways: 2\n")
    for words in (["data=flat"], ["data=flat", "model=mlp"]):
        with pytest.raises(UsageError, match="begin its YAML file as conf"):
            compose(words, ConfigFolders(None, tmp_path))


@pytest.mark.parametrize(
    "words",
    [
        ("algo=meta_sgd", "seed=3", "hydra/launcher=basic", "hydra.run.dir=a"),
        ("++algo.meta_optimizer.weight_decay=0.1", "+data.eval_shots=3", "~algo.eval_inner_steps"),
        ("logger=[tensorboard,mlflow]", "logger.mlflow.experiment=x", "experiment=finn2017/omniglot_5w1s"),
        ("algo.inner_lr=0.3", "algo={inner_lr:0.1}", "seed=1", "hydra.sweep.dir=${hydra.job.override_dirname}"),
    ],
    ids=" ".join,
)
def test_values_set_in_a_copy_of_composed_files_are_what_hydra_composes(words, tmp_path, monkeypatch):
    """Of all words at once, Hydra's own settings included, such as which words there are and the name they make."""
    for seed, folder in ((5, ROOT), (6, tmp_path)):  # the second time the files are composed already
        monkeypatch.chdir(folder)
        some = [word if word.partition("=")[0] != "seed" else f"seed={seed}" for word in words]
        found = hydra_settings(tuple(some))._get_root()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            expected = hydra_compose("config", spell_for_hydra(some), return_hydra_config=True)
        assert OmegaConf.to_container(found) == OmegaConf.to_container(expected)
        assert OmegaConf.is_struct(found)


def test_hydras_settings_are_resolved_where_they_are_read():
    hydra = hydra_settings(("sweep=seeds", "hydra.sweep.dir=${hydra.runtime.choices.algo}/x"))
    assert hydra.sweep.dir == "maml/x"
    assert hydra.sweeper.params.seed == "0,1,2,3,4"


OWN_ALGORITHM = """
from dataclasses import dataclass
from metarun.algos.maml import MAML
@dataclass(eq=False, kw_only=True)
class Mine(MAML):
    extra: float = 1.0
"""


@pytest.fixture
def own_algorithm(tmp_path, monkeypatch):
    """Folders with algo=mine, a class of the user's whose file lists two settings, neither of them with a value."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METARUN_TRUST", "my_algorithms")
    monkeypatch.delitem(sys.modules, "my_algorithms", raising=False)
    (tmp_path / "my_algorithms.py").write_text(OWN_ALGORITHM)
    (tmp_path / "choices/algo").mkdir(parents=True)
    (tmp_path / "choices/algo/mine.yaml").write_text(
        "_target_: my_algorithms.Mine\ninner_lr: ???\nextra: ${oc.env:NOT_SET}\n"
    )
    return ConfigFolders(None, tmp_path / "choices")


GIVEN = ("algo=mine", "algo.inner_lr=0.1", "algo.extra=2")


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("seed=0", "extra", 2),
        ("algo.meta_clip=1", "meta_clip", 1),
        ("algo.meta_clip=null", "meta_clip", None),
        ("algo.inner_betas=[0.5,0.9]", "inner_betas", [0.5, 0.9]),
        ("+algo.first_order=true", "first_order", True),
        ("algo.meta_optimizer._target_=torch.optim.SGD", "meta_optimizer", {"_target_": "torch.optim.SGD"}),
        ("algo.meta_optimizer.weight_decay=1e-4", "meta_optimizer", {"weight_decay": 1e-4, "_target_": "torch.optim.adam.Adam"}),
    ],
)  # fmt: skip
def test_a_setting_that_a_class_takes_need_not_be_listed(own_algorithm, word, key, value):
    """Neither need one that is listed have a value, if it is given one."""
    found = compose([*GIVEN, word], own_algorithm).algo[key]
    assert found == (value | {"_partial_": True} if isinstance(value, dict) else value)
    completed = complete([*GIVEN, word], own_algorithm)
    assert complete(completed, own_algorithm) == completed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["algo=mine", "algo.extra=1"], r"^algo.inner_lr \(config\): has no value yet .*algo.inner_lr=VALUE"),
        (["algo=mine", "algo.inner_lr=1"], "^algo.extra .config.: .*'NOT_SET' not found.*algo.extra=VALUE"),
        ([*GIVEN, "algo.meta_clipp=1"], r"algo \(Mine\) has inner_lr, extra, .*did you mean meta_clip\?"),
        ([*GIVEN, "algo.meta_clip=much"], "'much' .algo.meta_clip.: expected a number or null"),
        ([*GIVEN, "algo.first_order=1"], "1 .algo.first_order.: expected true or false"),
        ([*GIVEN, "algo.inner_betas=0.5"], "0.5 .algo.inner_betas.: expected a list or null"),
        ([*GIVEN, "algo.meta_clip.x=1"], "'algo.meta_clip.x' .command line.: no such key"),
        ([*GIVEN, "algo.model=1"], "'algo.model' .command line.: no such key"),
        ([*GIVEN, "algo.meta_optimizer.momentum=1"], r"algo.meta_optimizer \(Adam\) has"),
    ],
)
def test_a_setting_that_no_class_takes_is_refused(own_algorithm, words, said):
    with pytest.raises(UsageError, match=said):
        compose(words, own_algorithm)


def test_a_misspelt_name_of_a_trusted_package_is_said(own_algorithm, monkeypatch):
    monkeypatch.setenv("METARUN_TRUST", "my_algoritms")
    with pytest.raises(UsageError, match="METARUN_TRUST names my_algoritms, which cannot be found here"):
        compose(list(GIVEN), own_algorithm)


def test_metaruns_own_choices_list_all_settings():
    """So that a wrong name is refused without an import of the class."""
    for group in ("algo", "data", "model", "device", "logger"):  # an engine lists what acts in it
        for name in OWN.options(group):
            node = getattr(compose([f"{group}={name}"]), group)
            listed = set(node) - {"train_tasks"}
            assert set(settings_of(group, node) or {}) <= listed, (group, name)


@pytest.mark.parametrize("group", ["logger", "experiment", "sweep"])
def test_null_chooses_nothing(group):
    assert compose([f"{group}=null"]) == compose([])
