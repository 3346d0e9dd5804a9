"""The values that a search chooses from, and the jobs that are checked before it."""

import pytest

from metarun.commands.search_space import cover, distribution_of
from metarun.config.folders import OWN
from metarun.config.overrides import parse

distributions = pytest.importorskip("optuna").distributions


def test_all_combinations_of_files_and_all_values_are_covered():
    words = ["algo=maml,fomaml", "data=choice(tabular,sequences)", "seed=1", "a=1,2,3", "b=4,5", "c=interval(0,9)"]
    jobs = cover(parse(words), OWN)
    files = {tuple(sorted(word for word in job if word[:4] in ("algo", "data"))) for job in jobs}
    assert len(files) == 4
    for choice in files:
        seen = {word for job in jobs if set(choice) <= set(job) for word in job}
        assert seen == {*choice, "seed=1", "a=1", "a=2", "a=3", "b=4", "b=5", "c=0", "c=9"}
    assert len(jobs) == 12
    many = [f"k{number}=0,1,2,3" for number in range(40)]
    assert len(cover(parse(many), OWN)) == 4, "and not every combination of values"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("rate=interval(0.1,1)", distributions.UniformDistribution(0.1, 1.0)),
        ("rate=interval(0,1)", distributions.UniformDistribution(0.0, 1.0)),  # not 0 or 1
        ("rate=tag(log,interval(1,10))", distributions.LogUniformDistribution(1.0, 10.0)),
        ("steps=interval(1,10)", distributions.IntUniformDistribution(1, 10)),
        ("other=int(interval(1,10))", distributions.IntUniformDistribution(1, 10)),
        ("other=interval(1,10)", distributions.UniformDistribution(1.0, 10.0)),
        ("steps=tag(log,interval(1,10))", distributions.IntLogUniformDistribution(1, 10)),
        ("steps=range(1,4)", distributions.IntUniformDistribution(1, 3)),
        ("steps=range(1,8,3)", distributions.IntUniformDistribution(1, 7, step=3)),
        ("steps=range(4,1,-1)", distributions.IntUniformDistribution(2, 4)),
        ("rate=range(0,0.3,0.1)", distributions.CategoricalDistribution(["0.0", "0.1", "0.2"])),
        ("rate=choice(0.1,true)", distributions.CategoricalDistribution(["0.1", "True"])),
        ("algo.eval_inner_steps=interval(1,5)", distributions.IntUniformDistribution(1, 5)),  # null: as in training
        ("++algo.eval_inner_steps=interval(1,5)", distributions.IntUniformDistribution(1, 5)),
        ("list=choice([1,2],[3])", distributions.CategoricalDistribution(["[1,2]", "[3]"])),
    ],
)
def test_words_become_distributions_of_the_type_of_their_key(word, expected):
    [override] = parse([word]).sweeps
    algo = {"_target_": "metarun.algos.meta_sgd.MetaSGD", "eval_inner_steps": None}
    assert distribution_of(override, OWN, {"rate": 0.5, "steps": 3, "list": [1], "algo": algo}) == expected
