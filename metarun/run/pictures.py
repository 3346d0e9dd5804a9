"""The pictures of a run, drawn when it ends: curve.png, and examples.png with test tasks to look at."""

import logging
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from metarun.data.inputs import describe_inputs
from metarun.engine.loop import Experiment
from metarun.files import write_atomically
from metarun.models.functional import Params
from metarun.run.axes import LABELS, format_axis
from metarun.run.drawings import INK, Tiles, draw_function, drawing_functions, to_png, to_tiles_png
from metarun.run.words import title
from metarun.storage.metrics import Event
from metarun.storage.records import Summary, Test
from metarun.tasks import Task
from metarun.text import count_of, reason

SEARCHED = 100  # test tasks among which a solved one and one with a mistake are looked for
TILES = 40  # images of a task's support set, and of its query set
PER_ROW = 7
LETTERS = 125  # of a line of a title, as wide as a picture
PANEL = 4.7  # inches: the width of a task in a picture of two
MARGIN = 0.36  # inches: above the support set
GRID = 200  # points of a function's picture

log = logging.getLogger("metarun")


def draw_curves(events: Sequence[Event], summary: Summary, path: Path) -> None:
    """Draws the metric over outer steps, and the test metric over inner steps with its 95% interval.

    Args:
        events: of metrics.jsonl; without those of training only the adaptation curve is drawn.
        summary: of the run or the evaluation.
        path: of the PNG file, replaced as a whole.
    """
    lines = wrap(title(summary), LETTERS)
    more = 0.2 * (len(lines) - 1)  # inches
    figure = Figure(figsize=(11, 4.2 + more))
    figure.suptitle("\n".join(lines), fontsize=11, parse_math=False)
    training = [event for event in events if event.split != "test"]
    *left, right = _make_panels(figure, 2 if training else 1, top=0.66 + more)
    for axes in (*left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(ylabel=LABELS[summary.metric])
        format_axis(axes, "y", summary.metric)
        axes.grid(alpha=0.3)
    for axes in left:
        _draw_training(axes, training)
    _draw_adaptation(right, summary.test)
    write_atomically(path, to_png(figure, dpi=120))


def _make_panels(figure: Figure, panels: int, top: float, bottom: float = 0.5) -> list[Axes]:
    """Panels side by side, with room for what lies around them, in inches. A layout engine would draw all twice."""
    width, height = figure.get_size_inches()
    left, right = 0.85, 0.15
    between = (left + right) / (width / panels - left - right)
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height, between)
    return list(figure.subplots(1, panels, squeeze=False)[0])


def _draw_training(axes: Axes, events: list[Event]) -> None:
    axes.set(title="meta-training", xlabel="outer step")
    train, val = ([event for event in events if event.split == split] for split in ("train", "val"))
    if train:
        label = "train, one meta-batch, training's inner steps"
        axes.plot([event.step for event in train], [event.value for event in train], color="0.7", lw=1, label=label)
    if val:
        points = zip(*((event.step, event.value, event.ci95 or 0) for event in val), strict=True)
        label = f"val, {count_of(len(val[0].by_step) - 1, 'inner step')}, 95% interval"
        axes.errorbar(*points, color="tab:blue", marker="o", ms=3, capsize=2, label=label)
    axes.legend(frameon=False)


def _draw_adaptation(axes: Axes, test: Test) -> None:
    axes.set(title="adaptation to a new task", xlabel="inner step")
    points = zip(*((step, point.mean, point.ci95) for step, point in enumerate(test.by_step)), strict=True)
    label = f"test, {test.tasks} tasks, 95% interval"
    axes.errorbar(*points, color="tab:red", marker="o", ms=4, capsize=3, label=label)
    axes.legend(frameon=False)
    if len(test.by_step) == 1:
        axes.set(title="new tasks, without inner steps", xlim=(-1, 1), xticks=[0])


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
        write_atomically(path, to_tiles_png(figure, f"{'; '.join(words)}."))
    except Exception as error:
        log.warning("no picture of test tasks: %s", reason(error))


