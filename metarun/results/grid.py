"""Columns of text that fit the width of a terminal: what is too long is cut, where it matters least."""

import os
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

GAP = "  "


@dataclass(frozen=True)
class Column:
    """A column: its heading, its cells, and how it gives way where the room is short.

    Attributes:
        least: to how many letters it may be cut; None: it stays whole.
        most: to how many letters it is cut in any case.
        keep_end: cut at the front, as of a path.
        right: set to the right, as of numbers.
    """

    heading: str
    cells: Sequence[str]
    least: int | None = None
    most: int | None = None
    keep_end: bool = False
    right: bool = False

    @property
    def width(self) -> int:
        """Letters of its widest cell, as far as that is not cut."""
        widest = max(map(width_of, (self.heading, *self.cells)))
        return widest if self.most is None else min(widest, self.most)


def terminal_width() -> int | None:
    """Letters in a line of the terminal; None where the output goes elsewhere, or the terminal does not say."""
    if columns := os.environ.get("COLUMNS", ""):
        return int(columns) if columns.isdecimal() and int(columns) else None
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None if sys.stdout.isatty() else None
    except (OSError, ValueError, AttributeError):
        return None


def width_of(text: str) -> int:
    """How many columns of a terminal a text takes: an ideogram has two, an accent of its own none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(bool(unicodedata.combining(char)) for char in text)


def cut(text: str, width: int, keep_end: bool = False) -> str:
    """The text, in at most this width; an ellipsis stands for what is left out."""
    if width_of(text) <= width:
        return text
    while text and width_of(text) > width - 1:
        text = text[1:] if keep_end else text[:-1]
    return f"…{text}" if keep_end else f"{text}…"


def format_grid(columns: Sequence[Column], width: int | None) -> list[str]:
    """The heading and a line for each row; no longer than `width`, as far as the columns give way."""
    widths = _share(columns, width)
    lines = []
    for row in zip(*((column.heading, *column.cells) for column in columns), strict=True):
        cells = [_set(cell, column, room) for cell, column, room in zip(row, columns, widths, strict=True)]
        lines.append(GAP.join(cells).rstrip())
    return lines


def _set(cell: str, column: Column, room: int) -> str:
    cell = cut(cell.replace("\n", " "), room, column.keep_end)
    blank = " " * (room - width_of(cell))
    return blank + cell if column.right else cell + blank


def _share(columns: Sequence[Column], width: int | None) -> list[int]:
    """The width of each column: paths give way first, then the widest that may be cut."""
    widths = [column.width for column in columns]
    least = [min(w, w if column.least is None else column.least) for w, column in zip(widths, columns, strict=True)]
    if width is None:
        return widths
    over = sum(widths) + len(GAP) * (len(columns) - 1) - width
    while over > 0:
        spare = [n for n, w in enumerate(widths) if w > least[n]]
        if not spare:
            break
        widest = max(spare, key=lambda n: (columns[n].keep_end, widths[n] - least[n]))
        widths[widest] -= 1
        over -= 1
    return widths
