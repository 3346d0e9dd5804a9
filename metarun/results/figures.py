"""Curves and bars for a report, drawn by matplotlib twice, for a page and for a phone, each in light and dark."""

import base64
import io
import itertools
import math
import re
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from metarun.run.axes import LABELS, format_axis, make_logarithmic
from metarun.storage.records import Metric, Published

RATIO = 30  # of the largest to the smallest swept value, from which on its axis is logarithmic
MOST_BANDS = 6  # curves with a band each; more would hide each other
MOST_TICKS = 8
# Rows have eight colours, and then other dashes and marks.
DASHES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "^", "D")


@dataclass(frozen=True)
class Size:
    """A picture's width in inches, and how many letters of a name, of a legend's line and of a row of panels fit."""

    width: float
    name: int
    line: int

    @property
    def narrow(self) -> bool:
        """Whether it is for a phone."""
        return self is PHONE

    def shorten(self, name: str) -> str:
        """A name that fits; what tells it apart comes first."""
        return name if len(name) <= self.name else f"{name[: self.name - 1]}…"

    def columns(self, names: Sequence[str], most: int) -> int:
        """How many of these names fit beside each other, with a mark each."""
        return max(1, min(most, len(names), self.line // (max(len(self.shorten(name)) for name in names) + 8)))


PAGE, PHONE = Size(7.2, 34, 96), Size(3.5, 18, 54)


@dataclass(frozen=True)
class Colors:
    """The colours of a page: text, grid, and rows by their numbers."""

    ink: str
    faint: str
    rows: tuple[str, ...]


LIGHT = Colors(
    "#1c2430", "#aab2bd", ("#1f6fb5", "#d1495b", "#1b8a74", "#c77700", "#7a4fa3", "#6a7480", "#9c5a2e", "#0f8ea8")
)
DARK = Colors(
    "#e6eaf0", "#566170", ("#62a8e8", "#f0798a", "#4fc2a9", "#f0a63c", "#b48ce0", "#a3afbd", "#d29667", "#4fc3dc")
)


_TO_DARK = dict(zip((LIGHT.ink, LIGHT.faint, *LIGHT.rows), (DARK.ink, DARK.faint, *DARK.rows), strict=True))


def color_of(number: int) -> str:
    """The colour of a row on a light page."""
    return LIGHT.rows[number % len(LIGHT.rows)]


def mark_of(number: int) -> str:
    """The mark of a row, which tells it from those with its colour."""
    return MARKS[number // len(LIGHT.rows) % len(MARKS)]


@dataclass(frozen=True)
class Picture:
    """A picture as data addresses, by class: `light` and `dark` of a page (or paper), the same as `phone`.

    `alt` says it with its numbers.
    """

    addresses: dict[str, str]
    alt: str


@dataclass(frozen=True)
class Series:
    """A curve: its name, the number of its row (for colour and mark), and its points: x, mean, ci95."""

    name: str
    number: int
    points: Sequence[tuple[float, float, float]]


@dataclass(frozen=True)
class Bar:
    """A result: its name, the number of its row, mean and interval, the mean of each seed, and what is published."""

    name: str
    number: int
    mean: float
    ci95: float
    seeds: Sequence[float] = ()
    published: Published | None = None


def draw(alt: str, height: Callable[[Size], float], paint: Callable[[Figure, Size], None]) -> Picture:
    """A picture in two sizes and both colour schemes, `height` inches high, that `paint` draws in light colours."""
    style: dict[Any, Any] = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), LIGHT.ink),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), LIGHT.faint),
        **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False),
        **{"axes.titlesize": 9, "grid.linewidth": 0.6, "grid.alpha": 0.6, "font.size": 10},
        # Letters stay letters, in the fonts of the page as far as a picture can have them; the salt fixes its ids.
        **{"svg.fonttype": "none", "svg.hashsalt": "metarun", "font.family": ["DejaVu Sans", "sans-serif"]},
    }
    addresses = {}
    for size, kind in ((PAGE, ""), (PHONE, " phone")):
        with rc_context(style), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # long names in a small picture
            figure, out = Figure(figsize=(size.width, height(size)), layout="constrained"), io.BytesIO()
            paint(figure, size)
            figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
        light = out.getvalue().decode()
        dark = re.sub("|".join(_TO_DARK), lambda found: _TO_DARK[found[0]], light)
        for scheme, svg in (("light", light), ("dark", dark)):
            addresses[scheme + kind] = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    return Picture(addresses, alt)


