"""Curves and bars for a report, drawn by matplotlib twice: for a light page and for a dark one."""

import base64
import io
import itertools
import statistics
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarun.run.pictures import PlainNumbers, label_axes, label_of, scale_of
from metarun.storage.records import Metric

WIDTH = 7.2  # inches
WIDE = 30  # the ratio of the largest to the smallest swept value from which on its axis is logarithmic
LONGEST_NAME = 40  # letters in a picture; the table has the whole name
DASHES = ("-", "--", ":", "-.")

Points = Sequence[tuple[float, float, float]]  # x, mean, ci95


@dataclass(frozen=True)
class Colors:
    """The colours of a page, as in report.html.j2: text, grid, and rows by their numbers."""

    ink: str
    faint: str
    rows: tuple[str, ...]

    def of(self, number: int) -> str:
        """The colour of a row; after eight they come again, with other dashes."""
        return self.rows[number % len(self.rows)]


LIGHT = Colors(
    ink="#1c2430",
    faint="#aab2bd",
    rows=("#1f6fb5", "#d1495b", "#1b8a74", "#c77700", "#7a4fa3", "#6a7480", "#9c5a2e", "#0f8ea8"),
)
DARK = Colors(
    ink="#e6eaf0",
    faint="#566170",
    rows=("#62a8e8", "#f0798a", "#4fc2a9", "#f0a63c", "#b48ce0", "#a3afbd", "#d29667", "#4fc3dc"),
)


@dataclass(frozen=True)
class Picture:
    """A picture as data addresses, for a light page and for a dark one, with its text for who cannot see it.

    Attributes:
        light: on a light page, and on paper.
        dark: on a dark page.
        alt: what it shows, with its numbers.
        width: in CSS pixels.
    """

    light: str
    dark: str
    alt: str
    width: int


@dataclass(frozen=True)
class Series:
    """A curve: its name, the number of its row (for the colour), and its points."""

    name: str
    number: int
    points: Points


@dataclass(frozen=True)
class Bar:
    """A row of a comparison: its name and number, its mean with interval, and the published ones if there are any."""

    name: str
    number: int
    mean: float
    ci95: float
    published: float | None = None
    published_ci95: float | None = None


def draw(alt: str, height: float, paint: Callable[[Figure, Colors], None]) -> Picture:
    """A picture of both colour schemes.

    Args:
        alt: what it shows.
        height: in inches.
        paint: draws into a figure, with these colours.
    """
    light, dark = (_draw_svg(height, paint, colors) for colors in (LIGHT, DARK))
    return Picture(light, dark, alt, round(WIDTH * 96))


def _draw_svg(height: float, paint: Callable[[Figure, Colors], None], colors: Colors) -> str:
    """The data address of an SVG."""
    style: dict[Any, Any] = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), colors.ink),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), colors.faint),
        **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False),
        **{"axes.facecolor": "none", "axes.titlesize": 9, "grid.linewidth": 0.6, "grid.alpha": 0.6, "font.size": 10},
        # Letters stay letters, in the fonts of the page as far as a picture can have them; the salt fixes its ids.
        **{"svg.fonttype": "none", "svg.hashsalt": "metarun", "font.family": ["DejaVu Sans", "sans-serif"]},
    }
    with rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # long names in a small picture
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        figure.patch.set_alpha(0)
        FigureCanvasSVG(figure)
        paint(figure, colors)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return f"data:image/svg+xml;base64,{base64.b64encode(out.getvalue()).decode()}"


