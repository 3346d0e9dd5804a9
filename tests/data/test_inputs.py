"""What a user has becomes what the learner was trained on: the source's own examples, whatever form they come in."""

import numpy as np
import pandas
import pytest
import torch
from helpers.tables import cities
from PIL import Image

from metarun.data.classes import ClassSource
from metarun.data.given import _encode_frame
from metarun.data.images import Images
from metarun.data.inputs import check_inputs, describe_inputs, encode
from metarun.data.sinusoid import Sinusoid
from metarun.data.table import Table
from metarun.data.texts import Texts
from metarun.errors import DataError, UsageError

HALVES = [0.5, 0.25, 0.25]
IMAGES = {"kind": "images", "shape": [3, 8, 8], "invert": False}


@pytest.fixture
def folder(tmp_path):
    """Four classes of three images, which have colours, some a turn that a camera noted, and no common size."""
    generator = np.random.default_rng(0)
    for n in range(12):
        path = tmp_path / f"class {n % 4}" / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        image = Image.fromarray(generator.integers(0, 256, (9 + n, 11, 3), np.uint8))
        image.getexif()[0x0112] = turn = 6 if n % 3 == 0 else 1
        exif = Image.Exif()
        exif[0x0112] = turn
        image.save(path, exif=exif)
    return tmp_path


@pytest.mark.parametrize("settings", [{}, {"size": 8, "channels": 1, "invert": True}])
def test_images_are_those_of_the_source(folder, settings):
    source = Images(root=str(folder), ways=2, shots=1, splits=HALVES, **settings)
    inputs = describe_inputs(source)
    files = [path for name in source.packed for path in sorted((folder / name).glob("*.png"))]
    expected = source.packed.examples.astype(np.float32) / np.float32(255)
    assert np.array_equal(encode(inputs, files), expected)
    assert np.array_equal(encode(inputs, [str(path) for path in files]), expected)
    assert np.array_equal(encode(inputs, [Image.open(path) for path in files]), expected)
    assert np.array_equal(encode(inputs, str(files[3])), expected[3:4])
    assert np.array_equal(encode(inputs, torch.from_numpy(expected)), expected), "as they are already"
    assert encode(inputs, []).shape == (0, *source.input_shape)


def test_pixels_in_memory_are_those_of_their_files(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (2, 12, 9, 3), np.uint8)
    files = [tmp_path / f"{n}.png" for n in range(2)]
    for file, array in zip(files, pixels, strict=True):
        Image.fromarray(array).save(file)
    expected = encode(IMAGES, files)
    assert np.array_equal(encode(IMAGES, pixels), expected)
    assert np.array_equal(encode(IMAGES, list(pixels)), expected)


def _tables(tmp_path):
    frame = cities()
    frame.loc[::7, "age"] = np.nan
    frame.to_csv(tmp_path / "table.csv", index=False)
    file = str(tmp_path / "table.csv")
    return frame, {
        "regression": Table(file, target="wage", task="city", drop=["name"], splits=HALVES, shots=3, queries=2),
        "classes": Table(file, target="job", task="city", drop=["name"], splits=HALVES, shots=1, queries=1),
        "ways": Table(file, target="city", drop=["name"], splits=HALVES, ways=2, shots=2, queries=2),
    }


def test_rows_are_those_of_the_source(tmp_path):
    frame, sources = _tables(tmp_path)
    for kind, source in sources.items():
        source.prepare(torch.device("cpu"))
        inputs = describe_inputs(source)
        found = {row.tobytes() for row in encode(inputs, frame)}
        task = source.sample(0, "test", torch.arange(5))
        assert {row.numpy().tobytes() for row in task.query_x.flatten(0, 1)} <= found, kind
        names = [column["name"] for column in inputs["columns"]]
        assert np.array_equal(encode(inputs, frame[names].to_numpy()), encode(inputs, frame)), kind
        assert np.isfinite(encode(inputs, frame)).all(), "gaps are filled"


