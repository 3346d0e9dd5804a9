"""Columns that fit a terminal."""

import pytest

from metarun.results.grid import Column, cut, format_grid, terminal_width, width_of

COLUMNS = [
    Column("name", ["maml", "prototypical networks"], least=6),
    Column("test", ["1 %", "12.5 %"], right=True),
    Column("folder", ["outputs/2026/one", "outputs/2026/another"], least=8, keep_end=True),
]


@pytest.mark.parametrize("width", [None, 200, 60, 50, 40, 30, 26])
def test_no_line_is_wider_than_the_terminal_and_columns_stand_below_each_other(width):
    lines = format_grid(COLUMNS, width)
    assert len(lines) == 3
    if width is not None:
        assert max(map(len, lines)) <= width
    end = lines[2].index("12.5 %") + 6
    assert lines[1][:end].endswith(" 1 %")
    assert lines[0][:end].endswith("test")


def test_a_path_keeps_its_end_and_a_name_its_beginning():
    _, first, second = format_grid(COLUMNS, 30)
    assert second.endswith("another"[-7:])
    assert second.startswith("prot")
    assert first.split()[0] == "maml", "what is short stays whole"


def test_what_is_too_long_in_any_case_is_cut_in_a_pipe_too():
    heading, line = format_grid([Column("status", ["x" * 99], most=9), Column("folder", ["a"])], None)
    assert line == f"{'x' * 8}…  a"
    assert heading == "status     folder"


def test_a_cell_stays_in_its_line():
    assert format_grid([Column("error", ["two\nlines"])], None) == ["error", "two lines"]


def test_where_nothing_gives_way_lines_are_longer_and_whole():
    assert format_grid([Column("a", ["whole"])], 2) == ["a", "whole"]


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("a日", 3)])
def test_width_is_that_on_a_terminal(text, width):
    assert width_of(text) == width
    assert width_of(cut(text * 9, 7)) <= 7
    assert width_of(cut(text * 9, 7, keep_end=True)) <= 7


@pytest.mark.parametrize(("columns", "width"), [("100", 100), ("0", None), ("", None), ("wide", None)])
def test_a_pipe_and_a_terminal_without_a_size_have_no_width(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal_width() == width