@torch.no_grad()
def _predict(experiment: Experiment, meta: Params, task: Task) -> Tensor:
    """[K+1, Q, N]: the outputs on one task's queries after 0..K inner steps, on the CPU."""
    return experiment.algorithm.predictions(meta, task).float().cpu()


def _draw_functions(experiment: Experiment, meta: Params, tasks: int) -> tuple[Figure, list[str]]:
    """The first test tasks as functions, before and after inner steps; with words for each."""
    words = []
    with drawing_functions():
        figure = Figure(figsize=(PANEL * tasks, 3.7))
        batch = experiment.source.on_grid(experiment.seed, "test", torch.arange(tasks), GRID)
        panels = _make_panels(figure, tasks, top=0.35, bottom=0.75)
        for number, axes in enumerate(panels):
            task = batch.select(number)
            outputs, task = _predict(experiment, meta, task), task.to(torch.device("cpu"))
            last = len(outputs) - 1
            errors = {step: float((outputs[step] - task.query_y).square().mean()) for step in {0, last}}
            when = {0: " before", last: f" after {last} steps"} if last else {0: ""}
            said = [f"{error:.3g}{when[step]}" for step, error in errors.items()]
            words.append(f"Test task {number}: error {', '.join(said)}")
            axes.set_title(words[-1], fontsize=9, weight="bold", loc="left")
            grid, truth, *support = (
                part[:, 0].numpy() for part in (task.query_x, task.query_y, task.support_x, task.support_y)
            )
            draw_function(axes, grid, outputs[..., 0].numpy(), (support[0], support[1]), truth)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="lower center", ncols=6, frameon=False)
    return figure, words


def _draw_images(experiment: Experiment, meta: Params, each: Sequence[float]) -> tuple[Figure, list[str]]:
    """The first test task that was solved and the first with a mistake, side by side; with words for each."""
    solved = [value == 1 for value in each[:SEARCHED]]
    numbers = sorted(solved.index(kind) for kind in {*solved})
    tasks = [experiment.source.sample(experiment.seed, "test", torch.tensor([n])).select(0) for n in numbers]
    inputs = describe_inputs(experiment.source)
    ink = inputs.get("invert", inputs["shape"][0] == 1)
    drawn = []
    for number, task in zip(numbers, tasks, strict=True):
        answers, truth = _predict(experiment, meta, task)[-1].argmax(dim=-1), task.query_y.cpu()
        wrong = int((answers != truth).sum())
        words = f"Test task {number}: {f'{wrong} of {len(truth)} wrong' if wrong else f'all {len(truth)} right'}"
        support = _tiles(task.support_x, task.support_y, task.support_y, ink)
        drawn.append((words, support, _tiles(task.query_x, answers, truth, ink)))
    (_, support, queries), total = drawn[0], (len(tasks[0].support_y), len(tasks[0].query_y))
    per_row = min(PER_ROW, max(len(support.images), len(queries.images)))
    below = MARGIN + support.height(per_row) + 0.04
    height = below + queries.height(per_row) + 0.15
    figure = Figure(figsize=(2 * PANEL, height))
    axes = figure.add_axes((0, 0, 1, 1))  # in inches from the upper left
    more = [f" (the first {TILES} of {number})" if number > TILES else "" for number in total]
    for place, (words, support, queries) in enumerate(drawn):
        left = 0.1 + place * PANEL
        axes.text(left, 0.08, words, color=INK, weight="bold", fontsize=10, va="top")
        support.draw(axes, left, MARGIN, per_row, f"Support: what is learned from{more[0]}")
        queries.draw(axes, left, below, per_row, f"Queries: what they are taken for{more[1]}")
    axes.set(xlim=(0, 2 * PANEL), ylim=(height, 0))
    axes.set_axis_off()
    return figure, [words for words, *_ in drawn]


def _tiles(images: Tensor, taken: Tensor, truth: Tensor, ink: bool) -> Tiles:
    """The first images of a task, whose classes are letters."""
    names = ([_letter(number) for number in part[:TILES].tolist()] for part in (taken, truth))
    return Tiles(images[:TILES].cpu().numpy(), *names, ink=ink)


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else str(number + 1)
