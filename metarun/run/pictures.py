"""The pictures of a run, drawn when it ends: curve.png, and examples.png with test tasks to look at.

Imports torch only where examples are drawn, so that reports can share the axes.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogFormatter, MaxNLocator

from metarun.errors import StoppedError
from metarun.files import write_atomically
from metarun.run.words import title
from metarun.storage.records import Metric, Summary, Test
from metarun.text import count_of, reason

if TYPE_CHECKING:
    from torch import Tensor

    from metarun.engine.loop import Experiment
    from metarun.models.functional import Params
    from metarun.storage.metrics import Event
    from metarun.tasks import Task

SEARCHED = 100  # test tasks among which a solved one and one with a mistake are looked for
TILES = 40  # images of a task's support set, and of its query set
PER_ROW = 7
PANEL = 4.7  # inches: the width of a task in a picture of two
TILE, GAP, TILE_ROW = 0.52, 0.14, 0.86  # inches: a tile's side, what is between, a row with the words below
GRID = 200  # points of a function's picture
# Halfway between white and black, so that they can be read on a page of either.
INK, BEFORE, AFTER, WRONG = "#768291", "#3f8fd2", "#e0475b", "#e0475b"

log = logging.getLogger("metarun")


def draw_curves(events: Sequence[Event], summary: Summary, path: Path) -> None:
    """Draws the metric over outer steps, and the test metric over inner steps with its 95% interval.

    Args:
        events: of metrics.jsonl; without those of training only the adaptation curve is drawn.
        summary: of the run or the evaluation.
        path: of the PNG file, replaced as a whole.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(title(summary), fontsize=11, parse_math=False)
    training = [event for event in events if event.split != "test"]
    *left, right = figure.subplots(1, 2 if training else 1, squeeze=False)[0]
    for axes in left:
        _draw_training(axes, training, summary.metric)
    _draw_adaptation(right, summary.test, summary.metric)
    _save(figure, path, dpi=120)


def _save(figure: Figure, path: Path, **options: Any) -> None:
    FigureCanvasAgg(figure)
    image = io.BytesIO()
    figure.savefig(image, format="png", **options)
    write_atomically(path, image.getvalue())


def _draw_training(axes: Axes, events: list[Event], metric: Metric) -> None:
    scale = scale_of(metric)
    train = [(event.step, scale * event.value) for event in events if event.split == "train"]
    val = [event for event in events if event.split == "val"]
    if train:
        axes.plot(*zip(*train, strict=True), color="0.7", lw=1, label="train, one meta-batch, training's inner steps")
    if val:
        steps, means = [event.step for event in val], [scale * event.value for event in val]
        widths = [scale * (event.ci95 or 0) for event in val]
        label = f"val, {count_of(len(val[0].by_step) - 1, 'inner step')}, 95% interval"
        axes.errorbar(steps, means, widths, color="tab:blue", marker="o", ms=3, capsize=2, label=label)
    axes.set(title="meta-training")
    _finish(axes, metric, "outer step")


def _draw_adaptation(axes: Axes, test: Test, metric: Metric) -> None:
    scale = scale_of(metric)
    means, widths = [scale * point.mean for point in test.by_step], [scale * point.ci95 for point in test.by_step]
    label = f"test, {test.tasks} tasks, 95% interval"
    axes.errorbar(range(len(means)), means, widths, color="tab:red", marker="o", ms=4, capsize=3, label=label)
    axes.set(title="adaptation to a new task")
    _finish(axes, metric, "inner step")
    if len(means) == 1:
        axes.set(title="new tasks, without inner steps", xlim=(-1, 1), xticks=[0])


