"""The part of a report that shows test tasks: drawings with the answers they got, functions before and after."""

import base64
import io
from html import escape

import numpy as np
from PIL import Image
from torch import Tensor

from metarun.errors import MetarunError
from metarun.results import figures
from metarun.results.curves import Entry
from metarun.results.examples import Example, NoCheckpointsError, examples
from metarun.results.page import figure

PICTURED = 6  # configurations whose tasks are shown
TILES = 50  # drawings of a task's support set, and of its query set
CLASSES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def tasks(metric: str, entries: list[Entry]) -> str:
    """What some of the runs make of test tasks."""
    parts, bare = [], []
    for entry in entries[:PICTURED]:
        run = entry.row.runs[0]
        try:
            cards = [_function(entry, e) if e.picture == "function" else _images(e) for e in examples(run)]
            content = f"<div class=pair>{''.join(cards)}</div>" if cards else ""
        except NoCheckpointsError:
            bare.append(entry.name)
            continue
        except MetarunError as error:
            content = f"<p class=dim>No pictures: {escape(str(error))}</p>"
        seed = f", seed {run.config.seed}" if len(entry.row.runs) > 1 else ""
        parts += [f"<h3>{escape(entry.name + seed)}</h3>{content}"] if content else []
    if bare:
        parts.append(f"<p class=dim>No pictures: there are no checkpoints of {escape(', '.join(bare))}.</p>")
    if parts and len(entries) > PICTURED:
        parts.append(f"<p class=dim>The first {PICTURED} configurations; the others are left out.</p>")
    return "".join(parts)


def _function(entry: Entry, example: Example) -> str:
    task, last = example.task, len(example.predictions) - 1
    steps = sorted({step for step in (0, 1, 5, 10, last) if step <= last})
    grid = task.query_x[:, 0].tolist()
    after = {step: example.predictions[step, :, 0].tolist() for step in steps}
    errors = {step: float((example.predictions[step] - task.query_y).square().mean()) for step in steps}
    said = ", ".join(f"{'before' if not k else f'after {k}'}: {error:.3g}" for k, error in errors.items())
    alt = f"Test task {example.number}: the true function and the learner's, with {len(task.support_x)} support points"
    picture = figures.function(
        f"function{entry.number}x{example.number}",
        alt,
        (task.support_x[:, 0].tolist(), task.support_y[:, 0].tolist()),
        (grid, task.query_y[:, 0].tolist()),
        after,
    )
    caption = f"Test task {example.number}. Mean squared error over the whole range: {said}."
    return f"<div class=task>{figure(picture, caption)}</div>"


def _images(example: Example) -> str:
    task = example.task
    answers = example.predictions[-1].argmax(dim=-1).tolist()
    support, truth = task.support_y.tolist(), task.query_y.tolist()
    learned = [
        _tile(x, f"support drawing of class {_letter(y)}", _letter(y))
        for x, y in zip(task.support_x, support, strict=True)
    ]
    judged = [
        _tile(x, f"query drawing of class {_letter(y)}, taken for {_letter(answer)}", *_answer(answer, y))
        for x, y, answer in zip(task.query_x, truth, answers, strict=True)
    ]
    wrong = sum(answer != y for answer, y in zip(answers, truth, strict=True))
    mistakes = f"{wrong} of {len(truth)} wrong" if wrong else f"all {len(truth)} right"
    more = "" if max(len(learned), len(judged)) <= TILES else f"<p class=dim>The first {TILES} of each.</p>"
    return (
        f"<div class=task><b>Test task {example.number}</b>: {mistakes}"
        f"<p class=dim>Support: what is learned from</p><div class=row>{''.join(learned[:TILES])}</div>"
        f"<p class=dim>Queries: what they are taken for</p><div class=row>{''.join(judged[:TILES])}</div>{more}</div>"
    )


def _answer(answer: int, truth: int) -> tuple[str, bool]:
    """What is written below a query, and whether it is a mistake."""
    return (_letter(answer), False) if answer == truth else (f"✗ {_letter(answer)}<br>is {_letter(truth)}", True)


def _letter(number: int) -> str:
    return CLASSES[number] if number < len(CLASSES) else str(number + 1)


def _tile(pixels: Tensor, alt: str, words: str, wrong: bool = False) -> str:
    gray = (pixels[0].clamp(0, 1).numpy() * 255).round().astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(gray).save(out, format="png", optimize=True)
    data = base64.b64encode(out.getvalue()).decode()
    kind = "tile wrong" if wrong else "tile"
    return (
        f'<div class="{kind}"><div class=frame><img src="data:image/png;base64,{data}" alt="{alt}"></div>{words}</div>'
    )
