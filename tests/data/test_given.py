"""What a user gives to a trained learner: read as it was written, and refused in a line that names the place."""

from pathlib import Path

import numpy as np
import pandas
import pytest
from helpers.tables import cities
from PIL import Image

from metarun.data.columns import Columns
from metarun.data.given import axis_of, classes_of, read_queries, read_support, scale_of_target
from metarun.errors import DataError, MetarunError, UsageError

IMAGES = {"kind": "images", "invert": True, "shape": [1, 4, 4]}
NUMBERS = {"kind": "numbers", "shape": [2]}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _draw(path, grey):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(path)


def _write(file, **columns):
    pandas.DataFrame(columns).to_csv(file, index=False)


def _columns():
    return Columns.fit(cities()[["age", "job"]]).to_dict()


def test_images_come_by_class_and_by_file():
    for n, name in enumerate(("b/2.png", "b/10.png", "a/x.png")):
        _draw(f"support/{name}", 50 * n)
    Path("support/b/note.txt").write_text("left aside")
    support = read_support("support", IMAGES, None)
    assert support.names == ["a/x.png", "b/10.png", "b/2.png"]
    assert (support.labels, support.y.tolist()) == (["a", "b", "b"], [0, 1, 1])
    assert classes_of(support, IMAGES) == ["a", "b"]
    np.testing.assert_array_equal(support.x[:, 0, 0, 0], np.float32([155, 205, 255]) / np.float32(255))
    for paths, names, labels in (
        (["support/a/x.png"], ["support/a/x.png"], [None]),
        (["support/a/x.png", "support/b"], ["support/a/x.png", "support/b/10.png", "support/b/2.png"], [None] * 3),
        (["support/b"], ["10.png", "2.png"], [None] * 2),
        (["support"], ["a/x.png", "b/10.png", "b/2.png"], ["a", "b", "b"]),
    ):
        queries = read_queries(paths, IMAGES, None, ["a", "b"])
        assert (queries.names, queries.labels) == (names, labels)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda: Path("support").rename("other"), "support is not there (support)"),
        (lambda: _draw("support/loose.png", 0), "loose.png (support): is in no class"),
        (lambda: Path("support/empty").mkdir(), "empty (support): holds no images"),
        (lambda: Path("support/a/x.png").write_bytes(b"no image"), "x.png is no image (support)"),
        (lambda: [Path("support/b/x.png").unlink(), Path("support/b").rmdir()], "only one class, a, in support (support)"),
        (lambda: Path("support/b").rename("support/b\nc"), r"class 'b\nc' (support): expected a name"),
        (lambda: Path("query").rename("other"), "query cannot be read: No such file or directory (query)"),
        (lambda: _draw("query/c/1.png", 0), "holds images, and folders of images"),
        (lambda: [Path("query/1.png").unlink(), _draw("query/aa/1.png", 0)], "'aa' (class of aa/1.png, query): expected one of a, b, which are learned; did you mean a?"),
        (lambda: Path("query/1.png").unlink(), "query (query): holds no images"),
        (lambda: Path("query/1.png").write_bytes(b""), "1.png is no image (query)"),
        (lambda: Path("query/2.png").symlink_to("gone"), "2.png: a broken link (query)"),
    ],
)  # fmt: skip
def test_images_that_will_not_do_are_named(spoil, said):
    for name in ("support/a/x.png", "support/b/x.png", "query/1.png"):
        _draw(name, 0)
    spoil()
    with pytest.raises(DataError) as caught:
        support = read_support("support", IMAGES, None)
        read_queries(["query"], IMAGES, None, classes_of(support, IMAGES))
    assert said in str(caught.value)
    assert "data.root" not in str(caught.value)


