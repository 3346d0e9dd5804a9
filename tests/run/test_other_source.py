"""What another task source is given of a run that is tested on it, and what its learner does not fit."""

import numpy as np
import pytest
import torch
from PIL import Image

from metarun.config.compose import compose
from metarun.config.edit import with_source
from metarun.config.folders import OWN, ConfigFolders
from metarun.data.classes import ClassSource
from metarun.data.tabular import Tabular
from metarun.errors import SettingError, UsageError
from metarun.run.build import build_experiment
from metarun.run.other_source import build_other_source, has_other_data, warn_of_known_classes
from metarun.storage.records import Environment
from tests.helpers.tables import cities


class Images(Tabular):
    """Noise of the size and the channels that are asked for, in tasks of at most three shots."""

    def __init__(self, size: int | None = None, channels: int | None = None, ways: int = 2, shots: int = 3):
        if shots > 3:
            raise SettingError(shots, "shots", "at most 3")
        size, channels = size or 84, channels or 3
        super().__init__(channels * size**2, ways, shots)
        self.input_shape = (channels, size, size)


@pytest.fixture
def choices(tmp_path, monkeypatch):
    """A choice of one's own."""
    monkeypatch.setenv("METARUN_TRUST", __name__)
    (tmp_path / "data").mkdir()
    text = (
        f"# @package _global_\ndefaults: [{{/model: conv4}}, _self_]\ndata: {{_target_: {__name__}.Images, shots: 3}}"
    )
    (tmp_path / "data/noise.yaml").write_text(text)
    return ConfigFolders(extra=tmp_path)


def _build(trained, *words, folders=OWN):
    """The config of a test and its source, of a run of these words."""
    trained = compose(trained.split())
    name = words[0].removeprefix("data=")
    config = with_source(trained.plain(), words, {"algo": "protonet"}, folders)
    typed = {word.partition("=")[0] for word in words}
    return build_other_source(config, trained, build_experiment(trained), name, typed)


def test_tasks_have_the_form_of_the_runs_own_test():
    run = "algo=protonet data=tabular data.ways=6 data.eval_ways=3 data.shots=4 data.eval_shots=2 data.queries=7"
    config, source = _build(run, "data=tabular", "data.queries=5", "data.teacher=tree")
    assert source.ways == (3, 3)
    assert source.sizes == ((2, 5), (2, 5))
    assert {key: config.data[key] for key in ("ways", "eval_ways", "teacher")} == {
        "ways": 3,
        "eval_ways": None,
        "teacher": "tree",
    }


def test_a_number_that_follows_from_another_still_does():
    config, source = _build("data=omniglot", "data=omniglot", "data.shots=3")
    assert config.data["queries"] is None
    assert source.sizes == ((3, 3), (3, 3))


def test_images_have_the_size_of_the_runs_and_what_is_refused_has_its_default(choices, caplog):
    config, source = _build("data=omniglot data.shots=4", "data=noise", folders=choices)
    assert (source.input_shape, source.ways, source.sizes) == ((1, 28, 28), (5, 5), ((3, 15), (3, 15)))
    assert (config.data["size"], config.data["channels"], config.data["shots"]) == (28, 1, 3)
    assert "data.shots=4 of the run: not taken by data=noise" in caplog.text
    with pytest.raises(UsageError, match=r"\(1, 84, 84\) \(shape of an example, data=noise\): expected \(1, 28, 28\)"):
        _build("data=omniglot", "data=noise", "data.size=84", folders=choices)


def test_images_of_the_same_source_are_inverted_as_in_the_run(tmp_path):
    for n in range(10):
        (tmp_path / f"{n}").mkdir()
        for k in range(2):
            Image.new("L", (8, 8), 10 * n + k).save(tmp_path / f"{n}/{k}.png")
    run = f"data=images data.root={tmp_path} data.invert=true data.ways=2 data.queries=1 model=mlp"
    for words, inverted in (([], True), (["data.invert=false"], False)):
        config, source = _build(run, "data=images", f"data.root={tmp_path}", *words)
        assert config.data["invert"] is inverted
        assert source.invert is inverted


def test_of_images_with_splits_of_their_own_the_split_test_is_taken(tmp_path, caplog):
    for split, names in {"train": "abc", "val": "de", "test": "fg"}.items():
        for n, name in enumerate(names):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(2):
                Image.new("L", (28, 28), 20 * ord(name) % 200 + 10 * n + k).save(tmp_path / split / name / f"{k}.png")
    run = "data=omniglot data.ways=2 data.queries=1"
    config, source = _build(run, "data=images", f"data.root={tmp_path}")
    source.prepare(torch.device("cpu"))
    assert source.split_sizes == {"train": 3, "val": 2, "test": 2}
    assert config.data["splits"] != [0, 0, 1]
    assert "no effect" not in caplog.text


