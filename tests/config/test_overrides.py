"""Words of the command line: parsed once, checked, and combined."""

import pytest

from metarun.config.folders import OWN
from metarun.config.overrides import combinations, parse
from metarun.errors import UsageError


def test_words_are_parsed_once():
    overrides = parse(
        ["algo=maml,fomaml", "seed=1", "+algo.x=2", "experiment=finn2017/omniglot_5w1s", "hydra/launcher=basic"]
    )
    assert overrides.choices == ["algo=maml,fomaml", "experiment=finn2017/omniglot_5w1s"]
    assert [override.input_line for override in overrides.sweeps] == ["algo=maml,fomaml"]
    assert overrides.fixed == [override.input_line for override in overrides.parsed][1:]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=1", "seed=2"], ["'seed'", "given twice, as seed=1 and seed=2"]),
        (["algo=maml", "algo=fomaml"], ["'algo'", "given twice"]),
        (["data.shots=1", "+data.shots=2"], ["data.shots", "given twice"]),
        (["seed=[1"], ["'seed=[1'", "key=value"]),
        (["=5"], ["'=5'", "key=value"]),
        (["seed"], ["'seed'", "key=value"]),
        (["hydra.run.dir=a=b"], ["hydra.run.dir=a=b", "quotes"]),
    ],
)
def test_words_that_are_none(words, said):
    with pytest.raises(UsageError) as error:
        parse(words)
    assert all(part in str(error.value) for part in said), error.value


def test_combinations_are_those_of_hydras_basic_sweeper():
    overrides = parse(["algo=glob(*omaml)", "seed=range(0,2)", "meta_steps=3"])
    assert list(combinations(overrides, OWN)) == [
        [f"algo={algo}", f"seed={seed}", "meta_steps=3"] for algo in ("fomaml",) for seed in (0, 1)
    ]
    assert list(combinations(parse([]), OWN)) == [[]]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "seed=range(0)",
            "'seed=range(0)' (command line): gives no value to sweep over; expected values, as in seed=0,1,2",
        ),
        ("seed=glob(1*)", "expected values, as in seed=0,1,2"),
        ("algo=glob(x*)", "expected one of anil, averaging, baseline"),
    ],
)
def test_a_sweep_over_nothing_is_refused(word, said):
    with pytest.raises(UsageError) as error:
        list(combinations(parse([word]), OWN))
    assert said in str(error.value)
