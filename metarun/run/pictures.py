"""curve.png: meta-training on the left, adaptation to a new task on the right."""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from metarun.files import write_atomically
from metarun.run.words import title
from metarun.storage.metrics import Event
from metarun.storage.records import Summary, Test
from metarun.tasks import Metric


def draw_curves(events: list[Event], summary: Summary, path: Path) -> None:
    """Draws the metric over outer steps, and the test metric over inner steps with its 95% interval.

    Args:
        events: of metrics.jsonl; without those of training only the adaptation curve is drawn.
        summary: of the run or the evaluation.
        path: of the PNG file, replaced as a whole.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title(summary), fontsize=11)
    metric: Metric = summary.metric
    training = [event for event in events if event.split in ("train", "val")]
    if training:
        left, right = figure.subplots(1, 2)
        _training(left, training, metric)
    else:
        right = figure.subplots()
    _adaptation(right, summary.test, metric)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_atomically(path, image.getvalue())


def _training(axes: Axes, rows: list[Event], metric: Metric) -> None:
    scale = 100 if metric == "accuracy" else 1
    train = [(row.step, scale * row.value) for row in rows if row.split == "train"]
    inner_steps = next((len(row.by_step) - 1 for row in rows if row.split == "val"), 0)
    val = [(row.step, scale * row.value, scale * (row.ci95 or 0)) for row in rows if row.split == "val"]
    if train:
        axes.plot(*zip(*train, strict=True), color="0.7", lw=1, label="train, one meta-batch, training's inner steps")
    if val:
        steps, means, widths = zip(*val, strict=True)
        axes.errorbar(
            steps,
            means,
            widths,
            color="tab:blue",
            marker="o",
            ms=3,
            capsize=2,
            label=f"val, {inner_steps} inner steps, 95% interval",
        )
    axes.set(title="meta-training", xlabel="outer step", ylabel=_label(metric))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, metric)


def _adaptation(axes: Axes, test: Test, metric: Metric) -> None:
    scale = 100 if metric == "accuracy" else 1
    means = [scale * point.mean for point in test.by_step]
    widths = [scale * point.ci95 for point in test.by_step]
    label = f"test, {test.tasks} tasks, 95% interval"
    axes.errorbar(range(len(means)), means, widths, color="tab:red", marker="o", ms=4, capsize=3, label=label)
    axes.set(title="adaptation to a new task", xlabel="inner step", ylabel=_label(metric))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(means) == 1:
        axes.set(title="new tasks, without inner steps", xlim=(-1, 1), xticks=[0])
    _finish(axes, metric)


def _finish(axes: Axes, metric: Metric) -> None:
    if metric == "mse":
        axes.set_yscale("log")
        for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            which(LogFormatter(minor_thresholds=(2, 0.5)))  # 0.2 rather than 2×10⁻¹
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _label(metric: Metric) -> str:
    return "accuracy (%)" if metric == "accuracy" else "mean squared error"