def test_texts_are_those_of_the_source(tmp_path):
    frame = cities()
    frame.to_csv(tmp_path / "texts.csv", index=False)
    source = Texts(str(tmp_path / "texts.csv"), text="name", target="city", splits=HALVES, shots=2, queries=3, length=3)
    source.prepare(torch.device("cpu"))
    inputs = describe_inputs(source)
    found = encode(inputs, list(frame["name"]))
    assert np.array_equal(encode(inputs, frame), found)
    assert np.array_equal(encode(inputs, frame["name"]), found)
    assert np.array_equal(encode(inputs, [f" {name}\n" for name in frame["name"]]), found), "as the lines of a file"
    rows = {row.tobytes() for row in found}
    task = source.sample(0, "test", torch.arange(5))
    assert {row.numpy().tobytes() for row in task.query_x.flatten(0, 1)} <= rows
    decomposed = encode({**inputs, "symbols": "é", "shape": [3, 2]}, ["e\N{COMBINING ACUTE ACCENT}"])
    assert decomposed[0].tolist() == [[1, 0], [0, 0], [0, 0]]


def test_gaps_and_categories_that_training_had_not_are_said(caplog):
    column = {"name": "job", "kind": "category", "values": ["nurse", "smith"], "counts": {}, "gaps": False}
    rows = {"kind": "table", "shape": [2], "target": {"name": "y"}, "columns": [{**column, "mean": 0.0, "sd": 1.0}]}
    assert encode(rows, pandas.DataFrame({"job": [" nurse", "baker", ""]})).tolist() == [[1, 0], [0, 0], [0, 0]]
    assert caplog.messages == ["1 gap (column 'job', examples): expected none, as in training; taken for no category"]
    caplog.clear()
    assert not encode(rows, pandas.DataFrame({"job": ["", "baker"]}), "X").any()
    assert caplog.messages[0].startswith("'baker' (column 'job', X): expected values that training had: nurse, smith")


NUMBERS = describe_inputs(Sinusoid())
ROWS = {
    **{"kind": "table", "shape": [1], "target": {"name": "y"}},
    "columns": [{"name": "a", "kind": "number", "mean": 0.0, "sd": 1.0, "values": [], "counts": {}, "gaps": False}],
}
TEXT = {"kind": "text", "shape": [4, 3], "text": "t", "symbols": "ab", "target": {"name": "y"}}
WRONG = {
    "shape": (NUMBERS, np.zeros((3, 2)), r"\[3, 2\] \(examples\): expected \[n, 1\]"),
    "no numbers": (NUMBERS, [["a"]], "expected numbers"),
    "gap": (NUMBERS, [[np.nan]], r"infinity \(examples\): expected finite"),
    "columns": (ROWS, np.zeros((3, 2)), r"expected \[n, 1\], the columns a"),
    "word": (ROWS, pandas.DataFrame({"a": ["x"]}), "'x'.*expected a number"),
    "no text": (TEXT, [1], "expected texts"),
    "two of a name": (ROWS, pandas.DataFrame([[1, 2]], columns=["a", "a"]), "two columns are named 'a'"),
    "pixels": (IMAGES, np.zeros((2, 5, 5)), r"expected \[n, 3, 8, 8\]"),
    "no images": (IMAGES, None, r"None \(examples\): expected images"),
    "two colours": (IMAGES, [np.zeros((9, 9, 2), np.uint8)], r"9, 9, 2\].*\(examples\)"),
    "no image": (IMAGES, ["nowhere.png"], "nowhere.png"),
}


@pytest.mark.parametrize("case", WRONG)
def test_others_are_refused_in_a_line(case):
    inputs, x, message = WRONG[case]
    with pytest.raises(DataError, match=message) as caught:
        encode(inputs, x)
    assert "\n" not in str(caught.value)


def test_a_column_that_is_missing_is_named():
    with pytest.raises(UsageError, match=r"'t' \(query\): no such column"):
        encode(TEXT, pandas.DataFrame({"id": ["7"], "surname": ["ab"]}), "query")
    with pytest.raises(UsageError, match=r"'a' \(support\)"):
        encode(ROWS, pandas.DataFrame({"b": [1.0]}), "support")