@pytest.mark.parametrize(
    ("run", "words", "said"),
    [
        ("data=tabular", ["data=sinusoid"], r"mse \(metric, data=sinusoid\): expected accuracy, as in training"),
        (
            "data=tabular",
            ["data=tabular", "data.features=4"],
            r"\(4,\) \(shape of an example, data=tabular\): expected \(10,\)",
        ),
        ("data=tabular", ["data=omniglott"], r"'omniglott' \(data\): expected one of .*did you mean omniglot"),
        ("data=tabular", ["data=omniglot", "data.way=3"], r"'data.way' .*did you mean ways"),
        ("data=tabular", ["data=tabular", "data.ways=1"], r"1 \(data.ways\): expected an integer of at least 2"),
        ("data=tabular", ["data=images"], r"null \(data.root\)"),
    ],
)
def test_what_does_not_fit_is_refused(run, words, said):
    with pytest.raises(UsageError, match=said):
        _build(run, *words)


@pytest.mark.parametrize(
    ("source", "change", "said"),
    [
        (
            "data=table data.target=wage data.task=city data.features=[age,job]",
            {"baker": "cook"},
            "'job=cook'.*'job=baker'",
        ),
        (
            "data=text data.text=name data.target=city data.ways=2",
            {"a": "\N{BULLET}"},
            r"\(input \d+, data=text\): expected '",
        ),
    ],
)
def test_inputs_that_mean_something_else_are_refused(source, change, said, tmp_path, monkeypatch):
    """Of as many features and symbols, so that shapes do not tell."""
    monkeypatch.chdir(tmp_path)
    cities(0).to_csv("trained.csv")
    cities(0).assign(wage=1.0 * cities(0).wage + 5).to_csv("alike.csv")
    cities(0).replace({"job": change, "name": change}, regex=True).to_csv("other.csv")
    form = f"{source} data.shots=2 data.queries=2 data.splits=[0.5,0.2,0.3]".split()
    run = " ".join([*form, "data.file=trained.csv"])
    assert _build(run, *form, "data.file=alike.csv")
    with pytest.raises(UsageError, match=said):
        _build(run, *form, "data.file=other.csv")


class Named(ClassSource):
    """Classes of these names."""

    def __init__(self, names, **settings):
        super().__init__(**settings)
        self.names = names

    def load(self):
        return {name: np.zeros((2, 1), np.float32) for name in self.names}


def test_a_test_of_classes_that_were_trained_on_is_warned_of(caplog):
    """A larger copy of the data is other data, all of whose classes are for the test."""
    trained = Named("abcdefghij", splits=[0.5, 0.2, 0.3])
    warn_of_known_classes(Named("klm", splits=[0, 0, 1]), trained, "named")
    warn_of_known_classes(Named(trained.classes("test"), splits=[0, 0, 1]), trained, "named")
    warn_of_known_classes(Tabular(), trained, "tabular")
    assert not caplog.text
    warn_of_known_classes(Named("abcdefghijklm", splits=[0, 0, 1]), trained, "named")
    assert "data=named: 7 of its 13 test classes, such as" in caplog.text


def test_an_algorithm_that_is_told_the_truth_is_told_it_again():
    """The run's own choice of algorithm decides what the source is asked for."""
    trained = compose(["algo=oracle"])
    config = with_source(trained.plain(), ["data=sinusoid"], {"algo": "oracle"})
    _, source = build_other_source(config, trained, build_experiment(trained), "sinusoid", set())
    assert source.input_shape == (3,)


@pytest.mark.parametrize(
    ("digest", "now", "same_class", "expected"),
    [("a", "a", True, False), ("a", "b", True, True), (None, "b", True, False), ("a", "a", False, True)],
)
def test_other_data_are_another_class_or_other_files(digest, now, same_class, expected, monkeypatch):
    trained, other = compose(["data=tabular"]), compose(["data=tabular" if same_class else "data=sequences"])
    monkeypatch.setattr(Tabular, "identity", lambda self: {"split_hash": "", "data_digest": now})
    assert has_other_data(other, Tabular(), trained, Environment(data_digest=digest)) == expected
