"""Columns become numbers as scikit-learn's encoders have them, by the statistics of training rows alone."""

import json

import numpy as np
import pandas
import pytest
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from metarun.data.columns import MOST_VALUES, Columns
from metarun.errors import DataError, UsageError

RNG = np.random.default_rng(0)
TRAINING = pandas.DataFrame(
    {
        "age": RNG.normal(40, 12, 60).round(1),
        "sex": RNG.choice(["F", "M", "X"], 60),
        "income": np.where(RNG.random(60) < 0.2, np.nan, RNG.lognormal(10, 1, 60)),
        "street": RNG.choice([f"street {n}" for n in range(40)], 60, p=np.arange(1, 41) / 820),
        "country": "NL",
    }
)
NEW = pandas.DataFrame(
    {
        "age": ["1e3", "", "40"], "sex": ["M", "D", ""], "income": [np.nan, 0.0, 1.0],
        "street": ["street 39", "never seen", None], "country": ["DE", "NL", "FR"],
    },
    index=[1, 2, 3],
)  # fmt: skip


def _by_feature(columns, frame):
    x = columns.transform(frame)
    assert x.dtype == np.float32
    assert x.shape == (len(frame), len(columns.features))
    return dict(zip(columns.features, x.T, strict=True))


def test_numbers_are_scaled_and_gaps_filled_as_scikit_learn_does():
    columns = Columns.fit(TRAINING)
    for name in ("age", "income"):
        scaler = StandardScaler().fit(TRAINING[[name]])  # which passes over gaps
        for frame in (TRAINING, NEW):
            scaled = scaler.transform(pandas.to_numeric(frame[name]).to_frame())[:, 0]
            expected = np.nan_to_num(scaled)  # a gap is the mean, which is 0
            np.testing.assert_allclose(_by_feature(columns, frame)[name], expected, rtol=1e-6, atol=1e-6)
    assert np.array_equal(_by_feature(columns, NEW)["income is missing"], [1, 0, 0])
    assert "age is missing" not in columns.features, (
        "training has no gaps there, so a learner would not know what it means"
    )


def test_categories_are_one_hot_as_scikit_learn_does():
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(TRAINING[["sex"]])
    columns = Columns.fit(TRAINING[["sex"]])
    assert columns.features == ["sex=F", "sex=M", "sex=X"]
    for frame in (TRAINING, NEW):
        assert np.array_equal(columns.transform(frame), encoder.transform(frame[["sex"]]))


def test_truth_is_spelled_as_in_training():
    """pandas.read_csv() makes True of true, which training has read as a word."""
    for spelled, other in (("true", "false"), ("TRUE", "FALSE"), ("True", "False")):
        columns = Columns.fit(pandas.DataFrame({"smokes": [spelled, other]}))
        given = columns.transform(pandas.DataFrame({"smokes": [True, False, True]}))
        assert given[:, columns.features.index(f"smokes={spelled}")].tolist() == [1, 0, 1]
        assert given[:, columns.features.index(f"smokes={other}")].tolist() == [0, 1, 0]
        words = columns.transform(pandas.DataFrame({"smokes": ["True", "FALSE", "true"]}))
        np.testing.assert_array_equal(words, given, "as spreadsheets write it")


def test_numbers_without_a_variance_are_the_same():
    columns = Columns.fit(pandas.DataFrame({"tiny": ["1e-320", "2e-320", "1e-320"], "age": ["1", "2", "3"]}))
    assert columns.features == ["age"]


def test_many_values_count_by_how_often_training_has_them():
    assert TRAINING["street"].nunique() > MOST_VALUES
    columns = Columns.fit(TRAINING)
    counts = TRAINING["street"].value_counts()
    logs = np.log(TRAINING["street"].map(counts))
    found = _by_feature(columns, TRAINING)["street"]
    np.testing.assert_allclose(found, (logs - logs.mean()) / logs.std(ddof=0), rtol=1e-5, atol=1e-6)
    known, unseen, gap = _by_feature(columns, NEW)["street"]
    once = found[TRAINING["street"].map(counts) == 1]
    assert (once == unseen).all()
    assert known > unseen
    assert gap == 0


def test_what_is_the_same_in_all_training_rows_is_left_out():
    assert not [name for name in Columns.fit(TRAINING).features if "country" in name]
    frame = pandas.DataFrame({"a": ["5", "5", ""], "b": ["", "", ""], "c": ["x", "", "x"], "d": [0.1] * 3})
    assert Columns.fit(frame).features == ["a is missing", "c is missing"]
    with pytest.raises(DataError, match=r"b, d \(inputs\): the same in all training rows"):
        Columns.fit(frame[["b", "d"]])


def test_many_words_that_occur_as_often_are_left_out_and_said_so():
    """Their frequencies are the same, and they themselves are not: nobody should look for a constant there."""
    frame = pandas.DataFrame({"id": [f"p{row}" for row in range(40)], "a": [0.0, 1.0] * 20, "b": 3})
    columns = Columns.fit(frame)
    assert (columns.features, columns.same, columns.even) == (["a"], ["b"], ["id"])
    assert columns.describe().endswith("left out, as over 20 words, none more frequent than another: id")
    with pytest.raises(DataError, match=r"b \(inputs\): the same in all .*; id \(inputs\): over 20 words"):
        Columns.fit(frame[["id", "b"]])


def test_lists_in_cells_are_refused_and_not_left_out():
    for cell in ([0.1, 0.2], np.zeros(2)):
        with pytest.raises(DataError, match=r"'emb' \(inputs\): has lists in its cells.*\.npz.*data\.drop"):
            Columns.fit(pandas.DataFrame({"a": [0.0, 1.0], "emb": [cell, cell]}))


def test_a_single_category_is_a_constant():
    """Of it pandas keeps the type, of which no any() can be asked."""
    columns = Columns.fit(pandas.DataFrame({"a": [0.0, 1.0], "c": pandas.Series(["x", "x"], dtype="category")}))
    assert [column.kind for column in columns.columns] == ["number"]


def test_it_is_plain_data_and_comes_back_as_it_was():
    columns = Columns.fit(TRAINING)
    again = Columns.from_dict(json.loads(json.dumps(columns.to_dict(), allow_nan=False)))
    assert again == columns
    assert again.transform(NEW).tobytes() == columns.transform(NEW).tobytes()


def test_rows_do_not_depend_on_those_beside_them():
    columns = Columns.fit(TRAINING)
    whole = columns.transform(NEW)
    for row in range(3):
        assert np.array_equal(columns.transform(NEW.iloc[[row]])[0], whole[row])


def test_new_rows_need_the_same_columns():
    columns = Columns.fit(TRAINING)
    with pytest.raises(UsageError, match=r"'age' \(query\): no such column"):
        columns.transform(NEW.drop(columns="age"), "query")
    with pytest.raises(DataError, match=r"'old' \(row 1 below the header, column 'age'\): expected a number"):
        columns.transform(NEW.assign(age="old"))


def test_it_says_how_columns_are_read():
    said = Columns.fit(TRAINING).describe()
    assert "2 numbers, 1 category" in said
    ends = "street; gaps filled and marked in income; left out, as all training rows have the same: country"
    assert said.endswith(ends)
