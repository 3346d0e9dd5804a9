"""Tables from files as people have them: read as they mean them, or refused in a line that says where and why."""

import io
import logging
import sys

import numpy as np
import pandas
import pytest

from metarun.data.frames import check_columns, labels, numbers, read_frame
from metarun.errors import DataError, UsageError

PEOPLE = {"name": ["Ann", "Bo"], "note": ["a,b;c", "two\nlines"], "height": ["1.5", "2"]}


@pytest.fixture
def write(tmp_path):
    def write(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def _csv(delimiter=",", end="\n"):
    return pandas.DataFrame(PEOPLE).to_csv(sep=delimiter, lineterminator=end, index=False)


@pytest.mark.parametrize(
    "content",
    [
        _csv(), _csv(";"), _csv("\t"), _csv(end="\r\n"), "\ufeff" + _csv(), _csv() + "\n\n", _csv().rstrip(),
        "\n" + _csv(), _csv(";").replace("1.5", "1,5"), _csv().replace("name,", "name , "),
        pandas.DataFrame(PEOPLE).to_csv(),  # with row numbers, in a column without a name
    ],
    ids=["plain", "semicolons", "tabs", "crlf", "bom", "empty lines", "no last end", "empty first", "decimal comma", "blanks", "row numbers"],
)  # fmt: skip
def test_a_csv_is_read_as_it_was_meant(write, content, caplog):
    caplog.set_level(logging.INFO, "metarun")
    frame = read_frame(write(content))
    assert ("1 column without a name left out" in caplog.text) == (content[0] == ",")
    assert {name: [cell.replace("\r", "") for cell in frame[name]] for name in frame} == PEOPLE
    assert list(frame.index) == [1, 2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "table.csv (data.file): empty"),
        ("a,b\n", "no rows"),
        ("a,b,a\n1,2,3\n", "two columns are named 'a'"),
        ("a,b\n1,2\n1,2,3\n", "line 3 has 3 cells: expected 2"),
        ("a,b\n1,2\n1\n", "line 3 has 1 cell: expected 2"),
        ('a,b\n1,"2\n', "line 2: unexpected end of data|quotes"),
        ("a,b\n1,2\nx,Zürich\n".encode("latin1"), "byte 0xfc in line 3 is no UTF-8|save it again"),
        ("a,b\n1,2\n".encode("utf-16"), "byte 0xff in line 1 is no UTF-8"),
    ],
)
def test_what_is_no_csv_is_refused_with_the_line(write, content, said):
    with pytest.raises(DataError) as error:
        read_frame(write(content))
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in said.split("|")), error.value


def test_a_missing_file_is_named_with_its_setting(tmp_path):
    for path in (tmp_path / "no.csv", tmp_path):
        with pytest.raises(DataError, match=rf"{path} \(support\): .*: expected a table"):
            read_frame(path, where="support")


def test_a_missing_column_is_said_with_the_nearest():
    frame = pandas.DataFrame({"school": [1], "score": [2]})
    check_columns(frame, ["score"], "data.target")
    with pytest.raises(UsageError, match=r"'shcool' \(data.task\): .* school, score; did you mean school\?"):
        check_columns(frame, ["score", "shcool"], "data.task")


def _npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_arrays_become_columns(write):
    x, y, task = np.arange(6.0).reshape(3, 2), np.array(["a", "b", "a"]), np.array([7, 7, 8])
    for name in ("x", "X", "features", "embeddings"):
        frame = read_frame(write(_npz(**{name: x}, y=y, task=task, seed=np.array(3)), "data.npz"))
        assert list(frame.columns) == ["x0", "x1", "y", "task"]
        assert np.array_equal(frame[["x0", "x1"]].to_numpy(), x)
        assert list(labels(frame["y"])) == list(y)
        assert list(labels(frame["task"])) == ["7", "7", "8"]
    names = read_frame(write(_npz(x=x, y=y, labels=np.array(["a", "b"])), "data.npz"))
    assert list(names.columns) == ["x0", "x1", "y"], "labels are the names of two classes"
    for wrong in (y[:2], np.eye(3)):
        with pytest.raises(
            DataError, match=r"\(data.file\): y .*: expected \[3\], a class or a value for each row of x"
        ):
            read_frame(write(_npz(x=x, y=wrong), "data.npz"))


