"""metarun adapt: a trained run learns from examples of your own, and answers: predictions.csv and adapt.html.

RUN is a run directory or an exported file. Of images, support= is a folder with a folder of images for each class, and
query= a file, a folder of files, or a folder like that of the support set, which is then judged as well (several files:
query=a.png query=b.png). Of all else both are tables with the columns of training (numbers: x and y, or x0, x1, ...),
the query's with the target or without. A file that save= has written has its support set in it: metarun adapt FILE
query=...

Examples:
    metarun adapt RUN support=letters query=unknown
    metarun adapt RUN support=points.csv query=grid.csv inner_steps=5 out=answers
    metarun adapt RUN support=letters query=unknown format=json
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from metarun.commands.common import RUN
from metarun.engine.ranks import refuse_several_processes
from metarun.errors import RunDirError, UsageError, describe_os_error
from metarun.text import nearest, printable, short_path

if TYPE_CHECKING:
    from metarun.data.given import Examples
    from metarun.run.adapted import Adapted
    from metarun.run.trained import Trained

PRINTS = "metarun.storage.learner_records.Adapted"
KEYS = ("support", "query", "inner_steps", "together", "invert", "save", "out", "format")
CSV, PAGE = "predictions.csv", "adapt.html"
REMEDY = "choose another out=FOLDER"

log = logging.getLogger("metarun")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A trained run, and what it is applied to."""
    parser.add_argument("run", metavar="RUN", help=f"{RUN}; or a file of an exported or adapted learner")
    words = (
        "support=, query=; inner_steps=N; together=true: queries share batch-norm statistics; invert=false: images are "
        "bright on dark already, where the run's were not; save=FILE"
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help=words)
    parser.add_argument("--out", help="out=FOLDER for the files; else RUN/adapt/<date>/<time>, of a file adapted/...")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="format=json: one JSON object")


@dataclass(frozen=True)
class Words:
    """What was typed; None: nothing."""

    support: str | None
    query: list[str]
    inner_steps: int | None
    together: bool | None
    invert: bool | None
    save: str | None


def main(args: argparse.Namespace) -> None:
    """Learns, answers, and writes the answers; nothing is written where something is wrong."""
    refuse_several_processes("adapt")
    words = _read_words(args.words)
    if args.out == "":
        raise UsageError("'' (out): expected a folder for the files, as in out=answers")
    from metarun.results.answers import to_csv, to_html
    from metarun.results.run_names import find_by_end
    from metarun.run.adapted import describe, learn
    from metarun.run.loading import load_trained

    trained = _with_inversion(load_trained(find_by_end(args.run) or args.run), words)
    _check_places(args.out, words.save)
    support, queries, classes = _read_task(trained, words)
    task = trained.facts.task if trained.support is not None and words.support is None else None
    steps = words.inner_steps if words.inner_steps is not None or task is None else task.inner_steps
    together = words.together if words.together is not None else task is not None and task.together
    adapted = learn(trained, support, queries, classes, together, steps)
    content = {PAGE: to_html(adapted), CSV: to_csv(adapted)}  # the page marks a folder as ours
    folder = _write(content, trained, args.out)
    if words.save is not None:
        _save(adapted, steps, Path(words.save))
    files = [str(short_path(folder / name)) for name in content] + ([words.save] if words.save else [])
    if args.format == "json":
        print(json.dumps(adapted.record(files).plain(), allow_nan=False))
    else:
        print(printable("\n".join([*describe(adapted, words.invert is not None, words.support is not None), *files])))


def _read_words(words: list[str]) -> Words:
    found: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in KEYS or not equals:
            raise UsageError(f"{word!r} (command line): expected {'=, '.join(KEYS)}={nearest(key, KEYS)}")
        if not value:
            raise UsageError(f"{word!r} (command line): expected a value")
        found.setdefault(key, []).append(value)
    if double := [key for key, values in found.items() if len(values) > 1 and key != "query"]:
        raise UsageError(f"{double[0]}= (command line): is there twice: expected it once")
    if "query" not in found:
        raise UsageError("query= (command line): is missing: expected the examples to ask for: query=FOLDER or FILE")
    given = {key: values[0] for key, values in found.items()}
    steps = given.get("inner_steps")
    if steps is not None and not (steps.isdecimal() and len(steps) < 10 and int(steps)):
        raise UsageError(f"{steps!r} (inner_steps): expected an integer of at least 1")
    for name in ("together", "invert"):
        if (value := given.get(name)) not in (None, "true", "false"):
            raise UsageError(f"{value!r} ({name}): expected true or false")
    return Words(
        support=given.get("support"),
        query=found["query"],
        inner_steps=None if steps is None else int(steps),
        together=None if "together" not in given else given["together"] == "true",
        invert=None if "invert" not in given else given["invert"] == "true",
        save=given.get("save"),
    )


