"""Makes a folder full of runs of all kinds, as a year of work leaves it, to try commands on it that look at many runs.

python scripts/many_runs.py FOLDER [--runs 1000] [--hold SECONDS]

A few short runs are made, and copied with other seeds, settings, dates and results: in FOLDER/outputs single runs, in
FOLDER/multirun sweeps. Of a hundred runs 74 are done, 8 failed, 8 were stopped, 5 killed, 1 runs and 4 are damaged.
Those that run are this process's, while it waits with --hold. Checkpoints and pictures are hard links, so that a
thousand runs take the room of a few.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from socket import gethostname

import yaml

from metarun import cli, intervals
from metarun.config.schema import check
from metarun.files import write_atomically
from metarun.storage.records import Environment, Position, Status, Summary, Tasks
from metarun.storage.rundir import RunDir

SHORT = ("meta_steps=40", "val_every=10", "val_tasks=20", "test_tasks=40", "log_every=5", "device.threads=1")
FORMS = {  # of real runs: their words, and the settings that copies vary
    "maml": (("algo=maml",), {"algo.inner_lr": (0.003, 0.01, 0.03), "algo.inner_steps": (1, 2)}),
    "fomaml": (("algo=fomaml",), {"algo.inner_lr": (0.003, 0.01, 0.03)}),
    "reptile": (("algo=reptile",), {"algo.meta_lr": (0.1, 0.3, 1.0)}),
    "protonet": (("algo=protonet", "data=tabular"), {"algo.meta_lr": (1e-4, 3e-4, 1e-3), "data.shots": (3, 5)}),
}
FATES = ["done"] * 74 + ["failed"] * 8 + ["stopped"] * 8 + ["killed"] * 5 + ["running"] + ["damaged"] * 4
GONE = 2**22 + 1  # a process number that Linux does not give
DAY = 86400


def make_originals(folder: Path) -> dict[str, Path]:
    """A short real run of each form."""
    for name, (words, _) in FORMS.items():
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if code := cli.main([*words, *SHORT, f"hydra.run.dir={folder / name}"]):
                raise SystemExit(code)
    return {name: folder / name for name in FORMS}


def copy_run(original: Path, folder: Path, words: dict[str, object], began: float, chance: random.Random) -> RunDir:
    """A copy that says that these settings were typed for it, with a result of its own."""
    shutil.copytree(original, folder, copy_function=os.link)
    rundir = RunDir(folder)
    config = yaml.safe_load((folder / ".hydra/config.yaml").read_text())
    for key, value in words.items():
        *sections, last = key.split(".")
        node = config
        for section in sections:
            node = node[section]
        node[last] = value
    typed = rundir.overrides() + [f"{key}={value}" for key, value in words.items()]
    write_atomically(folder / ".hydra/config.yaml", yaml.safe_dump(config, sort_keys=False).encode())
    write_atomically(folder / ".hydra/overrides.yaml", yaml.safe_dump(typed).encode())
    environment = RunDir(original).environment() or Environment()
    changed = {"config": check(config).fingerprint, "seed": config["seed"], "argv": ["metarun", *typed]}
    rundir.write("environment.json", environment.model_copy(update=changed))
    _vary_result(rundir, chance.uniform(0.8, 1.0), f"tasks {config['data']['shots']} {original.name} {config['seed']}")
    line = f"{datetime.fromtimestamp(began):%Y-%m-%d %H:%M:%S},000 INFO step 10/40\n"
    write_atomically(folder / "metarun.log", line.encode())
    return rundir


def _vary_result(rundir: RunDir, factor: float, digest: str) -> None:
    """Multiplies the metric of every test task, and its mean in the summary to match."""
    summary, tasks = rundir.summary(), rundir.test_tasks()
    assert isinstance(summary, Summary)
    assert isinstance(tasks, Tasks)
    each = [value * factor for value in tasks.each]
    clusters = intervals.Clusters(tasks.clusters) if tasks.clusters else None
    mean, ci95 = intervals.over_tasks(each, tasks.queries if tasks.metric == "accuracy" else None, clusters)
    rundir.write("test_tasks.json", tasks.model_copy(update={"each": each, "digest": digest}))
    point = {"mean": mean, "ci95": ci95}
    last = summary.test.by_step[-1].model_copy(update=point)
    test = summary.test.model_copy(update={**point, "by_step": [*summary.test.by_step[:-1], last]})
    validation = summary.validations[summary.metric]
    validation = validation.model_copy(update={"mean": validation.mean * factor})
    changed = {"tests": {summary.metric: test}, "validations": {summary.metric: validation}}
    rundir.write("summary.json", summary.model_copy(update=changed))


def end(rundir: RunDir, fate: str, chance: random.Random) -> None:
    """Leaves the run as one of this fate is left."""
    step, host = (40 if fate in ("done", "damaged") else chance.randrange(40)), gethostname()
    pid = os.getpid() if fate == "running" else GONE
    errors = {
        "failed": "a loss is not finite (algo.inner_lr): expected a smaller rate",
        "stopped": f"SIGTERM: stopped after outer step {step} of 40, and saved; to go on: {rundir.resume_command}",
    }
    position, summary = None, rundir.summary()
    if fate in ("running", "killed") and summary and summary.validation:
        facts = {"metric": summary.metric, "validation": summary.validation.mean, "loss": 0.5}
        facts |= {"tasks_per_second": 321.0, "memory_mb": 700}
        position = Position(began=time.time() - 60, updated=time.time(), seconds_left=600.0, **facts)
    status = {"killed": "running", "damaged": "done"}.get(fate, fate)
    facts = {"status": status, "step": step, "steps": 40, "error": errors.get(fate), "pid": pid, "host": host}
    rundir.write("status.json", Status.model_validate({**facts, "position": position}))
    if fate == "damaged":
        name = chance.choice(("status.json", "summary.json", "environment.json", ".hydra/config.yaml"))
        write_atomically(rundir.path / name, (rundir.path / name).read_bytes()[:-20])
    elif fate != "done":
        for name in ("summary.json", "test_tasks.json", "curve.png", "examples.png"):
            (rundir.path / name).unlink(missing_ok=True)


def make_runs(folder: Path, count: int, say: Callable[[str], None] = print) -> None:
    """Makes all of them; the same ones each time, but for the dates."""
    chance, originals = random.Random(18), make_originals(folder / "originals")
    kinds: dict[str, int] = {}
    for number in range(count):
        form = chance.choice(list(FORMS))
        settings: dict[str, object] = {key: chance.choice(values) for key, values in FORMS[form][1].items()}
        words = {"seed": chance.randrange(10), **settings}
        began = time.time() - chance.uniform(60, 300 * DAY)
        day = datetime.fromtimestamp(began)
        if number % 2:
            place = f"outputs/{day:%Y-%m-%d}/{day:%H-%M-%S}-{number:06}"
        else:  # sweeps of ten
            first = datetime.fromtimestamp(0) + timedelta(days=20000 + number // 20)
            name = ",".join(sorted(f"{key}={value}" for key, value in words.items()))
            place = f"multirun/{first:%Y-%m-%d}/12-00-00/algo={form},{name},{number}"
        fate = FATES[number * 37 % len(FATES)]
        end(copy_run(originals[form], folder / place, words, began, chance), fate, chance)
        kinds[fate] = kinds.get(fate, 0) + 1
    shutil.rmtree(folder / "originals")
    say(", ".join(f"{number} {fate}" for fate, number in kinds.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--hold", type=float, default=0, metavar="SECONDS", help="how long the running ones run")
    args = parser.parse_args()
    if args.folder.exists():
        parser.error(f"{args.folder}: is there already; expected a new folder")
    make_runs(args.folder.resolve(), args.runs)
    print(json.dumps({"folder": str(args.folder), "pid": os.getpid()}), flush=True)
    time.sleep(args.hold)
