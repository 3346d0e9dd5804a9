"""The axis of a metric, as the pictures of a run and of a report share it. Imports no torch."""

from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter

from metarun.storage.records import Metric

LABELS: dict[Metric, str] = {"accuracy": "accuracy (%)", "mse": "mean squared error"}


def format_axis(axes: Axes, name: str, metric: Metric, minor: tuple[float, float] = (2, 0.5)) -> None:
    """Formats an axis, `x` or `y`: accuracies, shares of 1, in %; errors on a logarithmic scale."""
    if metric == "mse":
        make_logarithmic(axes, name, minor)
    else:
        getattr(axes, f"{name}axis").set_major_formatter(lambda share, _: f"{100 * share:g}")


def make_logarithmic(axes: Axes, name: str, minor: tuple[float, float] = (2, 0.5)) -> None:
    """Gives an axis, `x` or `y`, a logarithmic scale with plain numbers; `minor` as in matplotlib's LogFormatter."""
    axes.set(**{f"{name}scale": "log"})
    axis = getattr(axes, f"{name}axis")
    axis.set_major_formatter(_PlainNumbers())
    axis.set_minor_formatter(_PlainNumbers(minor_thresholds=minor))


class _PlainNumbers(LogFormatter):
    """Writes 0.1 for 1e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""
