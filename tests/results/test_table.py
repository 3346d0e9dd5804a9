"""metarun table: what rows look like as markdown, CSV and JSON."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.results import alter, copy_run
from helpers.runs import QUICK

from metarun.results.compare import Verdict, make_row
from metarun.results.differences import Contest, Difference
from metarun.results.runs import LeftOut
from metarun.results.table import Table, as_csv, as_json, as_markdown, columns
from metarun.storage.records import Published

PAPER = Published(paper="Name 2020, table 1", mean=2.5, by_step={0: 9.0, 1: 2.6})


@pytest.fixture
def rows(run):
    """Two rows with all that a row can have; the second has two seeds."""
    first = make_row([alter(run, [1.0, 2.0, 4.0])], {"experiment": "x/one", "algo.inner_lr": 0.12345})
    first = replace(first, to_best=Difference(best=True), validation=2.04, model_validation=2.04)
    two = [alter(run, [2.0, 3.0, 7.0]), alter(run, [3.0, 4.0, 8.0], seed=1)]
    second = make_row(two, {"experiment": "a|b"}, 2)
    second = replace(second, to_best=Difference(1.5, 0.25), validation=None, model_validation=4.04)
    steps = [(7.0, 1.0), (2.5, 0.5)]
    first = replace(first, published=PAPER, verdict=Verdict("above", 0.75, True), curve=steps)
    return [first, second]


def test_markdown_is_for_people(rows):
    title, settings, *lines = as_markdown(rows, [LeftOut("runs/x", "why")]).split("\n\n", 2)
    assert title == "**MAML on sinusoid 10-shot regression (queries: 10), 4 outer steps of 25 tasks**"
    assert settings.startswith("learner: MLP, 25 meta-parameters; inner loop: SGD")
    lines = lines[0].splitlines()
    head = "row | experiment | algo.inner_lr | val | mse | ± tasks | ± seeds | tasks | seeds | after 0 | after 1 | published | verdict"
    assert lines[0] == f"| {head} | to the best | paper | folder |"
    start, end = (
        "| 1 | x/one | 0.1235 | 2.040 | 2.3 | 3.8 |  | 3 | 1 | 7.0 ± 1.0 (9) | 2.50 ± 0.50 (2.6) | 2.5 | ",
        "Name 2020, table 1 | run |",
    )
    assert lines[2] == f"{start}above by 0.75, intervals meet | best | {end}"
    assert lines[3].startswith("| 2 | a\\|b |  | (4.040) | 4.5 |")
    assert "| +1.50 ± 0.25 |" in lines[3]
    assert "after 0, after 1: after that many inner steps" in lines[5]
    assert "in brackets" in lines[5]
    assert lines[-1] == "- runs/x: why"


def test_a_row_that_answers_every_task_as_the_best_does_is_equal_to_it(rows):
    same = replace(rows[1], to_best=Difference(0.0, 0.0, equal=True))
    assert columns([rows[0], same])["to the best"] == ["best", "equal on every task"]


def test_the_best_of_some_rows_names_them(rows):
    contest = Contest((1, 2, 3, 7), 1, "validation", 1, {}, {}, 1)
    first = replace(rows[0], contest=contest)
    assert columns([first, *[rows[1]] * 7])["to the best"][0] == "best of 1 to 3, 7"
    first = replace(first, contest=replace(contest, by="test"))
    assert columns([first, *[rows[1]] * 3])["to the best"][0] == "best in test"


def test_csv_and_json_have_the_numbers(rows):
    lines = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [float(line["mean"]) for line in lines] == pytest.approx([7 / 3, 4.5])
    assert [line["published"] for line in lines] == ["2.5", ""]
    assert [line["difference_to_best"] for line in lines] == ["", "1.5"]
    assert [line["seeds"] for line in lines] == ["1", "2"]
    assert {(line["algorithm"], line["source"]) for line in lines} == {("MAML", "sinusoid")}
    text = as_json(rows, [LeftOut("runs/x", "why")])
    content = json.loads(text)
    assert json.loads(Table.from_json(text).model_dump_json()) == content, "its shape is that of the record"
    assert [row["seeds"] for row in content["rows"]] == [[0], [0, 1]]
    assert [row["best_on_its_tasks"] for row in content["rows"]] == [True, False]
    assert content["rows"][0]["by_step"] == {"0": [7.0, 1.0], "1": [2.5, 0.5]}
    assert content["rows"][0]["published"]["by_step"] == {"0": 9.0, "1": 2.6}
    assert content["rows"][1]["difference_ci95"] == 0.25
    assert content["left_out"] == [{"path": "runs/x", "reason": "why"}]


def test_a_row_that_nothing_tells_apart_has_its_number(run):
    found = columns([make_row([alter(run, [1.0, 2.0])], {})])
    assert list(found)[:3] == ["row", "val", "mse"]
    assert "± seeds" not in found, "empty columns are left out"


@pytest.mark.parametrize(
    ("mean", "ci95", "expected"),
    [
        (0.987, 0.004, "98.7 ± 0.4 %"),
        (0.9768, 0.0004, "97.68 ± 0.04 %"),
        (0.9953, 0.0026, "99.53 ± 0.26 %"),
        (0.8814, 0.0015, "88.14 ± 0.15 %"),
        (0.999, 0.001, "99.9 ± 0.1 %"),
        (0.96, None, "96.0 %"),
        (0.9765, None, "97.65 %"),
    ],
)
def test_what_is_published_has_the_digits_of_the_paper(run, mean, ci95, expected):
    row = make_row([alter(run, [0.5, 1.0], metric="accuracy")], {})
    row = replace(row, published=Published(paper="X 2020", mean=mean, ci95=ci95))
    assert columns([row])["published"] == [expected]


def test_a_difference_has_the_decimals_of_its_interval(run):
    row = make_row([alter(run, [0.5, 1.0], metric="accuracy")], {})
    row = replace(row, to_best=Difference(-0.0512, 0.0004))
    assert columns([row])["to the best"] == ["−5.120 ± 0.040"]


def test_the_verb_prints_a_table_of_folders(metarun, finished):
    copy_run(finished, "runs/one", [1.0, 2.0, 4.0], inner_lr=0.1)
    copy_run(finished, "runs/two", [2.0, 3.0, 7.0], inner_lr=0.2)
    Path("runs/torn/.hydra").mkdir(parents=True)
    code, out, err = metarun("table", "runs")
    assert code == 0, err
    assert "| 2.3 | 3.8 |" in out
    assert "| +1.7 ± " in out
    assert "- runs/torn: " in out
    code, out, err = metarun("table", "runs", "format=csv")
    assert len(out.splitlines()) == 3
    assert "left out: runs/torn: " in err
    code, out, err = metarun("table", "runs/torn")
    assert (code, out) == (4, "")
    left_out, error = err.splitlines()
    assert left_out.startswith("left out: runs/torn: ")
    assert "no result in 1 folder" in error


def test_a_sweep_and_its_evaluations_end_to_end(metarun):
    assert metarun("-m", *QUICK, "algo.inner_lr=0.01,0.02", "seed=0,1", "hydra.sweep.dir=sweep")[0] == 0
    first = sorted(path.parent for path in Path("sweep").glob("*/status.json"))[0]
    assert metarun("eval", str(first), "seed=7")[0] == 0
    content = json.loads(metarun("table", "sweep", str(first / "eval"), "format=json")[1])
    assert [(row["keys"], row["seeds"]) for row in content["rows"]] == [
        ({"algo.inner_lr": 0.01}, [0, 1]),
        ({"algo.inner_lr": 0.02}, [0, 1]),
        ({"algo.inner_lr": 0.01, "eval": "seed=7"}, [0]),
    ]
    assert [row["best_on_its_tasks"] is None for row in content["rows"]] == [False, False, True]
    assert metarun("eval", "sweep", "data.shots=3")[0] == 0
    shutil.copytree(first / "eval", first / "eval/copies")  # which repeat others
    out = metarun("table", "sweep")[1]
    assert out.endswith("\n\nThese runs have 7 evaluations more: metarun table sweep evaluations=true\n")
    out = metarun("table", "sweep", "evaluations=true")[1]
    assert "evaluations more" not in out
    heading, _, *lines = (re.split(r" *\| *", line) for line in out.splitlines() if line.startswith("|"))
    assert [line[heading.index("shots")] for line in lines] == ["10", "10", "10", "3", "3"]
