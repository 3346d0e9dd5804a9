"""Texts as symbols: one-hot of the training classes' symbols, cut and padded, composed as Unicode has it."""

import logging

import pandas
import pytest
import torch
from helpers.oracles import sample_again
from helpers.tables import cities

from metarun.data.splitting import split_names
from metarun.data.texts import Texts
from metarun.errors import DataError, SettingError

HALVES = [0.5, 0.25, 0.25]
SETTINGS = {"text": "name", "target": "city", "splits": HALVES, "shots": 2, "queries": 3}


@pytest.fixture
def texts(tmp_path):
    def make(frame=None, **settings):
        (cities() if frame is None else frame).to_csv(tmp_path / "texts.csv", index=False)
        source = Texts(str(tmp_path / "texts.csv"), **{**SETTINGS, **settings})
        source.prepare(torch.device("cpu"))
        return source

    return make


def test_a_text_that_is_twice_in_a_class_is_told(texts, caplog):
    frame = cities()
    texts(frame)
    other = pandas.DataFrame({"name": [frame["name"][0]], "city": [frame["city"].iloc[-1]]})  # that is no copy
    texts(pandas.concat([frame, other]))
    assert "more than once" not in caplog.text
    city = frame["city"][0]
    copies = pandas.DataFrame({"name": ["e\u0301", "\u00e9", "é", frame["name"][0]], "city": [city] * 4})
    texts(pandas.concat([frame, copies]))
    assert f"of {city} is there more than once and 1 more (data.file)" in caplog.text


def _read(source, x):
    """The texts that one-hot inputs [..., L, V] spell; ? for the symbol that stands for others."""
    symbols = source.symbols + "?"
    assert ((x == 0) | (x == 1)).all()
    count = x.sum(-1)
    assert (count <= 1).all()
    assert (count.diff(dim=-1) <= 0).all(), "nothing behind the end"
    rows = x.flatten(0, -3)
    return ["".join(symbols[i] for i in row.argmax(-1)[row.sum(-1) > 0].tolist()) for row in rows]


def test_tasks_spell_texts_of_the_classes(texts):
    frame, source = cities(), texts()
    city = dict(zip(frame["name"], frame["city"], strict=True))
    names = split_names(frame["city"].unique(), HALVES, 0)
    assert len(source.symbols) == len(set("".join(frame["name"][frame["city"].isin(names["train"])])))
    for split in ("train", "test"):
        task = source.sample(0, split, torch.arange(10))
        assert task.support_x.shape == (10, 6, *source.input_shape)
        for t in range(10):
            spelled = _read(source, torch.cat([task.support_x[t], task.query_x[t]]))
            labels = task.support_y[t].tolist() + task.query_y[t].tolist()
            if split == "train":
                assert len(set(spelled)) == 15
                of = {city[name] for name in spelled}
                assert of <= set(names["train"])
                assert len({(city[name], label) for name, label in zip(spelled, labels, strict=True)}) == 3
            else:
                assert all(name[0] == "?" for name in spelled), "each city has a letter of its own"


def test_a_task_is_a_function_of_seed_split_and_number(texts):
    sample_again(texts())


def test_nothing_of_other_classes_shows_in_training(texts):
    frame = cities()
    away = ~frame["city"].isin(split_names(frame["city"].unique(), HALVES, 0)["train"])
    source, other = texts(), texts(frame.assign(name=frame["name"].where(~away, "ω" * 40)))
    assert other.preprocessing() == source.preprocessing()
    for a, b in zip(*(s.sample(0, "train", torch.arange(9)) for s in (source, other)), strict=True):
        assert torch.equal(a, b)


def test_texts_are_composed_and_cut_and_rare_symbols_share_a_place(texts, caplog):
    caplog.set_level(logging.INFO)
    frame = pandas.DataFrame(
        {"name": ["abb", "Zu\u0308rich", "aaaaaabbbbc"] * 20, "city": [f"c{n % 12}" for n in range(60)]}
    )
    source = texts(frame, length=6, symbols=2, ways=2, shots=1, queries=1)
    assert source.input_shape == (6, 3)
    assert set(_read(source, source.sample(0, "train", torch.arange(40)).support_x)) == {"abb", "??????", "aaaaaa"}
    assert "20 texts cut after 6 symbols" in caplog.text
    assert "2 symbols, 6 rarer ones share a place" in caplog.text
    assert texts(frame, ways=2, shots=1, queries=1).length == 11


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"file": None}, r"null \(file\)"),
        ({"text": None}, r"null \(text\): .*data.text=COLUMN"),
        ({"text": "city"}, r"'city' \(text\)"),
        ({"length": 0}, r"0 \(length\)"),
        ({"symbols": 0}, r"0 \(symbols\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(SettingError, match=said):
        Texts(**{"file": "nowhere.csv", **SETTINGS, **settings})


def test_too_few_classes_are_refused(texts):
    with pytest.raises(DataError, match=r"1 class .*expected classes for each split"):
        texts(cities().assign(city="x"), splits=[0, 0, 1])