def _with_inversion(trained: Trained, words: Words) -> Trained:
    """The learner, for images that are inverted or not as was typed."""
    if words.invert is None:
        return trained
    if "invert" not in trained.facts.inputs:
        raise UsageError("invert= (command line): expected a run on images; leave it out")
    if words.support is None:
        raise UsageError("invert= (command line): expected it where support= is given, whose images are read so too")
    inputs = trained.facts.inputs | {"invert": words.invert}
    return replace(trained, facts=trained.facts.model_copy(update={"inputs": inputs}))


def _read_task(trained: Trained, words: Words) -> tuple[Examples, Examples, list[str] | None]:
    """The support set, the queries, and the classes in order (None in regression)."""
    from metarun.data.given import classes_of, read_queries, read_support
    from metarun.run.adapted import support_of

    inputs, outputs = trained.facts.inputs, trained.facts.outputs if trained.facts.metric == "mse" else None
    if inputs["kind"] == "images" and outputs is not None:
        rule = "classes, for folders cannot say values; give those in Python: metarun.load"
        raise UsageError(f"{trained.path}: learns values of images: expected {rule}")
    data = trained.facts.config["data"]
    apart = [data.get("task"), *(data.get("drop") or ())]
    if words.support is not None:
        support = read_support(words.support, inputs, outputs, apart, data.get("task"))
        classes = classes_of(support, inputs) if outputs is None else None
    elif trained.support is not None:
        support, classes = support_of(trained)
    else:
        raise UsageError("support= (command line): is missing: expected the examples to learn from: support=FOLDER")
    queries = read_queries(words.query, inputs, outputs, classes or (), apart)
    _warn_of_copies(support, queries, inputs["kind"] == "images")
    return support, queries, classes


def _warn_of_copies(support: Examples, queries: Examples, images: bool) -> None:
    """Warns of an image in both sets; of rows, equal by chance, where all queries are support rows, target and all."""
    seen = {key: name for key, name in zip(_keys(support, images), support.names, strict=True) if key is not None}
    keys = zip(_keys(queries, images), queries.names, strict=True)
    same = [(name, seen[key]) for key, name in keys if key in seen]
    if not same or not (images or len(same) == len(queries.names)):
        return
    noun, place = ("image", "") if images else ("row", "row ")
    more = f" (and {len(same) - 1} more)" if len(same) > 1 else ""
    first, other = (f"{place}{name}" for name in same[0])
    why = "it is no test of what was learned"
    log.warning("%s (query) is the same %s as %s (support)%s: %s", first, noun, other, more, why)


def _keys(examples: Examples, images: bool) -> list[bytes | None]:
    """What tells examples apart: images by their pixels, rows by their targets too; None where those are not known."""
    pixels = [x.tobytes() for x in examples.x]
    if images:
        return [*pixels]
    if examples.values is not None:
        known = [row.tobytes() if row.size and (row == row).all() else None for row in examples.values]
    else:
        known = [None if label is None else label.encode() for label in examples.labels]
    return [None if target is None else x + target for x, target in zip(pixels, known, strict=True)]


def _check_places(out: str | None, save: str | None) -> None:
    """Raises RunDirError or UsageError: there is something else where the answers, or the learner, would be written."""
    from metarun.results.page import is_page
    from metarun.storage.exported import check_place

    if out is not None and os.path.exists(out):
        folder = Path(out)
        if not folder.is_dir():
            raise RunDirError(f"{out} (out): is a file: expected a folder; {REMEDY}")
        left = {f".{name}.tmp" for name in (PAGE, CSV)}  # by a command that was killed
        there = {path.name for path in folder.iterdir()} - left
        if there and not (there <= {CSV, PAGE} and (folder / PAGE).is_file() and is_page(folder / PAGE)):
            raise RunDirError(f"{out} (out): holds other files: expected an empty folder; {REMEDY}")
    if save is not None:
        check_place(Path(save))


def _write(content: dict[str, bytes], trained: Trained, out: str | None) -> Path:
    """Writes the files; the folder is that of `out`, else a new one."""
    from metarun.files import write_atomically
    from metarun.storage.rundir import RunDir, make_dated_folder

    try:
        if out is not None:
            folder = Path(out)
            folder.mkdir(parents=True, exist_ok=True)
        elif trained.path.is_dir():
            RunDir(trained.path).refuse_links()
            folder = make_dated_folder(trained.path / "adapt", remedy=REMEDY)
        else:
            folder = make_dated_folder(Path("adapted"), remedy=REMEDY)
        for name, text in content.items():
            write_atomically(folder / name, text)
    except OSError as error:
        raise describe_os_error(error, REMEDY) from error
    return folder


def _save(adapted: Adapted, inner_steps: int | None, path: Path) -> None:
    """Writes the learner with the task that it has learned."""
    from metarun.run.loading import save_trained
    from metarun.storage.learner_records import Task

    task = Task(classes=adapted.classes, inner_steps=inner_steps, together=adapted.together)
    facts = adapted.trained.facts.model_copy(update={"task": task})
    save_trained(replace(adapted.trained, facts=facts, support=(adapted.support.x, adapted.support.y)), path)
