"""Names and types of settings, against the YAML files that they replace."""

import pytest

from metarun.config.typecheck import check_types
from metarun.errors import UsageError

REFERENCE = {
    "count": 3,
    "rate": 0.1,
    "flag": False,
    "word": "auto",
    "sizes": [4, 4],
    "anything": None,
    "algo": {"_target_": "a.A", "rate": 0.1, "optimizer": {"_target_": "b.B", "lr": 1}},
}


@pytest.mark.parametrize(
    "values",
    [
        {"rate": 1},
        {"word": 4},
        {"sizes": []},
        {"anything": {"x": 1}},
        {"algo": {"rate": None}},
        {"algo": {"_target_": "a.A", "optimizer": {"_target_": "b.B", "momentum": 0.9}}},
        {"algo": {"_target_": "a.Other", "whatever": 1}},
    ],
)
def test_what_fits(values):
    check_types("", values, REFERENCE)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"count": 1.5}, r"1\.5 \(count\): expected an integer, such as count=3"),
        ({"count": True}, r"true \(count\): expected an integer"),
        ({"count": None}, r"null \(count\): expected an integer"),
        ({"rate": "x"}, r"'x' \(rate\): expected a number"),
        ({"flag": 1}, "expected true or false"),
        ({"flag": "no"}, "expected true or false"),
        ({"word": [1]}, "expected a word"),
        ({"word": None}, "expected a word"),
        ({"sizes": 4}, "expected a list"),
        ({"sizes": [4, "x"]}, "expected an integer"),
        ({"algo": "maml"}, r"'maml' \(algo\): expected settings of its own, such as algo.key=value"),
        ({"counts": 3}, "no such key; config has .* did you mean count"),
    ],
)
def test_what_does_not(values, said):
    with pytest.raises(UsageError, match=said):
        check_types("", values, REFERENCE)


def test_in_a_saved_config_an_integer_may_be_a_number_in_short():
    check_types("", {"count": 1.5}, REFERENCE, saved=True)
    with pytest.raises(UsageError):
        check_types("", {"flag": 1}, REFERENCE, saved=True)
