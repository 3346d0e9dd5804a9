"""Curves and bars as SVG that follows the page's colours, light or dark: matplotlib draws, and names its colours.

Every colour here is a number that stands for a CSS variable; svg() puts the variables in their place.
"""

import io
import itertools
import re
import statistics
import warnings
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

WIDE = 30  # from where a swept setting has a logarithmic axis
LONGEST = 40  # letters of a name in a picture; the table has it whole
INK, FAINT = "#010101", "#020202"
SERIES = tuple(f"#0000{n:02x}" for n in range(1, 9))
_VARIABLES = {INK: "ink", FAINT: "faint"} | {c: f"s{n}" for n, c in enumerate(SERIES, start=1)}
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "grid.alpha": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def color(n: int) -> str:
    """The n-th series' colour; after eight they come again, with other dashes."""
    return SERIES[n % len(SERIES)]


def dashes(n: int) -> str:
    """The n-th series' line style."""
    return ("-", "--", ":", "-.")[n // len(SERIES) % 4]


def svg(name: str, alt: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """An <svg> element.

    Args:
        name: unique in the page, a word.
        alt: what it shows, in a sentence.
        size: width and height in inches; it is shown as wide as the page lets it.
        draw: draws into the figure.
    """
    style: dict[Any, Any] = {**STYLE, "svg.hashsalt": name}  # the salt makes ids that do not change
    with rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # long words in a small picture
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        FigureCanvasSVG(figure)
        draw(figure)
        out = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=metadata)
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for number, variable in _VARIABLES.items():
        text = re.sub(number, f"var(--{variable})", text, flags=re.IGNORECASE)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\1{name}-", text)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    label = escape(alt, quote=True)
    width = f"max-width:{size[0] * 96:.0f}px"
    return text.replace("<svg", f'<svg role="img" aria-label="{label}" style="{width}"', 1).strip()


def finish(axes: Axes, metric: str, xlabel: str) -> None:
    """Labels, a grid, and for errors a logarithmic axis."""
    axes.set(xlabel=xlabel, ylabel=label(metric))
    if metric == "mse":
        axes.set_yscale("log")
        for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            which(_PlainNumbers(minor_thresholds=(2, 0.5)))
    axes.set_facecolor("none")
    axes.grid(axis="y")


class _PlainNumbers(LogFormatter):
    """0.1 for 1e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def label(metric: str) -> str:
    """An axis."""
    return "accuracy (%)" if metric == "accuracy" else "mean squared error"


def lines(
    name: str,
    alt: str,
    metric: str,
    xlabel: str,
    series: Iterable[tuple[str, int, Sequence[tuple[float, float, float]]]],
) -> str:
    """Curves with their intervals as bands.

    Args:
        name: see svg().
        alt: see svg().
        metric: of the second axis.
        xlabel: of the first.
        series: for each curve what it is called, the number of its colour, and points (x, mean, ci95).
    """
    series = list(series)
    places = [point[0] for *_, points in series for point in points]
    logarithmic = min(places) > 0 and max(places) >= WIDE * min(places) and not all(type(x) is int for x in places)
    scale = 100 if metric == "accuracy" else 1

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for words, number, points in series:
            x, mean, ci95 = (list(column) for column in zip(*points, strict=True))
            mean, ci95 = [scale * value for value in mean], [scale * value for value in ci95]
            style = {"color": color(number), "ls": dashes(number), "lw": 1.8}
            axes.plot(x, mean, marker="o", ms=4 if len(x) < 15 else 0, label=_cut(words), **style)
            low = [max(a - b, a / 10) if metric == "mse" else a - b for a, b in zip(mean, ci95, strict=True)]
            high = [a + b for a, b in zip(mean, ci95, strict=True)]
            axes.fill_between(x, low, high, color=color(number), alpha=0.15, lw=0)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(_PlainNumbers())
        else:
            axes.xaxis.set_major_locator(
                MaxNLocator(7, steps=[1, 2, 5, 10], integer=all(type(x) is int for x in places))
            )
        finish(axes, metric, xlabel)
        if metric == "mse":  # one that has left all bounds would make the others a line
            axes.set_ylim(top=min(axes.get_ylim()[1], frame(series)))
        figure.legend(loc="outside lower center", ncols=columns, fontsize=9)

    columns = _columns([_cut(words) for words, *_ in series])
    return svg(name, alt, (7.2, 3.4 + 0.2 * -(-len(series) // columns)), draw)


def frame(series: Iterable[tuple[str, int, Sequence[tuple[float, float, float]]]]) -> float:
    """How far up errors are drawn."""
    return 1000 * statistics.median(point[1] for *_, points in series for point in points)


def _cut(words: str) -> str:
    """A name that fits, without its middle where it is too long: names begin alike. In it $ begins no formula."""
    if len(words) > LONGEST:
        words = f"{words[: LONGEST // 3]}…{words[-(LONGEST - LONGEST // 3 - 1) :]}"
    return words.replace("$", r"\$")


def _columns(names: list[str]) -> int:
    """How many names fit beside each other."""
    return max(1, min(3, len(names), 90 // (max(map(len, names)) + 8)))


def forest(
    name: str, alt: str, metric: str, rows: list[tuple[str, int, float, float, tuple[float, float | None] | None]]
) -> str:
    """Means with their intervals, one below the other; what a paper reports as a hollow diamond.

    Args:
        name: see svg().
        alt: see svg().
        metric: of the axis.
        rows: what each is called, its colour, mean, ci95, and the published mean and ci95 or None.
    """
    scale = 100 if metric == "accuracy" else 1

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (_, number, mean, ci95, published) in enumerate(rows):
            style = {"color": color(number), "marker": "o", "ms": 6, "capsize": 3, "lw": 2}
            axes.errorbar(scale * mean, place, xerr=scale * ci95, **style)
            if published:
                theirs, width = scale * published[0], scale * (published[1] or 0)
                bar = {"color": FAINT, "marker": "D", "ms": 5, "mfc": "none", "mec": INK, "lw": 1.2, "capsize": 2}
                axes.errorbar(theirs, place + 0.25, xerr=width or None, **bar)
        axes.set_yticks(range(len(rows)), [_cut(row[0]) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        if metric == "mse" and max(row[2] for row in rows) > 20 * min(row[2] for row in rows):
            axes.set_xscale("log")
        axes.set(xlabel=label(metric))
        axes.set_facecolor("none")
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)

    return svg(name, alt, (7.2, 1.0 + 0.42 * len(rows)), draw)


def histograms(name: str, alt: str, metric: str, rows: list[tuple[str, int, list[float]]]) -> str:
    """The distribution of a metric over test tasks, one panel for each row, on common axes."""
    scale = 100 if metric == "accuracy" else 1
    columns = max(1, min(3, len(rows), 96 // (max(len(_cut(row[0])) for row in rows) + 4)))
    lines_ = -(-len(rows) // columns)
    every = [scale * value for _, _, each in rows for value in each]
    logarithmic = metric != "accuracy"
    edges = _edges(every, logarithmic)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(lines_, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(rows) :]:
            axes.set_visible(False)
        for axes, (words, number, each) in zip(grid.flat, rows, strict=False):
            axes.set_xscale("log" if logarithmic else "linear")
            clipped = [min(max(scale * value, edges[0]), edges[-1]) for value in each]
            axes.hist(clipped, bins=edges, color=color(number), alpha=0.85, weights=[1 / len(each)] * len(each))
            axes.set_title(_cut(words), fontsize=9)
            axes.set_facecolor("none")
            axes.grid(axis="y")
        for axes in grid.flat[max(0, len(rows) - columns) : len(rows)]:  # the lowest of each column
            axes.set_xlabel(label(metric))
            axes.tick_params(labelbottom=True)
        for axes in grid[:, 0]:
            axes.set_ylabel("share of tasks")

    return svg(name, alt, (7.2, 0.6 + 1.8 * lines_), draw)


def _edges(values: list[float], logarithmic: bool) -> list[float]:
    """The edges of bars: of errors thirty on a logarithmic axis; of accuracies (in %) one for each that is possible.

    With many queries that would be many, and twenty are drawn.
    """
    if logarithmic:
        middle = statistics.median(values)  # beyond 10,000 times that the outermost bars have all
        top = min(max(values), 1e4 * middle) * 1.0001
        low = max(min(values), 1e-4 * middle, 1e-30)
        top = max(top, 2 * low)  # where all are alike
        return [low * (top / low) ** (n / 30) for n in range(31)]
    levels = sorted({round(value, 6) for value in [*values, 0.0, 100.0]})
    gap = min(b - a for a, b in itertools.pairwise(levels))
    bars = round(100 / gap) if gap >= 4 and abs(100 / gap - round(100 / gap)) < 1e-3 else 20
    return [100 / bars * (n - 0.5) for n in range(bars + 2)]


def function(
    name: str,
    alt: str,
    support: tuple[list[float], list[float]],
    truth: tuple[list[float], list[float]],
    after: dict[int, list[float]],
) -> str:
    """A function, the support points, and what the learner makes of it after some inner steps."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(*truth, color=INK, lw=1.2, label="truth")
        for place, (step, values) in enumerate(after.items()):
            last = place == len(after) - 1
            name = "before" if step == 0 else f"after {step}"
            style = {"lw": 2.2 if last else 1.3, "ls": "-" if last else (":", "--", "-.")[place % 3]}
            axes.plot(truth[0], values, color=color(1 if last else 0), label=name, **style)
        axes.plot(*support, "o", color=INK, ms=5, label="support", zorder=5)
        axes.set(xlabel="x", ylabel="y")
        axes.set_facecolor("none")
        axes.grid(axis="y")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)

    return svg(name, alt, (4.6, 3.4), draw)
