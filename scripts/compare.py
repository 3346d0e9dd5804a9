"""Every algorithm beside every other, on the same test tasks after equally many training tasks, and the README's page.

    python scripts/compare.py list FOLDER     commands of the runs that FOLDER lacks, one a line, the quick ones first
    python scripts/compare.py time FOLDER     measures, alone on a machine, what a training task and a new task cost
    python scripts/compare.py keep FOLDER     keeps what the runs of FOLDER leave behind, without their weights
    python scripts/compare.py                 only writes the page anew

The commands are for a shell in FOLDER, where hsb82.csv and names.csv lie. Two may work at once:
python scripts/compare.py list FOLDER | (cd FOLDER && xargs -P 2 -I COMMAND sh -c COMMAND). Every algorithm has the
settings of its YAML file, none is tuned for a source; what an algorithm refuses is left out.
"""

import json
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from publish import CHOICES, ROOT, copy_kept, replace_block

import metarun
from metarun import intervals
from metarun.results.runs import Run, read_run
from metarun.text import format_alike

KEPT = ROOT / "outputs" / "comparison"
TIMES = KEPT / "times.json"
BLOCK = "scripts/compare.py"


class Cell(NamedTuple):
    """A source: its name on the page, training tasks, those of an outer step, and its words."""

    title: str
    tasks: int
    batch: int
    words: str


HSB82 = "data=table data.file=hsb82.csv data.target=mAch data.task=school data.shots=10"
NAMES = "data=text data.file=names.csv data.text=name data.target=locale"
CELLS = {
    "sinusoid": Cell("sinusoid 10-shot, mse", 50_000, 25, "data=sinusoid"),
    "tabular_linear": Cell("tabular linear, %", 25_000, 25, "data=tabular"),
    "tabular_mlp": Cell("tabular mlp, %", 25_000, 25, "data=tabular data.teacher=mlp"),
    "tabular_tree": Cell("tabular tree, %", 25_000, 25, "data=tabular data.teacher=tree"),
    "tabular_noise": Cell("tabular noise, %", 12_500, 25, "data=tabular data.teacher=noise test_tasks=2000"),
    "hsb82": Cell("hsb82 10-shot, mse", 12_500, 25, HSB82),
    "names": Cell("names 3-way 5-shot, %", 12_500, 25, NAMES),
    "omniglot_5w1s": Cell("Omniglot 5-way 1-shot, %", 16_000, 32, "data=omniglot"),
    "omniglot_20w1s": Cell("Omniglot 20-way 1-shot, %", 4_000, 16, "data=omniglot data.ways=20"),
}
ALGORITHMS = {  # the words of a row, and the tasks of its outer step where it has its own number
    "protonet": None,
    "matching": None,
    "closed_form": None,
    "closed_form algo.solver=logistic": None,
    "closed_form algo.solver=svm": None,
    "in_context": None,
    "mann": None,
    "lstm_generator": None,
    "maml": None,
    "fomaml": None,
    "anil": None,
    "boil": None,
    "meta_sgd": None,
    "maml_pp": None,
    "cavia": None,
    "reptile": None,
    "meta_lstm": 4,
    "averaging": 5,
    "pretrain": None,
    "baseline": None,
    "scratch": None,
    "sklearn": None,
    "oracle": None,
    "imaml": None,
}
REFERENCE = "maml"
NO_RIVALS = ("oracle",)  # which is told the truth: its inputs are others
UNTRAINED = ("scratch", "sklearn")


def folder_of(words: str) -> str:
    """The name of a row's folder."""
    return words.replace(" algo.", "_").replace("=", "_")


def command(words: str, cell: str) -> list[str]:
    """The command of a row in a cell, for a shell in the folder."""
    _, tasks, batch, source = CELLS[cell]
    batch = ALGORITHMS[words] or batch
    steps = [] if words in UNTRAINED else [f"meta_batch={batch}", f"meta_steps={tasks // batch}"]
    where = ["device=cpu", "device.threads=1", f"hydra.run.dir={cell}/{folder_of(words)}"]
    return ["metarun", *f"algo={words} {source}".split(), *steps, *where]


def missing(folder: Path) -> Iterator[list[str]]:
    """The commands of what is not there, or not finished."""
    for cell in CELLS:
        for words in ALGORITHMS:
            run = folder / cell / folder_of(words)
            if (run / "summary.json").is_file():
                continue
            again = ["metarun", "resume", f"{cell}/{run.name}"]
            yield again if (run / "status.json").is_file() else command(words, cell)


def measure(folder: Path) -> None:
    """Seconds of a training task, and of a new task from its examples to its answers, for 5-way 1-shot on Omniglot."""
    times = {}
    for words in ALGORITHMS:
        run = folder / "omniglot_5w1s" / folder_of(words)
        if not (run / "summary.json").is_file():
            continue
        times[words] = {"new_task_s": time_new_task(run)}
        if words not in UNTRAINED:
            with tempfile.TemporaryDirectory() as place:
                few = ["meta_steps=30", "log_every=10", "val_tasks=2", "test_tasks=2", "device.threads=2"]
                given = [word for word in command(words, "omniglot_5w1s") if not re.search("steps=|threads=", word)]
                subprocess.run([*given, *few], check=True, capture_output=True, cwd=place)
                [timing] = Path(place).glob("*/*/timing.jsonl")
                rows = [json.loads(line) for line in timing.read_text().splitlines()]
            times[words]["training_task_s"] = 1 / max(row["tasks_per_second"] for row in rows)
        print(words, times[words], flush=True)
    TIMES.write_text(json.dumps(times, indent=2) + "\n")


