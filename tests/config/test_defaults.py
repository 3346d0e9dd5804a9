"""What differs from the defaults is what was typed, and nothing else."""

import pytest

from metarun.config.compose import compose
from metarun.config.defaults import differing_settings


@pytest.mark.parametrize(
    ("words", "choices", "expected"),
    [
        ([], {}, {}),
        (["algo=reptile", "data=tabular"], {"algo": "reptile", "data": "tabular", "model": "mlp"}, {}),
        (["seed=3", "algo.inner_lr=0.5"], {}, {"seed": (3, 0), "algo.inner_lr": (0.5, 0.01)}),
        (["model.hidden=[8]"], {"model": "mlp"}, {"model.hidden": ([8], [40, 40])}),
        (["experiment=finn2017/sinusoid_5shot", "seed=1"], {"experiment": "finn2017/sinusoid_5shot"}, {"seed": (1, 0)}),
    ],
)
def test_only_what_was_typed_differs(words, choices, expected):
    choices = {"algo": "maml", "data": "sinusoid", **choices}
    assert differing_settings(compose(words), choices) == expected


@pytest.mark.parametrize("choices", [{}, {"algo": "maml"}, {"algo": "mine", "data": "sinusoid"}])
def test_without_the_choices_there_is_nothing_to_compare_with(choices):
    assert differing_settings(compose([]), choices) is None