def draw_lines(
    alt: str, metric: Metric, xlabel: str, panels: Mapping[str, Sequence[Series]], swept: bool = False
) -> Picture:
    """Curves with their intervals as bands, in panels by title that share the axis below.

    `swept` is whether the points are the values of a setting, which are ticks where they are few; rates have a
    logarithmic axis.
    """
    every = [line for series in panels.values() for line in series]
    legend = list({line.name: line for line in every}.values())
    places = sorted({point[0] for line in every for point in line.points})
    counts = all(type(x) is int for x in places)
    logarithmic = min(places) > 0 and (is_rate(xlabel) or (max(places) >= RATIO * min(places) and not counts))

    def paint(figure: Figure, size: Size) -> None:
        shape = (len(panels), 1) if size.narrow else (1, len(panels))
        grid = figure.subplots(*shape, sharex=True, squeeze=False).ravel()
        for axes, (title, series) in zip(grid, panels.items(), strict=True):
            for line in series:
                _paint_line(axes, line, band=len(series) <= MOST_BANDS)
            axes.set(title=title, ylabel=LABELS[metric] if size.narrow or axes is grid[0] else "")
            if not size.narrow or axes is grid[-1]:
                axes.set(xlabel=xlabel)
            axes.grid(axis="y")
            format_axis(axes, "y", metric)
            if metric == "mse":
                axes.set_ylim(top=min(axes.get_ylim()[1], top_of_frame(series)))
        _format_places(grid[0], places, counts, logarithmic, swept and len(places) <= MOST_TICKS)
        names = [size.shorten(line.name) for line in legend]
        handles = [
            Line2D([], [], color=color_of(n), ls=_dashes_of(n), marker=mark_of(n), ms=4, label=name, lw=1.8)
            for n, name in zip([line.number for line in legend], names, strict=True)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=size.columns(names, 4), fontsize=9)

    def height(size: Size) -> float:
        rows = math.ceil(len(legend) / size.columns([line.name for line in legend], 4))
        return (2.3 * max(1.2, len(panels)) if size.narrow else 3.4) + 0.2 * rows

    return draw(alt, height, paint)


def is_rate(key: str) -> bool:
    """Whether a setting is a rate by its name, whose values one thinks of as ratios."""
    words = key.rpartition(".")[2].split("_")
    return bool({"lr", "rate", "decay", "eps", "weight"} & set(words))