def time_new_task(run: Path) -> float:
    """Median seconds to fit five drawings and answer five queries, of a learner that is loaded."""
    import torch

    learner = metarun.load(run)
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.rand(5, 1, 28, 28, generator=generator).numpy() for _ in range(2))
    seconds = []
    for _ in range(22):
        start = time.perf_counter()
        learner.fit(support, list("abcde")).predict(query)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def keep(folder: Path) -> None:
    """Copies what the finished runs of the folder leave behind."""
    for cell in CELLS:
        for words in ALGORITHMS:
            run = folder / cell / folder_of(words)
            if (run / "summary.json").is_file():
                copy_kept(run, kept := KEPT / cell / run.name, [CHOICES])
                config = kept / ".hydra" / "config.yaml"
                config.write_text(config.read_text().replace(f"{folder.resolve()}/", ""))  # where it lay


def page() -> str:
    """The page: results, paired differences to MAML, times."""
    cells = {cell: {words: run for words in ALGORITHMS if (run := read(cell, words))} for cell in CELLS}
    cells = {cell: found for cell, found in cells.items() if found}
    if not cells:
        return ""
    times = json.loads(TIMES.read_text()) if TIMES.is_file() else {}
    rows = [words for words in ALGORITHMS if any(words in found for found in cells.values())]
    heads = [CELLS[cell].title for cell in cells]
    results = [[f"`{w}`", *(show(found, w) for found in cells.values())] for w in rows]
    differences = [[f"`{w}`", *(show_difference(found, w) for found in cells.values())] for w in rows if w != REFERENCE]
    seconds = [
        [f"`{words}`", show_time(times[words].get("training_task_s")), show_time(times[words]["new_task_s"])]
        for words in rows
        if words in times
    ]
    tasks = [f"{CELLS[cell].tasks:,}" for cell in cells]
    return "\n".join(
        [
            *write_table(["`algo=`", *heads], [["training tasks", *tasks], *results]),
            *("", f"Paired differences to `{REFERENCE}` on the same test tasks, with their 95 % intervals:", ""),
            *write_table(["`algo=`", *heads], differences),
            *(("", "Time, two threads, 5-way 1-shot on Omniglot with conv4:", "") if seconds else ()),
            *(write_table(["`algo=`", "a training task (ms)", "a new task (ms)"], seconds) if seconds else ()),
        ]
    )


def read(cell: str, words: str) -> Run | None:
    """A kept run."""
    folder = KEPT / cell / folder_of(words)
    return read_run(folder) if folder.is_dir() else None


def show(found: dict[str, Run], words: str) -> str:
    """The mean of a row with its interval, bold where no row is better by more than the interval of the difference."""
    if words not in found:
        return ""
    run = found[words]
    sign = 1 if run.summary.metric == "accuracy" else -1
    rivals = () if words in NO_RIVALS else [name for name in found if name not in NO_RIVALS]
    gaps = [subtract(found[name], run) for name in rivals]
    text = spell(run, run.summary.test.mean, run.summary.test.ci95)
    return text if not gaps or any(sign * mean > ci95 for mean, ci95 in gaps) else f"**{text}**"


def show_difference(found: dict[str, Run], words: str) -> str:
    """The paired difference of a row to the reference."""
    if words not in found or words in NO_RIVALS or REFERENCE not in found:
        return ""
    mean, ci95 = subtract(found[words], found[REFERENCE])
    return ("+" if mean > 0 else "") + spell(found[words], mean, ci95).replace("-", "−")


def subtract(run: Run, other: Run) -> tuple[float, float]:
    """The mean over test tasks of the differences of two runs, and its 95% interval."""
    if run.digest != other.digest:
        raise SystemExit(f"{run.rundir.path}: was tested on other tasks than {other.rundir.path}")
    gaps = [a - b for a, b in zip(run.each, other.each, strict=True)]
    return intervals.over_tasks(gaps, clusters=run.clusters)


def spell(run: Run, mean: float, ci95: float) -> str:
    """A mean with its interval: per cent, or an error."""
    return " ± ".join(format_alike(run.summary.metric, [mean, ci95], ci95))


def show_time(seconds: float | None) -> str:
    """Milliseconds."""
    return "" if seconds is None else f"{1000 * seconds:.1f}"


def write_table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of Markdown."""
    return [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows)]


if __name__ == "__main__":
    verb, *rest = sys.argv[1:] or ["page"]
    if (verb, len(rest)) not in (("list", 1), ("time", 1), ("keep", 1), ("page", 0)):
        raise SystemExit(__doc__)
    if verb == "list":
        for words in missing(Path(rest[0])):
            print(shlex.join(words))
    elif verb == "time":
        measure(Path(rest[0]))
    elif verb == "keep":
        keep(Path(rest[0]))
    if verb in ("keep", "time", "page"):
        replace_block(BLOCK, page())