def test_python_objects_in_arrays_are_never_loaded(write):
    ran = []

    class Harmful:
        def __reduce__(self):
            return ran.append, (1,)

    objects = np.array([Harmful(), None], dtype=object)
    for content in (_npz(x=np.zeros((2, 1)), y=objects), _npz(x=np.zeros(3)), _npz(z=np.zeros((2, 2))), b"no archive"):
        with pytest.raises(DataError, match=r"data.npz \(data.file\): .*expected"):
            read_frame(write(content, "data.npz"))
    assert not ran


def test_parquet_is_read_or_its_extra_is_named(write, monkeypatch):
    table = pandas.DataFrame({"a": [1, 2], "b": ["x", None], "c": [0.5, np.nan]})
    monkeypatch.setattr(pandas, "read_parquet", lambda *_, **__: table)
    frame = read_frame(write("PAR1", "data.parquet"))
    assert list(labels(frame["b"])) == ["x", None]
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install '\.\[parquet\]'"):
        read_frame(write("PAR1", "data.parquet"))


def test_parquet_with_pyarrow(write, tmp_path):
    pytest.importorskip("pyarrow")
    pandas.DataFrame({"a": [1, 2], "when": pandas.to_datetime(["1970-01-02T00", "1970-01-01T12"])}).to_parquet(
        tmp_path / "data.parquet"
    )
    frame = read_frame(tmp_path / "data.parquet")
    assert list(numbers(frame["when"])) == [1.0, 0.5], "days"
    pandas.DataFrame({"x": [1.0, 2.0]}, index=pandas.Index(["a", "b"], name="y")).to_parquet(tmp_path / "data.parquet")
    assert read_frame(tmp_path / "data.parquet").to_dict("list") == {"y": ["a", "b"], "x": [1.0, 2.0]}
    with pytest.raises(DataError, match="expected a Parquet file"):
        read_frame(write("PAR1", "bad.parquet"))


def _column(cells, **settings):
    return pandas.Series(cells, index=range(1, len(cells) + 1), name="age", **settings)


def test_a_comma_of_decimals_may_have_an_exponent_and_stand_beside_tabs(tmp_path):
    for delimiter in ";\t":
        (tmp_path / "t.csv").write_text(f"a{delimiter}b\n7,736e-06{delimiter}1\n,5{delimiter}-1,25\n")
        frame = read_frame(str(tmp_path / "t.csv"), "data.file")
        assert numbers(frame["a"]).tolist() == [7.736e-06, 0.5]
        assert numbers(frame["b"]).tolist() == [1, -1.25]
    (tmp_path / "t.csv").write_text("a\tb\n1,234\t1\n2,5\t1\n")
    with pytest.raises(DataError, match=r"1,234.*without separators"):
        numbers(read_frame(str(tmp_path / "t.csv"), "data.file")["a"])


def test_days_are_the_words_that_a_csv_has_for_them():
    days = pandas.Series(pandas.to_datetime(["2013-01-01", None, "2014-12-31"]))
    file = io.StringIO(days.to_csv(index=False))
    assert labels(days).tolist() == labels(pandas.read_csv(file, skip_blank_lines=False)["0"]).tolist()
    times = days + pandas.Timedelta(hours=1)
    assert labels(times).tolist() == ["2013-01-01 01:00:00", None, "2014-12-31 01:00:00"]