def test_rows_are_scaled_as_in_training(caplog):
    caplog.set_level("INFO", "metarun")
    inputs = {**_columns(), "kind": "table", "shape": [3], "target": {"name": "wage", "mean": 10.0, "sd": 4.0}}
    frame = cities()[:6]
    frame.to_csv("rows.csv", index=False)
    support = read_support("rows.csv", inputs, 1)
    aside = ", ".join(name for name in frame.columns if name not in ("age", "job", "wage"))
    assert aside
    assert caplog.messages == [f"support: rows.csv: columns left aside, which the run did not have: {aside}"]
    np.testing.assert_array_equal(support.y[:, 0], np.float32((frame.wage.to_numpy() - 10) / 4))
    np.testing.assert_array_equal(support.x, Columns.from_dict(inputs).transform(frame))
    assert support.names == list("123456"), "in the order of the file"
    assert support.cells["job"] == frame.job.tolist()
    assert scale_of_target(inputs).to_user(np.float32([[0.5]])) == 12
    caplog.clear()
    read_support("rows.csv", inputs, 1, apart=[None, *aside.split(", ")])
    assert not caplog.messages, "they are of the run's own table"
    frame[["job", "age"]].to_csv("rows.csv", index=False)
    assert np.isnan(read_queries(["rows.csv"], inputs, 1).values).all()
    assert not caplog.messages


def test_classes_that_a_learner_was_trained_for_keep_their_order():
    inputs = {**_columns(), "kind": "table", "shape": [3], "target": {"name": "ill", "classes": ["yes", "no"]}}
    _write("rows.csv", age=[30, 40, 50], job="smith", ill=["no", "yes", "no"])
    support = read_support("rows.csv", inputs, None)
    assert (support.names, support.y.tolist()) == (["2", "1", "3"], [0, 1, 1])
    assert support.cells["age"] == ["40", "30", "50"]
    for cells, said in ((["no", "no", "no"], "no example of 'yes'"), (["no", "yes", "perhaps"], "'perhaps' (class of row 3, support)")):  # fmt: skip
        _write("rows.csv", age=[30, 40, 50], job="smith", ill=cells)
        with pytest.raises(DataError) as caught:
            read_support("rows.csv", inputs, None)
        assert said in str(caught.value)


def test_texts_and_numbers_have_their_columns():
    texts = {"kind": "text", "text": "name", "symbols": "ab", "shape": [2, 3], "target": {"name": "of"}}
    _write("texts.csv", name=["ba", "c"], of=["z", "y"])
    support = read_support("texts.csv", texts, None)
    assert support.x.argmax(axis=-1).tolist() == [[2, 0], [1, 0]], "c is none of the symbols; then the end"
    assert (support.labels, support.cells) == (["y", "z"], {"name": ["c", "ba"]})
    _write("numbers.csv", x1=[1.5, 2], x0=[3, 4], y1=[5, 6], y0=[7, 8])
    support = read_support("numbers.csv", NUMBERS, 2)
    assert (support.x.tolist(), support.y.tolist()) == ([[3, 1.5], [4, 2]], [[7, 5], [8, 6]])
    _write("numbers.csv", x0=[3, 4], x1=[1, 2], y=["b", None])
    assert read_queries(["numbers.csv"], NUMBERS, None, ["b"]).labels == ["b", None]
    assert axis_of(NUMBERS) is None
    assert axis_of({"kind": "numbers", "shape": [1]}).name == "x"


@pytest.mark.parametrize(
    ("columns", "error", "said"),
    [
        ({"x0": [1], "y": [1]}, UsageError, "'x1' (support): no such column"),
        ({"x0": [1], "x1": [1]}, UsageError, "'y' (support): no such column"),
        ({"x0": [1, 2], "x1": [1, 2], "y": [3, ""]}, DataError, "row 2 below the header has no y"),
        ({"x0": [1], "x1": ["a"], "y": [1]}, DataError, "'a' (row 1 below the header, column 'x1')"),
        ({"x0": [""], "x1": [1], "y": [1]}, DataError, "nan or infinity (support)"),
    ],
)
def test_rows_that_will_not_do_are_named(columns, error, said):
    _write("rows.csv", **columns)
    with pytest.raises(error) as caught:
        read_support("rows.csv", NUMBERS, 1)
    assert said in str(caught.value)
    assert isinstance(caught.value, MetarunError)
