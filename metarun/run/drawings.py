"""Tasks to look at: images with what they are taken for, and functions before and after inner steps.

examples.png of a run and the page of `metarun adapt` are drawn by these. Positions are in inches. n images, C channels,
G places on the axis of a function, K inner steps.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from metarun.text import printable

TILE, GAP, TILE_ROW = 0.52, 0.14, 0.86  # a tile's side, what is between, a row with the words below
HEADING = 0.2  # from a heading to its tiles
LETTER, LONGEST = 0.068, 14  # the width of a letter below a tile; letters of a name there
# Halfway between white and black, so that they can be read on a page of either.
INK, BEFORE, AFTER, WRONG = "#768291", "#3f8fd2", "#e0475b", "#e0475b"


def to_png(figure: Figure, **options: Any) -> bytes:
    """The picture as the content of a PNG file; `options` are matplotlib's."""
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of letters of the user's that the font has not
        figure.savefig(image, format="png", **options)
    return image.getvalue()


def to_tiles_png(figure: Figure, words: str) -> bytes:
    """A picture of tasks, on a transparent ground; its `Description` says in words what it shows."""
    return to_png(figure, dpi=150, transparent=True, metadata={"Description": words})


@dataclass(frozen=True)
class Tiles:
    """Images with words below them.

    Attributes:
        images: [n, C, H, W] in [0, 1], as a learner sees them.
        taken: for each the name of the class that it is taken for.
        truth: the name of its class; None: not known.
        sure: the probability of that class, in [0, 1]; empty: it is not written.
        ink: whether bright is dark ink on white paper.
    """

    images: np.ndarray
    taken: Sequence[str]
    truth: Sequence[str | None]
    sure: Sequence[float] = ()
    ink: bool = True

    @property
    def pitch(self) -> float:
        """From a tile to the next, so that words fit."""
        lines = (line for n in range(len(self.images)) for line in self._words(n).split("\n"))
        return max(TILE + GAP, LETTER * max(map(len, lines), default=0) + GAP)

    def height(self, per_row: int) -> float:
        """Of the heading and the rows."""
        return HEADING + TILE_ROW * -(-len(self.images) // per_row)

    def draw(self, axes: Axes, left: float, top: float, per_row: int, heading: str) -> None:
        """Draws them in rows below a heading; mistakes are framed."""
        axes.text(left, top, heading, color=INK, fontsize=8, va="top", parse_math=False)
        look: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest", "aspect": "auto"}
        pitch = self.pitch
        left += (pitch - TILE - GAP) / 2
        pixels = np.moveaxis(self.images.clip(0, 1), 1, -1)
        for n, image in enumerate(1 - pixels if self.ink else pixels):
            x, y = left + (n % per_row) * pitch, top + HEADING + (n // per_row) * TILE_ROW
            axes.imshow(image, extent=(x, x + TILE, y + TILE, y), **look)
            right = self.truth[n] in (None, self.taken[n])
            color, width, weight = (INK, 0.4, "normal") if right else (WRONG, 2, "bold")
            axes.add_patch(Rectangle((x, y), TILE, TILE, fill=False, ec=color, lw=width))
            place = {"ha": "center", "va": "top", "size": 7.5, "parse_math": False}
            axes.text(x + TILE / 2, y + TILE + 0.05, self._words(n), color=color, weight=weight, **place)

    def _words(self, n: int) -> str:
        taken, truth = self.taken[n], self.truth[n]
        sure = f"{self.sure[n]:.0%}" if len(self.sure) else ""
        if truth in (None, taken):
            return f"{_shorten(taken)}\n{sure}" if sure else _shorten(taken)
        return f"✗ {_shorten(taken)}{f' {sure}' if sure else ''}\nis {_shorten(truth)}"


def _shorten(name: str | None) -> str:
    name = printable((name or "").replace("\n", " "))
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


@contextmanager
def drawing_functions() -> Iterator[None]:
    """Figures that are made inside have axes in INK, without a frame."""
    style: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), INK
    )
    with rc_context({**style, "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False}):
        yield


def choose_steps(steps: int) -> dict[int, str]:
    """The inner steps out of 0..K after which a function is drawn, with their names; without any it is the answer."""
    if not steps:
        return {0: "answer"}
    return {step: f"after {step}" if step else "before" for step in (0, 1, 5, steps) if step <= steps}


def draw_function(
    axes: Axes,
    grid: np.ndarray,
    outputs: np.ndarray,
    support: tuple[np.ndarray, np.ndarray],
    truth: np.ndarray | None = None,
) -> None:
    """Draws a function of one number as it is before and after inner steps, and what it was learned from.

    Args:
        axes: to draw on; its legend is left to the caller.
        grid: [G] places.
        outputs: [K+1, G] values there, after 0..K inner steps.
        support: the places and values of the support set.
        truth: [G] the true values, where they are known.
    """
    last = len(outputs) - 1
    if truth is not None:
        axes.plot(grid, truth, color=INK, lw=1.2, label="truth")
    for step, name in sorted(choose_steps(last).items()):
        dashes = {"ls": {0: ":", 1: "--"}.get(step, "-."), "lw": 1.3, "color": BEFORE}
        look: dict[str, Any] = {"lw": 2.2, "color": AFTER} if step == last else dashes
        axes.plot(grid, outputs[step], label=name, **look)
    axes.plot(*support, "o", color=INK, ms=5, label="support", zorder=5)
    axes.grid(axis="y", color=INK, alpha=0.25)