def _finish(axes: Axes, metric: Metric, xlabel: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    label_axes(axes, metric, xlabel)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def scale_of(metric: Metric) -> int:
    """100 for an accuracy, which is drawn in %, else 1."""
    return 100 if metric == "accuracy" else 1


def label_of(metric: Metric) -> str:
    """The label of a metric's axis."""
    return "accuracy (%)" if metric == "accuracy" else "mean squared error"


def label_axes(axes: Axes, metric: Metric, xlabel: str) -> None:
    """Labels a metric's curve, with a logarithmic axis for errors."""
    axes.set(xlabel=xlabel, ylabel=label_of(metric))
    if metric == "mse":
        axes.set_yscale("log")
        for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            set_formatter(PlainNumbers(minor_thresholds=(2, 0.5)))


class PlainNumbers(LogFormatter):
    """Writes 0.1 for 1e-01 on a logarithmic axis."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """See LogFormatter."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def draw_examples(experiment: Experiment, meta: Params, each: Sequence[float], path: Path) -> None:
    """Draws test tasks with the answers of the trained learner, on a transparent ground.

    Of images the first task that was solved and the first with a mistake; of functions tasks 0 and 1. Tasks of other
    kinds have no picture. What goes wrong here is logged, and fails no run.

    Args:
        experiment: that was tested, its source prepared.
        meta: the tested meta-parameters.
        each: the metric of each test task, in order.
        path: of the PNG file, replaced as a whole. Its `Description` says in words what it shows.
    """
    try:
        if hasattr(experiment.source, "on_grid"):
            figure, words = _draw_functions(experiment, meta, min(2, len(each)))
        elif experiment.source.metric == "accuracy" and len(experiment.source.input_shape) == 3:
            figure, words = _draw_images(experiment, meta, each)
        else:
            return
        _save(figure, path, dpi=150, transparent=True, metadata={"Description": words})
    except StoppedError:
        raise
    except Exception as error:
        log.warning("no picture of test tasks: %s", reason(error))


def _predict(experiment: Experiment, meta: Params, task: Task) -> Tensor:
    """[K+1, Q, N]: the outputs on one task's queries after 0..K inner steps, on the CPU."""
    import torch

    with torch.no_grad():
        return experiment.algorithm.predictions(meta, task).float().cpu()


def _draw_functions(experiment: Experiment, meta: Params, tasks: int) -> tuple[Figure, str]:
    """The first test tasks as functions, before and after inner steps; with words for who cannot see them."""
    import torch

    style = {"text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": INK}
    words = []
    with rc_context({**style, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(PANEL * tasks, 3.7), layout="constrained")
        batch = experiment.source.on_grid(experiment.seed, "test", torch.arange(tasks), GRID)
        panels = figure.subplots(1, tasks, squeeze=False)[0]
        for number, axes in enumerate(panels):
            task = batch.select(number)
            outputs, task = _predict(experiment, meta, task), task.to(torch.device("cpu"))
            last = len(outputs) - 1
            steps = sorted({step for step in (0, 1, 5, last) if step <= last})
            errors = {step: float((outputs[step] - task.query_y).square().mean()) for step in {0, last}}
            said = [f"{error:.3g} {f'after {step} steps' if step else 'before'}" for step, error in errors.items()]
            words.append(f"Test task {number}: error {', '.join(said)}")
            axes.set_title(words[-1], fontsize=9, weight="bold", loc="left")
            x = task.query_x[:, 0].tolist()
            axes.plot(x, task.query_y[:, 0].tolist(), color=INK, lw=1.2, label="truth")
            for step in steps:
                look = {"lw": 2.2, "color": AFTER} if step == last else {"lw": 1.3, "color": BEFORE}
                dashes = "-" if step == last else {0: ":", 1: "--"}.get(step, "-.")
                label = f"after {step}" if step else "before"
                axes.plot(x, outputs[step, :, 0].tolist(), ls=dashes, label=label, **look)
            points = (task.support_x[:, 0].tolist(), task.support_y[:, 0].tolist())
            axes.plot(*points, "o", color=INK, ms=5, label="support", zorder=5)
            axes.grid(axis="y", color=INK, alpha=0.25)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return figure, "; ".join(words) + "."


def _draw_images(experiment: Experiment, meta: Params, each: Sequence[float]) -> tuple[Figure, str]:
    """The first test task that was solved and the first with a mistake, side by side; with words for them."""
    import torch

    solved = [value == 1 for value in each[:SEARCHED]]
    numbers = sorted(solved.index(kind) for kind in {*solved})
    tasks = [experiment.source.sample(experiment.seed, "test", torch.tensor([n])).select(0) for n in numbers]
    support, queries = min(TILES, len(tasks[0].support_y)), min(TILES, len(tasks[0].query_y))
    per_row = min(PER_ROW, max(support, queries))
    rows = -(-support // per_row), -(-queries // per_row)
    height = 0.95 + TILE_ROW * sum(rows)
    figure = Figure(figsize=(2 * PANEL, height))
    axes = figure.add_axes((0, 0, 1, 1))  # in inches from the upper left
    words = []
    for place, (number, task) in enumerate(zip(numbers, tasks, strict=True)):
        answers = _predict(experiment, meta, task)[-1].argmax(dim=-1).tolist()
        truth, left = task.query_y.tolist(), 0.1 + place * PANEL
        wrong = sum(answer != y for answer, y in zip(answers, truth, strict=True))
        result = f"{wrong} of {len(truth)} wrong" if wrong else f"all {len(truth)} right"
        words.append(f"Test task {number}: {result}")
        axes.text(left, 0.08, words[-1], color=INK, weight="bold", fontsize=10, va="top")
        classes = [_letter(y) for y in task.support_y.tolist()]
        _draw_tiles(axes, (left, 0.36, per_row), "Support: what is learned from", task.support_x, classes, classes)
        below = (left, 0.6 + TILE_ROW * rows[0], per_row)
        taken, classes = [_letter(answer) for answer in answers], [_letter(y) for y in truth]
        _draw_tiles(axes, below, "Queries: what they are taken for", task.query_x, taken, classes)
    axes.set(xlim=(0, 2 * PANEL), ylim=(height, 0))
    axes.set_axis_off()
    return figure, "; ".join(words) + "."


def _draw_tiles(
    axes: Axes, place: tuple[float, float, int], heading: str, images: Tensor, taken: list[str], classes: list[str]
) -> None:
    """Images in rows below a heading, each with the class it is taken for; mistakes are framed."""
    left, top, per_row = place
    more = f" (the first {TILES} of {len(images)})" if len(images) > TILES else ""
    axes.text(left, top, heading + more, color=INK, fontsize=8, va="top")
    look: dict[str, Any] = {"cmap": "gray_r", "vmin": 0, "vmax": 1, "interpolation": "nearest", "aspect": "auto"}
    for n, (pixels, answer, truth) in enumerate(zip(images[:TILES].cpu(), taken, classes, strict=False)):
        x, y = left + (n % per_row) * (TILE + GAP), top + 0.2 + (n // per_row) * TILE_ROW
        channels_last = pixels.clamp(0, 1).permute(1, 2, 0).numpy()
        axes.imshow(channels_last, extent=(x, x + TILE, y + TILE, y), **look)
        wrong = answer != truth
        color, width, weight = (WRONG, 2, "bold") if wrong else (INK, 0.4, "normal")
        axes.add_patch(Rectangle((x, y), TILE, TILE, fill=False, ec=color, lw=width))
        words = f"✗ {answer}\nis {truth}" if wrong else answer
        axes.text(x + TILE / 2, y + TILE + 0.05, words, color=color, weight=weight, size=7.5, ha="center", va="top")


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else str(number + 1)