def test_preprocessing_of_a_stranger_is_checked():
    with pytest.raises(ValueError, match=r"preprocessing \(.*more\)"):
        check_inputs({**ROWS, "columns": [{**ROWS["columns"][0], "more": 1}]})
    for good in (NUMBERS, IMAGES, ROWS, TEXT):
        check_inputs(good)
        for key in sorted(good):
            for value in (None, "x", -1, [], [0], ["1"], [1.5], [{}], {"name": 1}, float("nan")):
                if (key, value) == ("text", "x"):
                    continue
                with pytest.raises(ValueError, match="preprocessing") as caught:
                    check_inputs({**good, key: value})
                assert "\n" not in str(caught.value)
            with pytest.raises(ValueError, match="preprocessing"):
                check_inputs({name: value for name, value in good.items() if name != key})


@pytest.mark.parametrize("invert", [False, True])
def test_pixels_mean_the_same_wherever_their_channels_are(invert):
    inputs = {"kind": "images", "shape": [1, 8, 8], "invert": invert}
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    expected = encode(inputs, [Image.fromarray(image) for image in pixels])
    for form in (pixels, pixels[..., None], pixels[:, None], pixels.astype(int)[:, None], list(pixels[:, None])):
        assert np.array_equal(encode(inputs, form), expected)
    assert np.array_equal(encode(inputs, torch.from_numpy(pixels)[:, None]), expected)
    assert np.array_equal(encode(inputs, expected), expected), "floats are as the learner takes them"
    for wrong in (pixels[:, None] / 1.0, pixels.astype(int) - 300, pixels.astype(int) * 2):
        with pytest.raises(DataError, match="from 0 to 255"):
            encode(inputs, wrong)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4), (2, 4, 4), (5,)])
def test_whole_numbers_of_an_own_source_are_those_that_its_tasks_have(shape):
    class Own(ClassSource):
        def load(self):
            generator = np.random.default_rng(0)
            return {f"{n}": generator.integers(0, 256, (2, *shape), np.uint8) for n in range(9)}

    source = Own(ways=2, shots=1, splits=HALVES)
    source.prepare(torch.device("cpu"))
    inputs = describe_inputs(source)
    check_inputs(inputs)
    task = source.sample(0, "test", torch.arange(1))
    trained = np.concatenate([task.support_x[0], task.query_x[0]])
    given = source.packed.examples
    known = {example.tobytes() for example in encode(inputs, given)}
    assert {example.tobytes() for example in trained} <= known
    for form in (given.astype(int), torch.from_numpy(given), encode(inputs, given), list(encode(inputs, given))):
        assert np.array_equal(encode(inputs, form), encode(inputs, given))
    for wrong in (given.astype(int) * 2, given / 200):
        with pytest.raises(DataError, match="from 0 to"):
            encode(inputs, wrong)


def test_integers_are_of_255_and_floats_are_shares():
    inputs = {"kind": "numbers", "shape": [2], "scale": 255}
    frame = pandas.DataFrame({"x0": ["1", "0"], "x1": ["0", "1"]})
    few = _encode_frame(frame, ["x0", "x1"], inputs, "query")
    assert np.array_equal(few, np.float32([[1 / 255, 0], [0, 1 / 255]])), "as a CSV has them"
    assert np.array_equal(encode(inputs, [[1, 0]]), few[:1])
    assert np.array_equal(encode(inputs, [[1.0, 0.0]]), [[1, 0]]), "shares"
    with pytest.raises(DataError, match="or give whole numbers from 0 to 255"):
        encode(inputs, [[255.0, 0.0]])
    assert encode(inputs, np.zeros((0, 2))).shape == (0, 2)


def test_a_frame_of_paths_is_one_column(folder):
    files = [str(path) for path in sorted(folder.rglob("*.png"))]
    assert np.array_equal(encode(IMAGES, pandas.DataFrame({"path": files})), encode(IMAGES, files))
    with pytest.raises(DataError, match=r"2 columns \(examples\): expected one"):
        encode(IMAGES, pandas.DataFrame({"path": files, "label": files}))
