import json

import pytest

from metarun.config.catalogue import Catalogue
from metarun.errors import UsageError
from metarun.results.explained import Explained, explain
from metarun.results.explained_text import as_text

CATALOGUE = Catalogue()


def test_every_key_of_conf_has_an_answer_that_is_more_than_its_default():
    for key in CATALOGUE.all_settings():
        found = explain(key, CATALOGUE)
        assert found.means or found.choices or any(where.means for where in found.files), key
        for where in found.files:
            assert where.means or found.readers or where.default is None or key.startswith("suggested."), (key, where)


def test_every_choice_says_what_it_is():
    for group in CATALOGUE.groups():
        for choice in CATALOGUE.choices(group):
            found = explain(f"{group}={choice.name}", CATALOGUE)
            assert found.means, found.name
            if group == "algo":
                assert " 20" in found.text + found.means, "a year of a paper"
                assert all(setting.means for setting in found.settings), found.name


def test_a_key_says_where_it_is_what_it_may_be_and_who_reads_it():
    found = explain("inner_lr", CATALOGUE)
    assert found.name == "algo.inner_lr"
    assert found.type == "a number"
    assert (found.suggested["data=omniglot"], found.suggested["config"]) == ("0.4", "0.01")
    assert {where.choice: where.default for where in found.files}["algo=reptile"] == "1e-3"
    assert "GradientBased" in {reader.name for reader in found.readers}
    assert (found.resume, found.evaluate) == (False, True)
    assert explain("algo.first_order", CATALOGUE).evaluate is False
    assert explain("device.threads", CATALOGUE).resume is True
    assert explain("data.teacher", CATALOGUE).words == ["linear", "mlp", "tree", "noise"]
    assert explain("objective", CATALOGUE).words == ["val", "test"]
    assert Explained.from_json(json.dumps(found.plain())) == found


def test_a_key_that_choices_take_differently_begins_with_what_they_agree_on():
    assert explain("data.ways", CATALOGUE).means == "classes of a task"
    found = explain("algo.penalty", CATALOGUE)
    assert (found.means, {where.choice for where in found.files}) == ("", {"algo=baseline", "algo=closed_form"})
    assert as_text(found).startswith("algo.penalty  not the same with each choice:\n")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("algo.inner_lrr", ["did you mean algo.inner_lr?", "algo has"]),
        ("algo=mamll", ["'mamll' (algo)", "did you mean maml?"]),
        ("mamll", ["did you mean maml?"]),
        ("auto.x", ["no such key"]),
        ("hidden", ["several: algo.hidden, model.hidden"]),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest(name, says):
    with pytest.raises(UsageError) as error:
        explain(name, CATALOGUE)
    assert all(part in str(error.value) for part in says), error.value
