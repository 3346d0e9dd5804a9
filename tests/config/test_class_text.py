import sys
from inspect import getdoc

from metarun.algos.maml import MAML
from metarun.config.catalogue import Catalogue
from metarun.config.class_text import class_text
from metarun.config.targets import settings_of


def test_a_class_is_read_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "__init__.py").write_text("from .net import Net as Mine\nraise RuntimeError\n")
    (tmp_path / "ours" / "net.py").write_text(
        '"""Ours.\n\n    y = x\n\nSo.\n"""\nfrom typing import Literal\nfrom .base import Base\n\n\nKINDS = ["a", "b"]\n\n\n'
        'class Net(Base):\n    """A net.\n\n    Args:\n        kind: of it, a\n            or b.\n        x, y (int): places.\n\n'
        '    Returns:\n        z: no setting.\n    """\n\n'
        '    def __init__(self, kind: str, x: int, y: int, mode: Literal["on", "off"] = "on"):\n        one_of("kind", kind, KINDS)\n'
    )
    (tmp_path / "ours" / "base.py").write_text(
        'class Base:\n    """Base.\n\n    Args:\n        rate: of it.\n    """\n'
    )
    monkeypatch.chdir(tmp_path)
    assert class_text("ours.Mine") is None, "nobody trusts it"
    monkeypatch.setenv("METARUN_TRUST", "ours")
    text = class_text("ours.Mine")
    assert "ours" not in sys.modules
    assert (text.name, text.summary, text.module) == ("ours.net.Net", "A net.", "Ours.\n\n    y = x\n\nSo.")
    assert text.args == {"kind": "of it, a or b.", "x": "places.", "y": "places.", "rate": "of it."}
    assert text.owners["rate"] == "Base"
    assert text.words == {"kind": ["a", "b"], "mode": ["on", "off"]}
    assert text.types["x"] == "int"


def test_of_metaruns_own_classes_it_says_what_python_says():
    """The signatures and docstrings of the imported classes are the oracle."""
    catalogue = Catalogue()
    for group in ("algo", "data", "model", "engine", "device"):
        for choice in catalogue.choices(group):
            takes = settings_of(group, {"_target_": choice.target})
            text = class_text(choice.target)
            assert set(takes) <= set(text.args), choice.name
            assert set(takes) <= set(text.types), choice.name
    text = class_text("metarun.algos.maml.MAML")
    assert text.args["inner_optimizer"] in " ".join(getdoc(MAML).split())
    assert set(MAML.training_only) == set(text.training_only)
