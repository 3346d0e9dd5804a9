from metarun.config.catalogue import Catalogue
from metarun.config.folders import ConfigFolders, conf_dir
from metarun.config.keys import NEWER, leaves
from metarun.config.through_hydra import reference_config


def test_a_choice_has_the_keys_that_hydra_composes():
    """Hydra is the oracle: defaults lists, packages and relative names are followed by text here."""
    catalogue = Catalogue()
    for word in ("algo=fomaml", "algo=oracle", "algo=reptile", "data=omniglot"):
        group, _, name = word.partition("=")
        there = catalogue.choice(group, name).settings
        mine = {key for key, found in there.items() if found.value is not None and key.startswith(f"{group}.")}
        composed = {f"{group}.{key}" for key, _ in leaves(reference_config((word,))[group])}
        assert mine - set(NEWER) == composed - set(NEWER), name


def test_the_usual_choices_are_those_of_hydra():
    catalogue = Catalogue()
    composed = reference_config(())
    for group in ("algo", "data", "model", "engine", "device"):
        choice = catalogue.choice(group, catalogue.default_of(group))
        assert choice.target == composed[group]["_target_"]
    assert catalogue.default_of("logger") is None


def test_choices_of_the_users_own_complete_those_of_metarun(tmp_path):
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "mine.yaml").write_text(
        "# Mine. It is new.\ndefaults: [maml, _self_]\ninner_steps: 7\nspeed: 2 # in rounds\n"
    )
    (tmp_path / "algo" / "broken.yaml").write_text("a: [1\n")
    catalogue = Catalogue(ConfigFolders(extra=tmp_path))
    mine = catalogue.choice("algo", "mine")
    assert mine.summary == "Mine."
    steps = mine.settings["algo.inner_steps"]
    assert (steps.value, steps.comment) == ("7", "inner steps in training")
    assert mine.settings["algo.speed"].comment == "in rounds"
    assert mine.settings["algo.first_order"].file == conf_dir() / "algo" / "maml.yaml"
    assert catalogue.choice("algo", "broken") is None