def _paint_line(axes: Axes, line: Series, band: bool) -> None:
    x, mean, ci95 = np.array(line.points, dtype=float).T
    look: dict[str, Any] = {"color": color_of(line.number), "ls": _dashes_of(line.number), "lw": 1.8}
    axes.plot(x, mean, marker=mark_of(line.number), ms=4, markevery=max(1, len(x) // 8), **look)
    if band:
        low = np.maximum(mean - ci95, mean / 10)  # above 0, for a logarithmic axis
        axes.fill_between(x, low, mean + ci95, color=color_of(line.number), alpha=0.15, lw=0)


def _dashes_of(number: int) -> str:
    return DASHES[number // len(LIGHT.rows) % len(DASHES)]


def _format_places(axes: Axes, places: Sequence[float], counts: bool, logarithmic: bool, ticks: bool) -> None:
    """The axis below, which all panels share."""
    if logarithmic:
        make_logarithmic(axes, "x")
    if ticks:
        axes.set_xticks(places, [f"{x:.4g}" for x in places])
        axes.xaxis.set_minor_locator(NullLocator())
    elif not logarithmic:
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=counts))


def top_of_frame(series: Sequence[Series]) -> float:
    """The largest error that is drawn, lest a curve that has left all bounds makes the others a line."""
    return 1000 * statistics.median(point[1] for line in series for point in line.points)


def draw_bars(alt: str, metric: Metric, bars: Sequence[Bar]) -> Picture:
    """Means with their intervals, one below the other, and the mean of each seed; published ones as hollow diamonds."""
    means = [bar.mean for bar in bars]

    def paint(figure: Figure, size: Size) -> None:
        axes = figure.subplots()
        for place, bar in enumerate(bars):
            color = color_of(bar.number)
            look: dict[str, Any] = {"color": color, "marker": mark_of(bar.number), "ms": 6, "capsize": 3, "lw": 2}
            axes.errorbar(bar.mean, place, xerr=bar.ci95, **look)
            if len(bar.seeds) > 1:
                axes.plot(bar.seeds, [place - 0.2] * len(bar.seeds), "o", ms=4, color=color, alpha=0.6, mew=0)
            if paper := bar.published:
                look = {"color": LIGHT.faint, "marker": "D", "ms": 5, "mfc": "none", "mec": LIGHT.ink, "capsize": 2}
                axes.errorbar(paper.mean, place + 0.25, xerr=paper.ci95, lw=1.2, **look)
        axes.set_yticks(range(len(bars)), [size.shorten(bar.name) for bar in bars])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel=LABELS[metric])
        if metric == "accuracy" or max(means) > 20 * min(means):
            format_axis(axes, "x", metric, minor=(1, 0.4))
        elif size.narrow:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)

    return draw(alt, lambda size: 1.0 + (0.34 if len(bars) > 8 else 0.42) * len(bars), paint)


def draw_histograms(alt: str, metric: Metric, rows: Sequence[tuple[str, int, list[float]]]) -> Picture:
    """The distribution of a metric over test tasks, a panel for each row: its name, its number, each task's metric."""
    names = [name for name, *_ in rows]
    edges = edges_of([value for *_, each in rows for value in each], logarithmic=metric == "mse")

    def paint(figure: Figure, size: Size) -> None:
        columns = size.columns(names, 4)
        shape = (math.ceil(len(rows) / columns), columns)
        grid = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False).ravel()
        format_axis(grid[0], "x", metric, minor=(1, 0.4))  # which all share
        for axes in grid[len(rows) :]:
            axes.set_visible(False)
        for axes, (name, number, each) in zip(grid, rows, strict=False):
            clipped = np.clip(each, edges[0], edges[-1])
            axes.hist(clipped, bins=edges, color=color_of(number), alpha=0.85, weights=[1 / len(each)] * len(each))
            axes.set_title(size.shorten(name))
            axes.grid(axis="y")
        for axes in grid[len(rows) - columns : len(rows)]:  # the lowest of each column
            axes.tick_params(labelbottom=True)
        figure.supxlabel(LABELS[metric], fontsize="medium")
        figure.supylabel("share of tasks", fontsize="medium")

    return draw(alt, lambda size: 0.6 + 1.6 * math.ceil(len(rows) / size.columns(names, 4)), paint)


def edges_of(values: list[float], logarithmic: bool) -> list[float]:
    """The edges of a histogram's bars.

    Of errors thirty bars on a logarithmic axis; of accuracies a bar for each that is possible, but twenty where
    tasks have many queries.
    """
    if logarithmic:
        middle = statistics.median(values)  # the outermost bars hold all that is 10,000 times away from it
        low = max(min(values), 1e-4 * middle, 1e-30)
        top = max(min(max(values), 1e4 * middle) * 1.0001, 2 * low)  # where all are alike
        return np.geomspace(low, top, 31).tolist()
    levels = sorted({round(value, 6) for value in [*values, 0.0, 1.0]})
    bars = 1 / min(b - a for a, b in itertools.pairwise(levels))
    bars = round(bars) if bars <= 25 and abs(bars - round(bars)) < 1e-3 else 20
    return [(n - 0.5) / bars for n in range(bars + 2)]