def draw_lines(alt: str, metric: Metric, xlabel: str, series: Sequence[Series]) -> Picture:
    """Curves with their intervals as bands."""
    places = [point[0] for line in series for point in line.points]
    counts = all(type(x) is int for x in places)
    logarithmic = min(places) > 0 and max(places) >= WIDE * min(places) and not counts
    scale = scale_of(metric)
    names = [_shorten(line.name) for line in series]
    columns = max(1, min(3, len(names), 90 // (max(map(len, names)) + 8)))

    def paint(figure: Figure, colors: Colors) -> None:
        axes = figure.subplots()
        for line, name in zip(series, names, strict=True):
            x, mean, ci95 = (list(column) for column in zip(*line.points, strict=True))
            mean, ci95 = [scale * value for value in mean], [scale * value for value in ci95]
            color, dashes = colors.of(line.number), DASHES[line.number // len(colors.rows) % len(DASHES)]
            axes.plot(x, mean, marker="o", ms=4 if len(x) < 15 else 0, label=name, color=color, ls=dashes, lw=1.8)
            low = [max(a - b, a / 10) if metric == "mse" else a - b for a, b in zip(mean, ci95, strict=True)]
            high = [a + b for a, b in zip(mean, ci95, strict=True)]
            axes.fill_between(x, low, high, color=color, alpha=0.15, lw=0)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(PlainNumbers())
            axes.xaxis.set_minor_formatter(PlainNumbers(minor_thresholds=(2, 0.5)))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=counts))
        label_axes(axes, metric, xlabel)
        axes.grid(axis="y")
        if metric == "mse":  # a curve that has left all bounds would make the others a line
            axes.set_ylim(top=min(axes.get_ylim()[1], top_of_frame(series)))
        figure.legend(loc="outside lower center", ncols=columns, fontsize=9)

    return draw(alt, 3.4 + 0.2 * -(-len(series) // columns), paint)


def top_of_frame(series: Iterable[Series]) -> float:
    """The largest error that is drawn: a thousand times the median."""
    return 1000 * statistics.median(point[1] for line in series for point in line.points)


def _shorten(name: str) -> str:
    """A name that fits, without its middle where it is too long: names begin alike."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME // 3]}…{name[-(LONGEST_NAME - LONGEST_NAME // 3 - 1) :]}"


def draw_bars(alt: str, metric: Metric, bars: Sequence[Bar]) -> Picture:
    """Means with their intervals, one below the other; published ones as hollow diamonds."""
    scale = scale_of(metric)

    def paint(figure: Figure, colors: Colors) -> None:
        axes = figure.subplots()
        for place, bar in enumerate(bars):
            look = {"color": colors.of(bar.number), "marker": "o", "ms": 6, "capsize": 3, "lw": 2}
            axes.errorbar(scale * bar.mean, place, xerr=scale * bar.ci95, **look)
            if bar.published is not None:
                width = scale * bar.published_ci95 if bar.published_ci95 else None
                look = {"color": colors.faint, "marker": "D", "ms": 5, "mfc": "none", "mec": colors.ink, "capsize": 2}
                axes.errorbar(scale * bar.published, place + 0.25, xerr=width, lw=1.2, **look)
        axes.set_yticks(range(len(bars)), [_shorten(bar.name) for bar in bars])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        if metric == "mse" and max(bar.mean for bar in bars) > 20 * min(bar.mean for bar in bars):
            _make_logarithmic(axes)
        axes.set(xlabel=label_of(metric))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)

    return draw(alt, 1.0 + 0.42 * len(bars), paint)


def draw_histograms(alt: str, metric: Metric, rows: Sequence[tuple[str, int, list[float]]]) -> Picture:
    """The distribution of a metric over test tasks, a panel for each row, on common axes.

    Args:
        alt: what it shows.
        metric: of the tasks.
        rows: for each its name, its number, and the metric of each test task.
    """
    scale = scale_of(metric)
    names = [_shorten(name) for name, *_ in rows]
    columns = max(1, min(3, len(rows), 96 // (max(map(len, names)) + 4)))
    edges = edges_of([scale * value for _, _, each in rows for value in each], logarithmic=metric == "mse")

    def paint(figure: Figure, colors: Colors) -> None:
        grid = figure.subplots(-(-len(rows) // columns), columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(rows) :]:
            axes.set_visible(False)
        for axes, name, (_, number, each) in zip(grid.flat, names, rows, strict=False):
            if metric == "mse":
                _make_logarithmic(axes)
            clipped = [min(max(scale * value, edges[0]), edges[-1]) for value in each]
            axes.hist(clipped, bins=edges, color=colors.of(number), alpha=0.85, weights=[1 / len(each)] * len(each))
            axes.set_title(name)
            axes.grid(axis="y")
        for axes in grid.flat[max(0, len(rows) - columns) : len(rows)]:  # the lowest of each column
            axes.set_xlabel(label_of(metric))
            axes.tick_params(labelbottom=True)
        for axes in grid[:, 0]:
            axes.set_ylabel("share of tasks")

    return draw(alt, 0.6 + 1.8 * -(-len(rows) // columns), paint)


def _make_logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(PlainNumbers())
    axes.xaxis.set_minor_formatter(PlainNumbers(minor_thresholds=(1, 0.4)))


def edges_of(values: list[float], logarithmic: bool) -> list[float]:
    """The edges of a histogram's bars.

    Of errors thirty bars on a logarithmic axis; of accuracies (in %) a bar for each that is possible, but twenty where
    tasks have many queries.
    """
    if logarithmic:
        middle = statistics.median(values)  # the outermost bars hold all that is 10,000 times away from it
        top = min(max(values), 1e4 * middle) * 1.0001
        low = max(min(values), 1e-4 * middle, 1e-30)
        top = max(top, 2 * low)  # where all are alike
        return [low * (top / low) ** (n / 30) for n in range(31)]
    levels = sorted({round(value, 6) for value in [*values, 0.0, 100.0]})
    gap = min(b - a for a, b in itertools.pairwise(levels))
    bars = round(100 / gap) if gap >= 4 and abs(100 / gap - round(100 / gap)) < 1e-3 else 20
    return [100 / bars * (n - 0.5) for n in range(bars + 2)]
