"""Run directories of any status, written by hand in a moment: what a listing reads, and no more."""

import os
from datetime import datetime
from pathlib import Path
from socket import gethostname

import yaml

from metarun.storage.records import Environment, Point, Source, Status, Summary, Test, Training, Validation

CONFIG = "seed: 0\nmeta_steps: 100\nbudget: 0.5\nalgo:\n  inner_lr: 0.1\n  _target_: metarun.algos.maml.MAML\ndata:\n  shots: 1\n"


def summary_of(test=0.9, validation=0.8, *, algo="maml", data="omniglot", metric="accuracy"):
    """The summary of a finished run."""
    point = {"mean": test, "ci95": 0.0123}
    counts = dict.fromkeys(("shots", "queries", "train_shots", "train_queries"), 1)
    return Summary(
        choices={"algo": algo, "data": data},
        algorithm=algo.upper(),
        source=Source(name=data, ways=5, **counts),
        training=Training(steps=50, outer_steps=50, meta_batch=4, meta_steps=100, budget=0.5),
        metric=metric,
        tests={metric: Test(**point, tasks=20, by_step=[Point(**point)])},
        validations={metric: Validation(mean=validation, step=40, tasks=20)},
    )


def make_run(folder, status="done", *, words=(), age=0.0, algo="maml", data="omniglot", summary=None, **fields):
    """Makes a run that began `age` seconds ago; fields are those of its status.json."""
    folder = Path(folder)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/config.yaml").write_text(CONFIG)
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump(list(words)))
    (folder / ".hydra/choices.yaml").write_text(yaml.safe_dump({"algo": algo, "data": data}))
    began = datetime.fromtimestamp(datetime.now().timestamp() - age)
    (folder / "metarun.log").write_text(f"{began:%Y-%m-%d %H:%M:%S},000 INFO step 1/50\n")
    fields = {"step": 50, "steps": 50, "pid": os.getpid(), "host": gethostname()} | fields
    (folder / "status.json").write_bytes(Status(status=status, **fields).to_json())
    (folder / "environment.json").write_bytes(Environment(seed=0).to_json())
    if status == "done":
        summary = summary or summary_of(algo=algo, data=data)
        (folder / "summary.json").write_bytes(summary.to_json())
    return folder
