"""Curves as letters: where dots stand is where the values lie."""

import pytest

from metarun.results.chart import DOTS, draw_chart


def dots_of(lines, height):
    """(column, row) of the dots of a braille chart, counted from its top left."""
    plots = [line.partition("|")[2] for line in lines[:height]]
    return {
        (2 * x + column, 4 * y + row)
        for y, line in enumerate(plots)
        for x, letter in enumerate(line)
        for row, bits in enumerate(DOTS)
        for column, bit in enumerate(bits)
        if letter != " " and (ord(letter) - 0x2800) & bit
    }


def test_a_falling_line_is_a_diagonal():
    """With as many values as columns and rows of dots, each dot has a place of its own."""
    lines = draw_chart([(x, 15 - x) for x in range(16)], 8 + 4, 4)
    assert lines[0].startswith("15 |")
    assert lines[3].startswith(" 0 |")
    assert lines[4].split() == ["0", "15"]
    assert dots_of(lines, 4) == {(n, n) for n in range(16)}


def test_without_braille_it_is_a_plot_of_stars():
    lines = draw_chart([(x, x) for x in range(8)], 8 + 3, 8, braille=False)
    assert [line[3:] for line in lines[:8]] == [f"{'':{7 - n}}*" for n in range(8)]
    assert all(line.isascii() for line in lines)


def test_a_jump_is_a_line_without_gaps():
    rows = {row for _, row in dots_of(draw_chart([(0, 1.0), (1, 0.0)], 40, 5), 5)}
    assert rows == set(range(20))


@pytest.mark.parametrize(
    "points", [[(5, 1.0)], [(0, 2.0), (9, 2.0)], [(3, 1.0), (3, 2.0)], [(0, -1e308), (1, 1e308), (1, 1e308)]]
)
@pytest.mark.parametrize("braille", [True, False])
def test_curves_without_extent_and_huge_ones_can_be_drawn(points, braille):
    lines = draw_chart(points, 30, 4, braille=braille)
    assert len(lines) == 5
    assert max(map(len, lines)) <= 30


def test_many_values_in_a_column_are_averaged():
    points = [(x, float(x % 2)) for x in range(16000)]
    assert {row for _, row in dots_of(draw_chart(points, 30, 5), 5)} <= {9, 10}
