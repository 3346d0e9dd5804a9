"""A curve in a terminal: eight dots in a letter (Unicode's braille patterns), or one where the encoding lacks those."""

import itertools
from collections.abc import Sequence

# The bit of a dot in a braille letter, by row and column.
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
BLANK = 0x2800


def draw_chart(points: Sequence[tuple[float, float]], width: int, height: int, *, braille: bool = True) -> list[str]:
    """The lines of a chart of points (x, y) in the order of x: `height` of them, and one for the x axis.

    What falls into one column is averaged, and columns are joined by lines. `width` counts all letters of a line; the
    labels at the left are the ends of the y axis.
    """
    low, high = min(y for _, y in points), max(y for _, y in points)
    top, bottom = f"{high:.4g}", f"{low:.4g}"
    margin = max(len(top), len(bottom)) + 2
    columns = max(8, width - margin)
    across, down = (2, 4) if braille else (1, 1)
    heights = _average(points, columns * across)
    span = (high / 2 - low / 2) or 1.0  # halves, for the difference of two numbers may be too large for one
    rows = {x: round((high / 2 - min(max(y, low), high) / 2) / span * (height * down - 1)) for x, y in heights.items()}
    canvas = [[0] * columns for _ in range(height)]
    for x, y in _join(rows):
        canvas[y // down][x // across] |= DOTS[y % down][x % across] if braille else 1
    letters = (lambda bits: chr(BLANK + bits) if bits else " ") if braille else (lambda bits: "*" if bits else " ")
    lines = ["".join(map(letters, row)) for row in canvas]
    labels = [top, *[""] * (height - 2), bottom]
    first, last = f"{points[0][0]:.6g}", f"{points[-1][0]:.6g}"
    axis = f"{'':{margin}}{first}{last:>{columns - len(first)}}"
    return [*(f"{label:>{margin - 2}} |{line}".rstrip() for label, line in zip(labels, lines, strict=True)), axis]


def _average(points: Sequence[tuple[float, float]], columns: int) -> dict[int, float]:
    """The mean of the values in each column that has one, from left to right."""
    first, last = points[0][0], points[-1][0]
    found: dict[int, list[float]] = {}
    for x, y in points:
        place = (x - first) / (last - first) if last > first else 0.0
        found.setdefault(round(place * (columns - 1)), []).append(y)
    return {column: sum(values) / len(values) for column, values in sorted(found.items())}


def _join(rows: dict[int, int]) -> list[tuple[int, int]]:
    """The dots (column, row) of the lines from each column that has a value to the next."""
    places = list(rows.items())
    dots = places[:1]
    for (x0, y0), (x1, y1) in itertools.pairwise(places):
        steps = max(x1 - x0, abs(y1 - y0))
        dots += [(x0 + round(n * (x1 - x0) / steps), y0 + round(n * (y1 - y0) / steps)) for n in range(1, steps + 1)]
    return dots
