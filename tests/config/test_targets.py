"""What a config may build: classes that trusted packages define themselves, and nothing beside them."""

import sys
from functools import partial

import pytest

from metarun.config.targets import build, check_target, trusted, trusted_class
from metarun.errors import UsageError


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("os.system", "METARUN_TRUST"),
        ("builtins.exec", "METARUN_TRUST"),
        ("metarunner.algos.Mine", "METARUN_TRUST"),
        (None, "METARUN_TRUST"),
        ({"_target_": "x"}, "METARUN_TRUST"),
        ("metarun.algos.maml.Mamll", "Mamll"),
        ("metarun.nowhere.Maml", "No module"),
        ("metarun.files.write_atomically", "expected a class that"),
        ("metarun.files.Appended", "expected a class in metarun.algos, "),  # which empties a file when it is built
        ("metarun.config.targets.PathFinder", "define themselves"),
        ("metarun.engine.device.subprocess.Popen", "expected a class"),
        ("torch.optim.Adamm", "Adamm"),
        ("torch.optim.lr_scheduler.Counter", "define themselves"),
    ],
)
def test_what_is_not_to_be_built(target, said):
    with pytest.raises(UsageError, match=said):
        trusted_class("algo._target_", target)


def test_trust_comes_from_the_environment_alone(monkeypatch):
    assert trusted() == ["metarun", "torch.optim"]
    monkeypatch.setenv("METARUN_TRUST", " my_algo, my.data,")
    assert trusted() == ["metarun", "torch.optim", "my_algo", "my.data"]
    check_target("x", "my.data.Source")
    with pytest.raises(UsageError):
        check_target("x", "my.other.Source")
    monkeypatch.setenv("METARUN_TRUST", " ,")
    assert trusted() == ["metarun", "torch.optim"]


def test_trusting_one_package_trusts_nothing_beside_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METARUN_TRUST", "mine_of_a_test,os")
    mark = "open('owned', 'w').close()"
    (tmp_path / "other.py").write_text(mark)
    (tmp_path / "mine_of_a_test.py").write_text("from subprocess import Popen\nclass Mine:\n    pass\n")
    assert trusted_class("x", "mine_of_a_test.Mine").__name__ == "Mine"
    for target in ("other.Mine", "mine_of_a_test.Popen", "mine_of_a_test.Nothing", "os.system"):
        with pytest.raises(UsageError):
            trusted_class("x", target)
    assert not (tmp_path / "owned").exists()
    del sys.modules["mine_of_a_test"]
    (tmp_path / "mine_of_a_test.py").write_text("1 / 0")
    with pytest.raises(UsageError, match="division by zero"):
        trusted_class("x", "mine_of_a_test.Mine")
    assert "mine_of_a_test" not in sys.modules


def test_what_is_built():
    made = build("m", {"_target_": "metarun.models.MLP", "hidden": [4, 5]}, input_shape=(2,), outputs=3)
    assert [tuple(p.shape) for p in made.parameters()][::2] == [(4, 2), (5, 4), (3, 5)]
    adam = build("o", {"_target_": "torch.optim.Adam", "_partial_": True, "betas": [0.5, 0.9]}, lr=0.1)
    assert isinstance(adam, partial)
    assert adam.keywords == {"lr": 0.1, "betas": [0.5, 0.9]}
    nested = build(
        "algo",
        {
            "_target_": "metarun.algos.maml.MAML",
            "meta_optimizer": {"_target_": "torch.optim.SGD", "_partial_": True},
            "inner_lr": 0.1,
        },
        model=made,
    )
    assert type(nested.optimizer(nested.init().values())).__name__ == "SGD"


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"hidden": [4]}, "m._target_: missing"),
        (
            {"_target_": "metarun.models.MLP", "hiden": [4]},
            r"m.hiden: no such setting of MLP; it has hidden.* did you mean hidden",
        ),
        ({"_target_": "metarun.models.MLP", "hidden": [0]}, r"\(m.hidden\): expected"),
        ({"_target_": "metarun.models.MLP", "hidden": None}, r"null \(m.hidden\): expected a value"),
        (
            {"_target_": "metarun.models.MLP", "hidden": [{"_target_": "os.mkdir"}]},
            r"'os.mkdir' \(m.hidden\[0\]._target_\)",
        ),
        ({"_target_": "metarun.models.MLP", "hidden": {"a": {"_target_": "os.mkdir"}}}, r"m.hidden.a._target_"),
        ({"_target_": "metarun.models.MLP", "hidden": [10**6, 10**9]}, "MLP cannot be built: .*memory"),
    ],
)
def test_what_cannot_be_built_is_said_with_its_section(node, said):
    with pytest.raises(UsageError, match=said):
        build("m", node, input_shape=(2,), outputs=3)
