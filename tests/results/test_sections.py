"""The sections of a report: what is in the tables and the texts of the pictures."""

from dataclasses import replace

import pytest
from helpers.results import alter

from metarun.results import sections
from metarun.results.compare import Verdict, make_row
from metarun.results.differences import Difference
from metarun.results.entries import Entry
from metarun.storage.metrics import Event
from metarun.storage.records import Published


def _entries(*rows, events=()):
    rows = [replace(row, number=n + 1) for n, row in enumerate(rows)]
    return [Entry(row, f"row {n}", f"row {n}", n, [list(events)]) for n, row in enumerate(rows)]


def _only(section):
    ((picture, caption),) = section.pictures
    return picture.alt, " ".join(caption)


def test_results_are_a_table_and_a_picture(run):
    paper = Published(paper="Name 2020", mean=2.0)
    row = replace(make_row([alter(run, [1.0, 3.0])], {"algo": "MAML"}), published=paper)
    row = replace(row, verdict=Verdict("above", 0.5, False), to_best=Difference(best=True))
    section = sections._show_results("mse", _entries(row, make_row([alter(run, [2.0, 4.0])], {"algo": "X"})))
    assert section.table.columns["verdict"] == ["above by 0.50", ""]
    assert {"mse", "± tasks", "published"} <= section.table.numbers
    assert "algo" not in section.table.numbers
    alt, caption = _only(section)
    assert alt == "Test results: 1 row 0 2 ± 13; 2 row 1 3 ± 13"
    assert "diamonds" in caption


def test_validations_are_averaged_over_seeds(run):
    events = [
        [Event(5, "val", 1.0 + seed, None, 0.1, [1.0]), Event(10, "val", 0.5, None, 0.1, [1.0])] for seed in (0, 1)
    ]
    row = make_row([alter(run, [1.0, 3.0]), alter(run, [1.0, 3.0], seed=1)], {})
    alt, _ = _only(sections._show_learning("mse", [Entry(row, "a", "a", 0, events)]))
    assert alt == "Learning curves: 1 a ends at 0.5"
    nothing = sections._show_learning("mse", _entries(row, events=[Event(5, "train", 1.0)]))
    assert not nothing.pictures


def test_adaptation_says_from_where_to_where(run):
    alt, _ = _only(sections._show_adaptation("mse", _entries(make_row([alter(run, [1.0, 3.0])], {}))))
    assert alt == "Adaptation: 1 row 0 goes from 2 to 2"


def test_the_band_of_an_adaptation_curve_ends_where_the_table_says(run, monkeypatch):
    """Models that were tested on the same tasks know no more about tasks than one of them."""
    drawn = []
    monkeypatch.setattr(
        sections.figures, "draw_lines", lambda alt, metric, label, panels, swept: drawn.extend(panels[""])
    )
    for digest in ("one and the same", ""):
        row = make_row([alter(run, [1.0, 3.0, 5.0], seed=seed, digest=digest) for seed in (0, 1, 2)], {})
        sections._show_adaptation("mse", _entries(row))
        assert drawn[-1].points[-1] == (2, row.mean, row.ci95_tasks)
    (_, _, shared), (_, _, own) = (line.points[-1] for line in drawn)
    assert own == pytest.approx(shared / 3**0.5)


def test_spread_names_the_median_and_the_worst(run):
    alt, _ = _only(sections._show_spread("mse", _entries(make_row([alter(run, [float(n) for n in range(41)])], {}))))
    assert alt.endswith("1 row 0: median 20, worst twentieth at 38 or more")


def test_pictures_of_test_tasks_come_with_their_words(run):
    row = make_row([run], {})
    ((name, address, alt),) = sections._show_examples("mse", _entries(row)).examples
    assert name == "1 row 0"
    assert address.startswith("data:image/png;base64,")
    assert "Test task 0: error" in alt


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"x" * 50, b"\x89PNG\r\n\x1a\n\xff\xff\xff\xfftEXt"])
def test_what_is_no_picture_has_no_words(content):
    assert sections.read_description(content) == ""
