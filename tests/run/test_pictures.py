"""curve.png and examples.png: drawn when a run ends, from what was tested, and without consequences for the run."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from metarun.algos.maml import MAML
from metarun.data.sinusoid import Sinusoid
from metarun.engine.engine import Engine
from metarun.engine.loop import Experiment
from metarun.models import MLP
from metarun.run.drawings import GAP, HEADING, TILE, Tiles, to_png
from metarun.run.pictures import draw_curves, draw_examples
from metarun.storage.metrics import Event
from metarun.storage.records import Summary
from metarun.tasks import Task

SUMMARY = {"title": "MAML on x, $_$ steps", "metric": "mse", "settings": {}}
POINT = {"mean": 1.0, "ci95": 0.1}


def _experiment(source, algorithm=None):
    source.prepare(torch.device("cpu"))
    algorithm = algorithm or MAML(MLP(source.input_shape, source.outputs, hidden=[8]), inner_lr=0.01, inner_steps=1)
    return Experiment(algorithm, source, Engine(), torch.device("cpu"), 3)


class Letters:
    """Three classes of images, each told by the pixel that is black; queries of task 2 and of task 5 are another class."""

    input_shape, outputs, metric = (1, 4, 4), 3, "accuracy"

    def prepare(self, device):
        pass

    def sample(self, seed, split, index):
        assert split == "test"
        x = torch.zeros(len(index), 3, 1, 4, 4)
        for label in range(3):
            x[:, label, 0, label, label] = 1
        y = torch.arange(3).expand(len(index), 3)
        wrong = torch.tensor([int(n) in (2, 5) for n in index])[:, None]
        return Task(x, y, x, torch.where(wrong, y.roll(1, dims=1), y), index)


class Pixels:
    """An algorithm that takes an image for the class whose pixel is black."""

    def predictions(self, meta, task):
        return torch.stack([task.query_x[:, 0, n, n] for n in range(3)], dim=-1)[None]


def _words(path):
    with Image.open(path) as image:
        image.load()
        return image.text["Description"], image


def test_functions_are_drawn_with_their_errors(tmp_path):
    experiment = _experiment(Sinusoid(shots=4))
    meta = experiment.algorithm.init()
    draw_examples(experiment, meta, [1.0] * 6, tmp_path / "examples.png")
    words, image = _words(tmp_path / "examples.png")
    for number in (0, 1):
        grid = experiment.source.on_grid(3, "test", torch.arange(2), 200).select(number)
        outputs = experiment.algorithm.predictions(meta, grid)
        first, last = ((outputs[k] - grid.query_y).square().mean().item() for k in (0, -1))
        assert f"Test task {number}: error {first:.3g} before, {last:.3g} after {len(outputs) - 1} steps" in words
    assert image.convert("RGBA").getpixel((2, 2))[3] == 0, "transparent, for a page of any colour"


def test_of_images_the_first_solved_task_and_the_first_with_a_mistake_are_drawn(tmp_path):
    experiment = _experiment(Letters(), Pixels())
    path = tmp_path / "examples.png"
    draw_examples(experiment, {}, [1.0, 1.0, 0.0, 1.0, 1.0, 0.0], path)
    words, image = _words(path)
    assert words == "Test task 0: all 3 right; Test task 2: 3 of 3 wrong."
    red = sum(
        count for count, (r, g, b, a) in image.convert("RGBA").getcolors(1 << 20) if a == 255 and r > 200 and g < 120
    )
    assert red > 500, "mistakes are framed"
    draw_examples(experiment, {}, [1.0, 1.0], path)
    assert _words(path)[0] == "Test task 0: all 3 right."


@pytest.mark.parametrize(("ink", "seen"), [(True, (255, 51, 0)), (False, (0, 204, 255))])
def test_tiles_look_as_the_users_images_do(ink, seen):
    figure = Figure(figsize=(1, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    pixels = np.array([0, 0.8, 1]).reshape(1, 3, 1, 1)
    Tiles(pixels, ["a long name"], ["another"], [0.6], ink).draw(axes, 0, 0, 1, "")
    axes.set(xlim=(0, 1), ylim=(1, 0))
    image = Image.open(io.BytesIO(to_png(figure, dpi=100))).convert("RGB")
    left = (Tiles(pixels, ["a long name"], ["another"], [0.6]).pitch - TILE - GAP) / 2
    assert image.getpixel((int(100 * (left + TILE / 2)), int(100 * (HEADING + TILE / 2)))) == pytest.approx(seen, abs=1)


def test_other_tasks_have_no_picture(tmp_path):
    source = Letters()
    source.input_shape = (4,)
    draw_examples(_experiment(source, Pixels()), {}, [1.0], tmp_path / "examples.png")
    assert not list(tmp_path.iterdir())


def test_drawing_changes_nothing(tmp_path):
    experiment = _experiment(Sinusoid(shots=4))
    meta = experiment.algorithm.init()
    before = {name: value.clone() for name, value in meta.items()}
    state = torch.get_rng_state()
    draw_examples(experiment, meta, [1.0] * 6, tmp_path / "examples.png")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) and value.grad is None for name, value in meta.items())


class Broken(Pixels):
    def __init__(self, error):
        self.error = error

    def predictions(self, meta, task):
        raise self.error


def test_a_picture_that_cannot_be_drawn_fails_no_run(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="metarun"):
        draw_examples(_experiment(Letters(), Broken(RuntimeError("out of memory"))), {}, [1.0], tmp_path / "e.png")
    assert "no picture of test tasks: out of memory" in caplog.text
    draw_examples(_experiment(Letters(), Pixels()), {}, [1.0], tmp_path / "nowhere/e.png")


def test_a_signal_still_stops_the_run(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        draw_examples(_experiment(Letters(), Broken(KeyboardInterrupt())), {}, [1.0], tmp_path / "e.png")


@pytest.mark.parametrize("metric", ["mse", "accuracy"])
@pytest.mark.parametrize("steps", [1, 6])
def test_curves_are_drawn_with_and_without_training(tmp_path, metric, steps):
    test = {metric: {**POINT, "tasks": 4, "by_step": [POINT] * steps}}
    summary = Summary.from_json(json.dumps({**SUMMARY, "metric": metric, "test": test}))
    events = [
        Event(1, "train", 0.5, 1.0),
        Event(2, "val", 0.4, None, 0.1, [0.4]),
        Event(2, "test", 0.4, None, 0.1, [0.4]),
    ]
    sizes = []
    for drawn in (events, events[:1], []):
        draw_curves(drawn, summary, tmp_path / "curve.png")
        sizes.append(Image.open(io.BytesIO((tmp_path / "curve.png").read_bytes())).size)
    assert sizes == [(1320, 504)] * 3


def test_a_long_title_has_lines_that_fit(tmp_path, monkeypatch):
    """Measured in pixels of the picture, which is no wider."""
    words = " ".join(["queries: 1, trained with ways: 3,"] * 9)
    summary = Summary.from_json(
        json.dumps({**SUMMARY, "title": words, "test": {"mse": {**POINT, "tasks": 4, "by_step": [POINT]}}})
    )
    drawn = []
    monkeypatch.setattr(
        "metarun.run.pictures.to_png", lambda figure, dpi: drawn.append(figure) or to_png(figure, dpi=dpi)
    )
    draw_curves([], summary, tmp_path / "curve.png")
    (figure,) = drawn
    assert figure.get_suptitle().replace("\n", " ") == words
    box, top = figure._suptitle.get_window_extent(), figure.axes[0].title.get_window_extent().y1
    assert 0 < box.x0 < box.x1 < figure.bbox.width
    assert box.y0 > top


def test_a_grid_shows_the_same_wave():
    source = Sinusoid(shots=4, queries=6, eval_shots=3)
    index = torch.arange(5)
    task, grid = source.sample(2, "test", index), source.on_grid(2, "test", index, 501)
    assert torch.equal(task.support_x, grid.support_x)
    assert torch.equal(task.support_y, grid.support_y)
    assert grid.query_x[0, 0] == -5
    assert grid.query_x[0, -1] == 5
    places = ((task.query_x[..., 0] + 5) * 50).round().long()
    near = grid.query_y[..., 0].gather(1, places)
    assert (near - task.query_y[..., 0]).abs().max() < 5 * 0.011, "the slope is at most the amplitude, 5"


def test_omniglot_has_a_picture(omniglot, tmp_path):
    from metarun.algos.protonet import ProtoNet
    from metarun.models import Conv4

    source = omniglot(queries=3)
    experiment = _experiment(source, ProtoNet(Conv4(source.input_shape, source.outputs, filters=4)))
    draw_examples(experiment, experiment.algorithm.init(), [0.8, 0.8, 1.0], Path(tmp_path, "e.png"))
    assert _words(tmp_path / "e.png")[0].startswith("Test task 0: ")
