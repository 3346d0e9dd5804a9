"""The answers of a learner that was adapted to a task of the user's: predictions.csv, and a page to look at.

Q queries, N classes or outputs.
"""

import base64
import csv
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from metarun.data.given import Examples, scale_of_target
from metarun.results.page import render
from metarun.run import words
from metarun.run.adapted import Adapted, describe
from metarun.run.drawings import INK, Tiles, draw_function, drawing_functions, to_tiles_png
from metarun.text import count_of

MOST_TILES = 140  # images that are drawn, of the support set and of the queries
MOST_ROWS = 500  # that are listed; all are in predictions.csv
MOST_COLUMNS = 8  # of the inputs
LONGEST_NUMBER = 9  # letters
WIDTH = 9.4  # inches, of a picture


def to_csv(adapted: Adapted) -> bytes:
    """The answers as CSV: file or row, prediction, truth where it is known, and p(CLASS) for each class.

    Probabilities and values have as many digits as tell any two float32 apart. Of several outputs each has a column.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    first = "row" if adapted.queries.cells else "file"
    if adapted.classes:
        truth = ["truth"] if any(label is not None for label in adapted.queries.labels) else []
        writer.writerow([first, "prediction", *truth, *(f"p({name})" for name in adapted.classes)])
        for n, name in enumerate(adapted.queries.names):
            known = [adapted.queries.labels[n] or ""] if truth else []
            writer.writerow([name, adapted.taken[n], *known, *map(_spell, adapted.outputs[-1][n])])
    else:
        asked, values = adapted.outputs[-1], adapted.queries.values
        assert values is not None
        known = bool(np.isfinite(values).any())
        names = _name_outputs(asked.shape[1])
        truth = [f"truth{name}" for name in names] if known else []
        writer.writerow([first, *(f"prediction{name}" for name in names), *truth])
        for n, name in enumerate(adapted.queries.names):
            writer.writerow([name, *map(_spell, asked[n]), *(map(_spell, values[n]) if known else [])])
    return out.getvalue().encode(errors="surrogateescape")


def _name_outputs(count: int) -> list[str]:
    return [f" {n}" for n in range(count)] if count > 1 else [""]


def _spell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.9g}"


def to_html(adapted: Adapted) -> bytes:
    """The page: the support set, the queries with what they are taken for and how surely, mistakes marked."""
    first, *more = describe(adapted)
    summary = adapted.trained.facts.summary
    page = render(
        "answers.html.j2",
        title=first,
        lines=more,
        learner=words.title(summary) if summary else adapted.trained.facts.name,
        settings={"files": str(adapted.trained.path)} | (words.settings(summary) if summary else {}),
        pictures=list(_draw(adapted)),
        support=_list_support(adapted),
        queries=_list_queries(adapted),
    )
    return page.encode(errors="replace")


def _list_support(adapted: Adapted) -> dict[str, Any] | None:
    """The rows of the support set, as a table; None of images, and where they were not kept."""
    support = adapted.support
    if not support.cells:
        return None
    last = "class" if adapted.classes else scale_of_target(adapted.trained.facts.inputs).name
    rows = [[*_cells(support, n), _value(support, n)] for n in range(min(MOST_ROWS, len(support.names)))]
    return {"columns": ["row", *_columns(support), last], "rows": rows, "more": _more(support), "wrong": set()}


def _list_queries(adapted: Adapted) -> dict[str, Any]:
    """The queries as a table: what they are, what they are taken for, how surely, the truth, which are wrong."""
    queries, rows = adapted.queries, []
    names = ["taken for", "probability"] if adapted.classes else ["prediction"]
    known = adapted.judged is not None
    for n in range(min(MOST_ROWS, len(queries.names))):
        outputs = adapted.outputs[-1][n]
        taken = [adapted.taken[n], f"{outputs.max():.1%}"] if adapted.classes else [_numbers(outputs)]
        rows.append([*_cells(queries, n), *taken, *([_value(queries, n)] if known else [])])
    wrong = {n for n, right in enumerate(adapted.right) if right is False} if adapted.classes else set()
    first = "row" if queries.cells else "file"
    columns = [first, *_columns(queries), *names, *(["truth"] if known else [])]
    return {"columns": columns, "rows": rows, "more": _more(queries), "wrong": wrong}


def _columns(examples: Examples) -> list[str]:
    return list(examples.cells)[:MOST_COLUMNS]


def _cells(examples: Examples, n: int) -> list[str]:
    return [examples.names[n], *(_round(examples.cells[name][n]) for name in _columns(examples))]


def _round(cell: str) -> str:
    """A cell as it was written, but for digits of a number that only take up room."""
    if len(cell) <= LONGEST_NUMBER:
        return cell
    try:
        return f"{float(cell):.6g}"
    except ValueError:
        return cell


def _value(examples: Examples, n: int) -> str:
    """The class or the value of an example; '' where it is not known."""
    return (examples.labels[n] or "") if examples.values is None else _numbers(examples.values[n])


def _numbers(values: np.ndarray) -> str:
    return ", ".join("" if np.isnan(value) else f"{value:.4g}" for value in values)


def _more(examples: Examples) -> str:
    left = len(examples.names) - MOST_ROWS
    return f"{count_of(left, 'more row')} not shown" if left > 0 else ""


def _draw(adapted: Adapted) -> Iterator[tuple[str, str, str]]:
    """Heading, data address and words of each picture: the images, or the function of one number."""
    inputs = adapted.trained.facts.inputs
    if adapted.curve is not None:
        yield f"The function{' before and after inner steps' * bool(adapted.steps)}", *_draw_curve(adapted)
    if not adapted.classes or len(inputs["shape"]) != 3:
        return
    ink = inputs.get("invert", inputs["shape"][0] == 1)
    support, queries = adapted.support, adapted.queries
    known = [label or "" for label in support.labels]
    yield "Support: what was learned from", *_draw_tiles(Tiles(support.x, known, known, ink=ink))
    sure = adapted.outputs[-1].max(axis=-1).tolist()
    yield (
        "Queries: what they are taken for",
        *_draw_tiles(Tiles(queries.x, adapted.taken, queries.labels, sure, ink=ink)),
    )


def _draw_tiles(tiles: Tiles) -> tuple[str, str]:
    total = len(tiles.images)
    tiles = Tiles(tiles.images[:MOST_TILES], tiles.taken, tiles.truth, tiles.sure, tiles.ink)
    per_row = max(1, int((WIDTH - 0.1) / tiles.pitch))
    height = 0.1 + tiles.height(per_row)
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    more = f"the first {MOST_TILES} of {count_of(total, 'image')}" if total > MOST_TILES else count_of(total, "image")
    tiles.draw(axes, 0.1, 0.02, per_row, more)
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    return _address(figure, more), more


def _draw_curve(adapted: Adapted) -> tuple[str, str]:
    """The function before and after inner steps, with the answers and, where it is known, the truth."""
    assert adapted.curve is not None
    assert adapted.support.values is not None
    assert adapted.queries.values is not None
    curve, support, queries = adapted.curve, adapted.support, adapted.queries
    words = f"The function of {curve.axis.name}"
    words += f" before and after {count_of(adapted.steps, 'inner step')}" if adapted.steps else ", as it was learned"
    with drawing_functions():
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        axes = figure.subplots()
        learned = curve.axis.to_user(support.x[:, 0]), support.values[:, 0]
        draw_function(axes, curve.places, curve.values, learned)
        if np.isfinite(queries.values).any():
            look = {"color": INK, "ms": 5, "label": "truth of queries"}
            axes.plot(curve.axis.to_user(queries.x[:, 0]), queries.values[:, 0], "x", **look)
        axes.set(xlabel=curve.axis.name, ylabel=scale_of_target(adapted.trained.facts.inputs).name)
        figure.legend(loc="outside lower center", ncols=6, frameon=False)
        return _address(figure, words), words


def _address(figure: Figure, words: str) -> str:
    return f"data:image/png;base64,{base64.b64encode(to_tiles_png(figure, words)).decode()}"
