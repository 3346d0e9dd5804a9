"""Adaptations that nothing was trained for: what a learner might have answered."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from metarun.data.given import Examples, Scale
from metarun.run.adapted import Adapted, Curve

CLASSES = ["cat", "dog"]


def _trained(**facts):
    return SimpleNamespace(path=Path("run"), support=None, facts=SimpleNamespace(name="run", summary=None, **facts))


def classified(truth, transductive=False, together=False, classes=CLASSES):
    """Four images: the first and the last are taken for the first of two classes."""
    images = np.linspace(0, 1, 4 * 9, dtype=np.float32).reshape(4, 1, 3, 3)
    sure = np.array([[0.75, 0.25], [0.25, 0.75], [0.25, 0.75], [0.75, 0.25]], dtype=np.float32)
    return Adapted(
        trained=_trained(metric="accuracy", inputs={"kind": "images", "invert": True, "shape": [1, 3, 3]}),
        classes=list(classes),
        support=Examples(["a.png", "b.png"], images[:2], list(classes)),
        queries=Examples([f"{n}.png" for n in range(4)], images, truth),
        outputs=np.stack([np.full((4, 2), 0.5), sure]),
        together=together,
        transductive=transductive,
    )


def regressed(truth, found, curve=False):
    """Rows of numbers x, with answers after no and after one inner step."""
    x = np.linspace(0, 1, len(truth), dtype=np.float32)[:, None]
    examples = Examples([str(n + 1) for n in range(len(x))], x, values=truth, cells={"x": [str(n) for n in x[:, 0]]})
    line = Curve(Scale("x"), x[:, 0], np.stack([x[:, 0], 2 * x[:, 0]]))
    return Adapted(
        trained=_trained(metric="mse", inputs={"kind": "numbers", "shape": [1]}),
        classes=None,
        support=examples,
        queries=examples,
        outputs=np.stack([np.zeros_like(found), found]),
        together=False,
        transductive=False,
        curve=line if curve else None,
    )
