"""Words of the command line: parsed once, checked, and combined."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from metarun.config.folders import OWN
from metarun.config.overrides import _with_home, combinations, parse, quote, spell_as_typed, spell_for_hydra
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


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("data.root=/tmp/jürgen", "/tmp/jürgen"),
        ("data.file=schöne tabelle.csv", "schöne tabelle.csv"),
        ("hydra.run.dir=a(1)/b#2", "a(1)/b#2"),
        ("hydra.run.dir=größe/${seed}", "größe/${seed}"),
        ("experiment=größe", "größe"),
        ("data.root=2024", "2024"),
        ("data.split=01", "01"),
        ("data.target=1E5", "1E5"),
        ("data.task=.5", ".5"),
    ],
)
def test_letters_that_hydras_grammar_has_not_are_taken_as_typed(word, value):
    (override,) = parse([word]).parsed
    (spelled,) = spell_for_hydra([word])
    assert override.value() == OverridesParser.create().parse_override(spelled).value() == value
    assert override.input_line == word
    assert spell_as_typed([spelled]) == [word]


@pytest.mark.parametrize(
    "text",
    ["", "a b", "\\", "a\\b", "a\\", "a\\\\", '"', '\\"', '\\\\"', 'a"b\\"c\\', "\\ü\\'", "a\n", '\\u00fc"}\\'],
)
def test_a_quoted_text_is_to_hydra_what_it_was(text):
    value = OverridesParser.create().parse_override(f"a={quote(text)}").value()
    assert str(getattr(value, "text", value)) == text


def test_several_places_may_begin_with_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home")
    words = ["data.root=~/a b,/c,~/d", "data.file='~/x,y'", "hydra.run.dir=~", "algo.x=~/a"]
    found = [_with_home(word) for word in words]
    assert found == ['data.root="/home/a b",/c,"/home/d"', "data.file='~/x,y'", 'hydra.run.dir="/home"', "algo.x=~/a"]
    (override,) = parse(words[:1]).parsed
    assert [str(getattr(path, "text", path)) for path in override.sweep_iterator()] == ["/home/a b", "/c", "/home/d"]


def test_values_with_such_letters_are_swept_over_as_typed():
    for values in (["/tmp/jürgen", "/tmp/b"], ["2023", "b"]):
        words = combinations(parse([f"data.root={','.join(values)}"]), OWN)
        assert list(words) == [[f"data.root={value}"] for value in values]


@pytest.mark.parametrize(
    "word",
    ["data.root='ö(1)'", "data.root=[a,b]", "data.root=choice(ö,b)", "seed=range(1,3)", "seed=7", "data.split=null"],
)
def test_quotes_lists_and_calls_stay_as_they_are(word):
    assert spell_for_hydra([word]) == [word]