def test_numbers_are_those_of_words_and_of_every_type():
    nan = np.nan
    for cells, expected in (
        (["1", " 2.5", "-1e3", "", "NA", "nan"], [1, 2.5, -1000, nan, nan, nan]),
        (["1", "NA ", "  ", "\tnull", "2"], [1, nan, nan, nan, 2]),
        ([1, 2], [1, 2]),
        ([True, False], [1, 0]),
        ([0.5, nan], [0.5, nan]),
        (["", ""], [nan, nan]),
        ([None, 3.5, "4"], [nan, 3.5, 4]),
    ):
        np.testing.assert_array_equal(numbers(_column(cells)), np.array(expected, dtype=float))
    assert numbers(_column(["1", "2", "many"])) is None, "words among them, so it is one of categories"
    assert numbers(_column(["1,234", "many", "12,34", "1,2345"])) is None
    assert numbers(_column(["a", "b"], dtype="category")) is None
    assert numbers(_column(pandas.array([1, None], dtype="Int64"))).tolist()[0] == 1.0


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([*map(str, range(11)), "many"], "'many' (row 12 below the header, column 'age'): expected a number"),
        (
            ["950", "1,200", "12,345.5"],
            "'1,200' (row 2 below the header, column 'age'): expected a number without separ",
        ),
        (["1.234.567,5", "2"], "'1.234.567,5' (row 1"),
        (["1", "-inf", "3"], "'-inf' (row 2 below the header, column 'age'): expected a finite number"),
        ([1.0, np.inf], "'inf' (row 2 below"),
        (
            [1.0, -1.7976931348623157e308],
            "(row 2 below the header, column 'age'): expected a finite number, at most 3.4",
        ),
    ],
)
def test_a_word_among_numbers_is_refused_with_its_row(cells, said):
    with pytest.raises(DataError) as error:
        numbers(_column(cells))
    assert said in str(error.value)
    assert "data.drop" in str(error.value)


def test_labels_are_words_as_one_writes_them():
    for cells, expected in (
        (["007", "", "x y", "NA"], ["007", None, "x y", None]),
        ([1224, 7], ["1224", "7"]),
        ([1224.0, 0.1, np.nan], ["1224", "0.1", None]),
        ([True, None], ["True", None]),
        (["Ann ", " x y", " NA ", "  "], ["Ann", "x y", None, None]),
    ):
        assert labels(_column(cells)).tolist() == expected


def test_delimiters_in_quotes_and_in_files_of_tabs_part_nothing(write):
    quoted = read_frame(write('"height, cm";"weight, kg";y\n1,5;2;3\n'))
    assert quoted.to_dict("list") == {"height, cm": ["1.5"], "weight, kg": ["2"], "y": ["3"]}
    tabs = read_frame(write("GDP, total, USD\tlife, years\ty\n1\t2\t3\n", "table.tsv"))
    assert list(tabs) == ["GDP, total, USD", "life, years", "y"]


def test_durations_are_days_and_bytes_are_words(write):
    hours = pandas.Series(pandas.to_timedelta([36, None, 12], unit="h"), [1, 2, 3])
    np.testing.assert_array_equal(numbers(hours), [1.5, np.nan, 0.5])
    frame = read_frame(write(_npz(x=np.zeros((2, 1)), y=np.array([b"c\xc3\xa9", b"d"])), "table.npz"))
    assert frame["y"].tolist() == ["cé", "d"]
    with pytest.raises(DataError, match="expected words in UTF-8"):
        read_frame(write(_npz(x=np.zeros((1, 1)), y=np.array([b"\xff"])), "table.npz"))


def test_many_rows_are_no_matter(write):
    """200,000 of them: read row by row in Python this would be noticed by whoever waits for the tests."""
    row = "0.123456,blue,7\n"
    frame = read_frame(write("a,b,c\n" + 200_000 * row))
    assert frame.shape == (200_000, 3)
    assert numbers(frame["a"]).sum() == pytest.approx(24691.2)
