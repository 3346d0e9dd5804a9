"""The pictures of a run, drawn when it ends: curve.png, and examples.png with test tasks to look at."""

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from metarun.engine.loop import Experiment
from metarun.errors import StoppedError
from metarun.files import write_atomically
from metarun.models.functional import Params
from metarun.run.axes import LABELS, format_axis
from metarun.run.words import title
from metarun.storage.metrics import Event
from metarun.storage.records import Summary, Test
from metarun.tasks import Task
from metarun.text import count_of, reason

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
    for axes in (*left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(ylabel=LABELS[summary.metric])
        format_axis(axes, "y", summary.metric)
        axes.grid(alpha=0.3)
    for axes in left:
        _draw_training(axes, training)
    _draw_adaptation(right, summary.test)
    _save(figure, path, dpi=120)


def _save(figure: Figure, path: Path, **options: Any) -> None:
    image = io.BytesIO()
    figure.savefig(image, format="png", **options)
    write_atomically(path, image.getvalue())


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
        _save(figure, path, dpi=150, transparent=True, metadata={"Description": f"{'; '.join(words)}."})
    except StoppedError:
        raise
    except Exception as error:
        log.warning("no picture of test tasks: %s", reason(error))


@torch.no_grad()
def _predict(experiment: Experiment, meta: Params, task: Task) -> Tensor:
    """[K+1, Q, N]: the outputs on one task's queries after 0..K inner steps, on the CPU."""
    return experiment.algorithm.predictions(meta, task).float().cpu()


def _draw_functions(experiment: Experiment, meta: Params, tasks: int) -> tuple[Figure, list[str]]:
    """The first test tasks as functions, before and after inner steps; with words for each."""
    style = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), INK)
    words = []
    with rc_context({**style, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(PANEL * tasks, 3.7), layout="constrained")
        batch = experiment.source.on_grid(experiment.seed, "test", torch.arange(tasks), GRID)
        panels = figure.subplots(1, tasks, squeeze=False)[0]
        for number, axes in enumerate(panels):
            task = batch.select(number)
            outputs, task = _predict(experiment, meta, task), task.to(torch.device("cpu"))
            last = len(outputs) - 1
            names = {step: f"after {step}" if step else "before" for step in (0, 1, 5, last) if step <= last}
            errors = {step: float((outputs[step] - task.query_y).square().mean()) for step in {0, last}}
            said = [f"{error:.3g} {names[step]}{' steps' if step else ''}" for step, error in errors.items()]
            words.append(f"Test task {number}: error {', '.join(said)}")
            axes.set_title(words[-1], fontsize=9, weight="bold", loc="left")
            axes.plot(task.query_x[:, 0], task.query_y[:, 0], color=INK, lw=1.2, label="truth")
            for step, name in sorted(names.items()):
                dashes = {"ls": {0: ":", 1: "--"}.get(step, "-."), "lw": 1.3, "color": BEFORE}
                look = {"lw": 2.2, "color": AFTER} if step == last else dashes
                axes.plot(task.query_x[:, 0], outputs[step, :, 0], label=name, **look)
            axes.plot(task.support_x[:, 0], task.support_y[:, 0], "o", color=INK, ms=5, label="support", zorder=5)
            axes.grid(axis="y", color=INK, alpha=0.25)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return figure, words


def _draw_images(experiment: Experiment, meta: Params, each: Sequence[float]) -> tuple[Figure, list[str]]:
    """The first test task that was solved and the first with a mistake, side by side; with words for each."""
    solved = [value == 1 for value in each[:SEARCHED]]
    numbers = sorted(solved.index(kind) for kind in {*solved})
    tasks = [experiment.source.sample(experiment.seed, "test", torch.tensor([n])).select(0) for n in numbers]
    support, queries = min(TILES, len(tasks[0].support_y)), min(TILES, len(tasks[0].query_y))
    per_row = min(PER_ROW, max(support, queries))
    below = 0.6 + TILE_ROW * -(-support // per_row)
    height = below + 0.35 + TILE_ROW * -(-queries // per_row)
    figure = Figure(figsize=(2 * PANEL, height))
    axes = figure.add_axes((0, 0, 1, 1))  # in inches from the upper left
    words = []
    for place, (number, task) in enumerate(zip(numbers, tasks, strict=True)):
        answers, truth = _predict(experiment, meta, task)[-1].argmax(dim=-1), task.query_y.cpu()
        left = 0.1 + place * PANEL
        wrong = int((answers != truth).sum())
        words.append(f"Test task {number}: {f'{wrong} of {len(truth)} wrong' if wrong else f'all {len(truth)} right'}")
        axes.text(left, 0.08, words[-1], color=INK, weight="bold", fontsize=10, va="top")
        examples = (task.support_x, task.support_y, task.support_y)
        _draw_tiles(axes, (left, 0.36, per_row), "Support: what is learned from", *examples)
        examples = (task.query_x, answers, truth)
        _draw_tiles(axes, (left, below, per_row), "Queries: what they are taken for", *examples)
    axes.set(xlim=(0, 2 * PANEL), ylim=(height, 0))
    axes.set_axis_off()
    return figure, words


def _draw_tiles(
    axes: Axes, place: tuple[float, float, int], heading: str, images: Tensor, taken: Tensor, truth: Tensor
) -> None:
    """Images in rows below a heading, each with the class it is taken for; mistakes are framed."""
    left, top, per_row = place
    more = f" (the first {TILES} of {len(images)})" if len(images) > TILES else ""
    axes.text(left, top, heading + more, color=INK, fontsize=8, va="top")
    look: dict[str, Any] = {"cmap": "gray_r", "vmin": 0, "vmax": 1, "interpolation": "nearest", "aspect": "auto"}
    tiles = zip(images[:TILES].cpu().clamp(0, 1).movedim(1, -1), taken.tolist(), truth.tolist(), strict=False)
    for n, (pixels, answer, label) in enumerate(tiles):
        x, y = left + (n % per_row) * (TILE + GAP), top + 0.2 + (n // per_row) * TILE_ROW
        axes.imshow(pixels.numpy(), extent=(x, x + TILE, y + TILE, y), **look)
        right = answer == label
        color, width, weight = (INK, 0.4, "normal") if right else (WRONG, 2, "bold")
        axes.add_patch(Rectangle((x, y), TILE, TILE, fill=False, ec=color, lw=width))
        words = _letter(answer) if right else f"✗ {_letter(answer)}\nis {_letter(label)}"
        axes.text(x + TILE / 2, y + TILE + 0.05, words, color=color, weight=weight, size=7.5, ha="center", va="top")


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else str(number + 1)
