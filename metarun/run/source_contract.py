"""What a task source promises, checked on a few of its tasks; see tasks.TaskSource.

T tasks, S support points, Q query points, N outputs.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from pydantic import ValidationError
from torch import Tensor

from metarun.config.own_code import class_name
from metarun.errors import UsageError
from metarun.storage import records
from metarun.tasks import Split, Task, TaskSource, clusters_of

TASKS = 4  # of a split. Support and query that overlap do so in all of them
# For examples in several splits: 64 tasks or so many numbers. 20,000 images that all splits draw from are noticed, and
# the few copies in a data set of the field are not.
MANY, NUMBERS, LEAK = 64, 5_000_000, 0.01


def refuse(part: object, given: str, expected: str) -> NoReturn:
    """Raises UsageError: a part gives something else than it has to."""
    raise UsageError(f"{class_name(part)}: {given}: expected {expected}")


def check_source(source: TaskSource, seed: int, splits: Sequence[Split], device: torch.device) -> dict[Split, Task]:
    """The first tasks of these splits, once they are seen to be what a source promises.

    Raises:
        UsageError: they are not.
    """
    _check_attributes(source)
    tasks = {}
    for split in splits:
        with refusing_global_draws(source, f"sample() of {split}"):
            tasks[split] = _check_split(source, seed, split, device)
    for n, split in enumerate(splits):
        for other in splits[:n]:
            if _differing_field(tasks[split], tasks[other], but=("key",)) is None:
                rule = "other tasks in each split; draw them by (seed, split, index)"
                refuse(source, f"sample() gives the same tasks for {other} and {split}", rule)
    return tasks


def _check_attributes(source: TaskSource) -> None:
    """What a source says of itself."""
    if source.metric not in ("accuracy", "mse"):
        refuse(source, f"metric {source.metric!r}", "accuracy (int64 targets) or mse (float targets)")
    if type(source.outputs) is not int or source.outputs < 1:
        refuse(source, f"outputs {source.outputs!r}", "an integer of at least 1, such as the number of classes")
    shape = source.input_shape
    if not isinstance(shape, (tuple, list)) or not all(type(size) is int and size > 0 for size in shape):
        refuse(source, f"input_shape {shape!r}", "the shape of one example, such as (1, 28, 28) or (10,)")
    facts: Any = source.facts()
    try:
        records.Source(**facts)
    except (TypeError, ValidationError) as error:
        why = f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}" if hasattr(error, "errors") else str(error)
        rule = "name, ways (None in regression), shots, queries, train_shots and train_queries, as data/sinusoid.py has"
        refuse(source, f"facts() gives {facts!r:.100} ({why})", rule)
    identity: Any = source.identity()
    words = isinstance(identity, dict) and all(isinstance(value, str) for value in identity.values())
    if not words or "split_hash" not in identity:
        refuse(source, f"identity() gives {identity!r:.100}", "{'split_hash': a string}, and data_digest where data is")


def _check_split(source: TaskSource, seed: int, split: Split, device: torch.device) -> Task:
    """The first tasks of a split; raises UsageError as check_source()."""
    sampled = source.sample(seed, split, torch.arange(TASKS))
    _check_types(source, split, sampled, device)
    tasks = sampled.map(torch.clone)
    again = source.sample(seed, split, torch.arange(TASKS))
    if field := _differing_field(tasks, again):
        rule = "the same: task i is a pure function of (seed, split, i); draw with metarun.seeds"
        refuse(source, f"{field} of the same {split} tasks, sampled twice, differs", rule)
    order = torch.tensor([TASKS - 1, 0])
    for name, index in {"alone": order[:1], "in another order": order}.items():
        other = source.sample(seed, split, index)
        _check_types(source, split, other, device, len(index))
        if field := _differing_field(tasks.select(index.to(device)), other, exact=False):
            rule = "the same as beside others: task i is a pure function of (seed, split, i)"
            refuse(source, f"{field} of {split} task {int(index[-1])}, sampled {name}, differs", rule)
    first = tasks.select(slice(0, 1))
    if all(_differing_field(first, tasks.select(slice(t, t + 1)), but=("key",)) is None for t in range(TASKS)):
        refuse(source, f"the first {TASKS} tasks of {split} are all the same", "other tasks for other numbers (index)")
    _check_overlap(source, split, tasks)
    _check_clusters(source, seed, split)
    return tasks


def _check_clusters(source: TaskSource, seed: int, split: Split) -> None:
    """What tasks share, where a source says so."""
    where, index = f"clusters() of {split}", torch.arange(TASKS)
    found: Any = clusters_of(source, seed, split, index)
    if found is None:
        return
    rule = f"an int64 tensor [{TASKS}, c], the numbers of the classes or of the table of each task, at least 0"
    if not isinstance(found, Tensor):
        refuse(source, f"{where} gives {type(found).__name__}", rule)
    if found.dtype != torch.int64 or found.dim() != 2 or len(found) != TASKS or not found.numel() or found.min() < 0:
        refuse(source, f"{where} gives {str(found.dtype).removeprefix('torch.')} {list(found.shape)}", rule)
    if not torch.equal(clusters_of(source, seed, split, index.flip(0)[:2]), found.flip(0)[:2]):
        refuse(source, f"{where} depends on the other tasks", "a pure function of (seed, split, i) for task i")
    if not isinstance(getattr(source, "clustered_by", None), str):
        refuse(source, "clusters() without clustered_by", "a word for what tasks share, such as classes or tables")


def _check_types(source: TaskSource, split: Split, task: Task, device: torch.device, n: int = TASKS) -> None:
    """Shapes, types and values of n tasks."""
    where = f"sample() of {split}"
    if not isinstance(task, Task) or not all(isinstance(tensor, Tensor) for tensor in task):
        names = type(task).__name__ if not isinstance(task, tuple) else [type(part).__name__ for part in task]
        refuse(source, f"{where} gives {names}", f"a metarun.tasks.Task of tensors: {', '.join(Task._fields)}")
    classes, shape = source.metric == "accuracy", tuple(source.input_shape)
    ends = {"x": ("*input_shape", shape), "y": ("", ()) if classes else ("outputs", (source.outputs,))}
    kinds = {
        "x": torch.float32,
        "y": torch.int64 if classes else torch.float32,
        "key": torch.int64,
        "classes": torch.int64,
    }
    for name, tensor in task._asdict().items():
        points, _, part = name.rpartition("_")
        words, end = ends.get(part, ("", ()))
        # [n, points, *end], [n, N] for the numbers of classes, and [n] for the key
        right = tensor.shape == (n, *([] if part == "key" else tensor.shape[1:2]), *end)
        if not right or (points and (tensor.dim() < 2 or tensor.shape[1] < 1)):
            wanted = [str(n), *([points[0].upper()] if points else []), *map(str, end)]
            remedy = f" ({words} after the points)" if words else ""
            refuse(source, f"{where} gives {name} of shape {list(tensor.shape)}", f"[{', '.join(wanted)}]{remedy}")
        if tensor.dtype != kinds[part]:
            given, wanted = (str(kind).removeprefix("torch.") for kind in (tensor.dtype, kinds[part]))
            why = f", as metric is {source.metric}" if part == "y" else ""
            refuse(source, f"{where} gives {name} of type {given}", f"{wanted}{why}")
        if tensor.device != device:
            refuse(source, f"{where} gives {name} on {tensor.device}", f"{device}, the device that prepare() is given")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            refuse(source, f"{where} gives {name} that is not finite", "numbers; fill or drop what is missing")
        if part == "y" and classes and (tensor.min() < 0 or tensor.max() >= source.outputs):
            low, high = int(tensor.min()), int(tensor.max())
            refuse(source, f"{where} gives {name} from {low} to {high}", f"classes from 0 to {source.outputs - 1}")
    for half in ("x", "y"):
        sizes = {name: getattr(task, f"{name}_{half}").shape[1] for name in ("support", "query")}
        if half == "x":
            points = sizes
        elif sizes != points:
            given = " and ".join(f"{points[name]} {name}_x for {sizes[name]} {name}_y" for name in sizes)
            refuse(source, f"{where} gives {given}", "a target for each point")
    if task.key.min() < 0 or (n == TASKS and (task.key.diff() != 1).any()):
        rule = "numbers in a row, as the tasks are: metarun.tasks.keys(seed, split, index)"
        refuse(source, f"{where} gives keys {task.key[:3].tolist()}", rule)


def _check_overlap(source: TaskSource, split: Split, tasks: Task) -> None:
    """Refuses support examples among the query of every task; not where examples are equal by chance."""
    for t in range(len(tasks.key)):
        task = tasks.select(t)
        support, query = (_rows(x, y) for x, y in ((task.support_x, task.support_y), (task.query_x, task.query_y)))
        by_chance = len(set(support)) < len(support) or len(set(query)) < len(query)
        if by_chance or not set(support) & set(query):
            return
    rule = "a query that shares no example with the support set, or it is no test"
    refuse(source, f"support examples are in the query of {split} tasks", rule)


def find_leaks(source: TaskSource, seed: int, splits: Sequence[Split]) -> Iterator[str]:
    """Lines about splits that share examples, as those of a source do that draws its classes from all.

    No error: tasks may have the same inputs by nature, such as molecules whose other properties are asked for.
    """
    if source.metric != "accuracy":
        return
    task = source.sample(seed, splits[0], torch.arange(1))
    numbers = torch.arange(max(TASKS, min(MANY, NUMBERS // (task.support_x.numel() + task.query_x.numel()))))
    examples: dict[Split, list[bytes]] = {}
    for split in splits:
        task = source.sample(seed, split, numbers)
        x, y = torch.cat([task.support_x, task.query_x], 1), torch.cat([task.support_y, task.query_y], 1)
        examples[split] = []
        for inputs, labels in zip(x.cpu().numpy(), y.tolist(), strict=True):
            rows = [row.tobytes() for row in inputs]
            if len(set(zip(rows, labels, strict=True))) > len(set(rows)):
                return  # the same example in two classes of a task: they are equal by chance
            examples[split] += rows
    for n, split in enumerate(splits):
        for other in splits[:n]:
            known = set(examples[other])
            share = sum(row in known for row in examples[split]) / len(examples[split])
            if share > LEAK:
                where = f"in the first {len(numbers)} tasks of {split} are in those of {other} too"
                rule = "expected classes of its own in each split, unless tasks share their inputs by nature"
                yield f"{class_name(source)}: {share:.0%} of the examples {where}: {rule}"


def check_built_anew(source: TaskSource, again: TaskSource, seed: int, splits: Sequence[Split]) -> None:
    """Raises UsageError where a source that was built twice, of the same settings, has other tasks or data."""
    rule = "the same each time; seed what the constructor, prepare() or load() draws"
    for split in splits:
        index = torch.arange(TASKS)
        if field := _differing_field(source.sample(seed, split, index), again.sample(seed, split, index)):
            refuse(source, f"{field} of {split} tasks differs when the source is built anew", rule)
    if (then := source.identity()) != (now := again.identity()):
        keys = [key for key in then | now if then.get(key) != now.get(key)]
        refuse(source, f"{', '.join(keys)} of identity() differs when the source is built anew", rule)


def _rows(x: Tensor, y: Tensor) -> list[bytes]:
    """The points of a task, as bytes that can be compared."""
    pairs = zip(x.cpu().numpy(), y.cpu().numpy(), strict=True)
    return [a.tobytes() + b.tobytes() for a, b in pairs]


def _differing_field(a: Task, b: Task, exact: bool = True, but: tuple[str, ...] = ()) -> str | None:
    """The first tensor in which tasks differ; None where they are the same, with exact=False but for rounding."""
    for name, x, y in zip(Task._fields, a, b, strict=True):
        if name in but:
            continue
        if x.shape != y.shape:
            return name
        if exact or not x.is_floating_point():
            if not torch.equal(x, y):
                return name
        elif not torch.allclose(x, y, rtol=1e-4, atol=1e-5 * float(x.abs().max())):
            return name
    return None


@contextmanager
def refusing_global_draws(part: object, where: str) -> Iterator[None]:
    """Raises UsageError where the global random state of torch, numpy or Python is another one afterwards."""
    before = _global_states()
    yield
    for name, state in _global_states().items():
        if state != before[name]:
            rule = "no global random numbers, by which a run could not be repeated; draw with metarun.seeds"
            refuse(part, f"{where} draws from, or seeds, the global generator of {name}", rule)


def _global_states() -> dict[str, object]:
    states: dict[str, object] = {"torch": torch.get_rng_state().numpy().tobytes(), "random": random.getstate()}
    if torch.cuda.is_initialized():
        states["torch.cuda"] = [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]
    if "numpy" in sys.modules:
        kind, words, *rest = sys.modules["numpy"].random.get_state()
        states["numpy"] = (kind, words.tobytes(), *rest)
    return states
