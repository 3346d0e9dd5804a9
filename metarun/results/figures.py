"""Curves and bars for a report, drawn by matplotlib twice: for a light page and for a dark one."""

import base64
import io
import itertools
import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarun.results.compare import Row
from metarun.run.axes import LABELS, format_axis, make_logarithmic
from metarun.storage.records import Metric

WIDE = 30  # the ratio of the largest to the smallest swept value from which on its axis is logarithmic
LONGEST_NAME = 40  # letters in a picture; the table has the whole name
DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Colors:
    """The colours of a page: text, grid, and rows by their numbers."""

    ink: str
    faint: str
    rows: tuple[str, ...]

    def of(self, number: int) -> str:
        """The colour of a row; after eight they come again, with other dashes."""
        return self.rows[number % len(self.rows)]


LIGHT = Colors(
    "#1c2430", "#aab2bd", ("#1f6fb5", "#d1495b", "#1b8a74", "#c77700", "#7a4fa3", "#6a7480", "#9c5a2e", "#0f8ea8")
)
DARK = Colors(
    "#e6eaf0", "#566170", ("#62a8e8", "#f0798a", "#4fc2a9", "#f0a63c", "#b48ce0", "#a3afbd", "#d29667", "#4fc3dc")
)


@dataclass(frozen=True)
class Picture:
    """A picture as data addresses, for a light page (or paper) and for a dark one; `alt` says it with its numbers."""

    light: str
    dark: str
    alt: str


@dataclass(frozen=True)
class Series:
    """A curve: its name, the number of its row (for the colour), and its points: x, mean, ci95."""

    name: str
    number: int
    points: Sequence[tuple[float, float, float]]


def draw(alt: str, height: float, paint: Callable[[Figure, Colors], None]) -> Picture:
    """A picture in both colour schemes, `height` inches high, that `paint` draws with the colours it is given."""
    addresses = []
    for colors in (LIGHT, DARK):
        style: dict[Any, Any] = {
            **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), colors.ink),
            **dict.fromkeys(("axes.edgecolor", "grid.color"), colors.faint),
            **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False),
            **{"axes.titlesize": 9, "grid.linewidth": 0.6, "grid.alpha": 0.6, "font.size": 10},
            # Letters stay letters, in the fonts of the page as far as a picture can have them; the salt fixes its ids.
            **{"svg.fonttype": "none", "svg.hashsalt": "metarun", "font.family": ["DejaVu Sans", "sans-serif"]},
        }
        with rc_context(style), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # long names in a small picture
            figure, out = Figure(figsize=(7.2, height), layout="constrained"), io.BytesIO()
            paint(figure, colors)
            figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
        addresses.append(f"data:image/svg+xml;base64,{base64.b64encode(out.getvalue()).decode()}")
    return Picture(*addresses, alt)


def draw_lines(alt: str, metric: Metric, xlabel: str, series: Sequence[Series]) -> Picture:
    """Curves with their intervals as bands."""
    places = [point[0] for line in series for point in line.points]
    counts = all(type(x) is int for x in places)
    names = [_shorten(line.name) for line in series]
    columns = min(3, len(names), 90 // (max(map(len, names)) + 8))

    def paint(figure: Figure, colors: Colors) -> None:
        axes = figure.subplots()
        for line, name in zip(series, names, strict=True):
            x, mean, ci95 = np.array(line.points, dtype=float).T
            color, dashes = colors.of(line.number), DASHES[line.number // len(colors.rows) % len(DASHES)]
            axes.plot(x, mean, marker="o", ms=4 if len(x) < 15 else 0, label=name, color=color, ls=dashes, lw=1.8)
            low = np.maximum(mean - ci95, mean / 10)  # above 0, for a logarithmic axis
            axes.fill_between(x, low, mean + ci95, color=color, alpha=0.15, lw=0)
        if min(places) > 0 and max(places) >= WIDE * min(places) and not counts:
            make_logarithmic(axes, "x")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=counts))
        axes.set(xlabel=xlabel, ylabel=LABELS[metric])
        format_axis(axes, "y", metric)
        axes.grid(axis="y")
        if metric == "mse":
            axes.set_ylim(top=min(axes.get_ylim()[1], top_of_frame(series)))
        figure.legend(loc="outside lower center", ncols=columns, fontsize=9)

    return draw(alt, 3.4 + 0.2 * math.ceil(len(series) / columns), paint)


def top_of_frame(series: Sequence[Series]) -> float:
    """The largest error that is drawn, lest a curve that has left all bounds makes the others a line."""
    return 1000 * statistics.median(point[1] for line in series for point in line.points)


def _shorten(name: str) -> str:
    """A name that fits, without its middle where it is too long: names begin alike."""
    return name if len(name) <= LONGEST_NAME else f"{name[:13]}…{name[14 - LONGEST_NAME :]}"


def draw_bars(alt: str, metric: Metric, rows: Sequence[tuple[str, int, Row]]) -> Picture:
    """Means with their intervals, one below the other, by name and number; published ones as hollow diamonds."""
    means = [row.mean for *_, row in rows]

    def paint(figure: Figure, colors: Colors) -> None:
        axes = figure.subplots()
        for place, (_, number, row) in enumerate(rows):
            look: dict[str, Any] = {"color": colors.of(number), "marker": "o", "ms": 6, "capsize": 3, "lw": 2}
            axes.errorbar(row.mean, place, xerr=row.ci95_tasks, **look)
            if paper := row.published:
                look = {"color": colors.faint, "marker": "D", "ms": 5, "mfc": "none", "mec": colors.ink, "capsize": 2}
                axes.errorbar(paper.mean, place + 0.25, xerr=paper.ci95, lw=1.2, **look)
        axes.set_yticks(range(len(rows)), [_shorten(name) for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel=LABELS[metric])
        if metric == "accuracy" or max(means) > 20 * min(means):
            format_axis(axes, "x", metric, minor=(1, 0.4))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)

    return draw(alt, 1.0 + 0.42 * len(rows), paint)


def draw_histograms(alt: str, metric: Metric, rows: Sequence[tuple[str, int, list[float]]]) -> Picture:
    """The distribution of a metric over test tasks, a panel for each row: its name, its number, each task's metric."""
    names = [_shorten(name) for name, *_ in rows]
    columns = min(3, len(rows), 96 // (max(map(len, names)) + 4))
    edges = edges_of([value for *_, each in rows for value in each], logarithmic=metric == "mse")

    def paint(figure: Figure, colors: Colors) -> None:
        grid = figure.subplots(math.ceil(len(rows) / columns), columns, sharex=True, sharey=True, squeeze=False).ravel()
        format_axis(grid[0], "x", metric, minor=(1, 0.4))  # which all share
        for axes in grid[len(rows) :]:
            axes.set_visible(False)
        for axes, name, (_, number, each) in zip(grid, names, rows, strict=False):
            clipped = np.clip(each, edges[0], edges[-1])
            axes.hist(clipped, bins=edges, color=colors.of(number), alpha=0.85, weights=[1 / len(each)] * len(each))
            axes.set_title(name)
            axes.grid(axis="y")
        for axes in grid[len(rows) - columns : len(rows)]:  # the lowest of each column
            axes.set_xlabel(LABELS[metric])
            axes.tick_params(labelbottom=True)
        figure.supylabel("share of tasks", fontsize="medium")

    return draw(alt, 0.6 + 1.8 * math.ceil(len(rows) / columns), paint)


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
