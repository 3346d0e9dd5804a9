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
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import metarun
from publish import ROOT, copy_kept, replace_block, run_verb

KEPT = ROOT / "outputs" / "comparison"
TIMES = KEPT / "times.json"
BLOCK = "metarun table outputs/comparison"

TASKS = {  # training tasks, and the words of the source
    "sinusoid": (50_000, "data=sinusoid"),
    "tabular_linear": (50_000, "data=tabular"),
    "tabular_mlp": (50_000, "data=tabular data.teacher=mlp"),
    "tabular_tree": (50_000, "data=tabular data.teacher=tree"),
    "tabular_noise": (12_500, "data=tabular data.teacher=noise"),
    "hsb82": (12_500, "data=table data.file=hsb82.csv data.target=mAch data.task=school data.shots=10"),
    "names": (12_500, "data=text data.file=names.csv data.text=name data.target=locale"),
    "omniglot_5w1s": (32_000, "data=omniglot"),
    "omniglot_20w1s": (8_000, "data=omniglot data.ways=20 meta_batch=16"),
}
TITLES = {
    "sinusoid": "sinusoid 10-shot, mse",
    "tabular_linear": "tabular linear, %",
    "tabular_mlp": "tabular mlp, %",
    "tabular_tree": "tabular tree, %",
    "tabular_noise": "tabular noise, %",
    "hsb82": "hsb82 10-shot, mse",
    "names": "names 3-way 5-shot, %",
    "omniglot_5w1s": "Omniglot 5-way 1-shot, %",
    "omniglot_20w1s": "Omniglot 20-way 1-shot, %",
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
UNTRAINED = ("scratch", "sklearn")
BATCH = {"omniglot_5w1s": 32, "omniglot_20w1s": 16}  # else 25


def folder_of(words: str) -> str:
    """The name of a row's folder."""
    return words.replace(" algo.", "_").replace("=", "_")


def command(words: str, cell: str) -> list[str]:
    """The command of a row in a cell, for a shell in the folder."""
    tasks, source = TASKS[cell]
    if own := ALGORITHMS[words]:
        source = " ".join(word for word in source.split() if not word.startswith("meta_batch="))
    steps = [] if words in UNTRAINED else [f"meta_steps={tasks // (own or BATCH.get(cell, 25))}"]
    run = f"{cell}/{folder_of(words)}"
    return [
        "metarun",
        *f"algo={words} {source}".split(),
        *steps,
        "device=cpu",
        "device.threads=1",
        f"hydra.run.dir={run}",
    ]


def missing(folder: Path) -> Iterator[list[str]]:
    """The commands of what is not there, or not finished."""
    for cell in TASKS:
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
                words_ = [w for w in command(words, "omniglot_5w1s", Path(place)) if "steps=" not in w]
                few = ["meta_steps=30", "log_every=10", "val_tasks=2", "test_tasks=2", "device.threads=2"]
                subprocess.run([*words_, *few], check=True, capture_output=True)
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
    for cell in TASKS:
        for words in ALGORITHMS:
            run = folder / cell / folder_of(words)
            if (run / "summary.json").is_file():
                copy_kept(run, KEPT / cell / run.name)


def page() -> str:
    """The page: results, differences to MAML, times."""
    cells = {
        cell: json.loads(run_verb("table", str(KEPT / cell), "format=json")) for cell in TASKS if (KEPT / cell).is_dir()
    }
    ...


if __name__ == "__main__":
    verb, *rest = sys.argv[1:] or ["page"]
    if verb == "list":
        for words in missing(Path(rest[0])):
            print(shlex.join(words))
    elif verb == "time":
        measure(Path(rest[0]))
    elif verb == "keep":
        keep(Path(rest[0]))
