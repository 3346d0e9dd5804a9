"""Finished runs, found in folders and read as plain data; what cannot be used is left out with the reason.

Imports no torch, so that comparing a hundred runs takes a moment.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarun.config.keys import leaves, policy
from metarun.config.published import published
from metarun.config.saved import read_words, saved_config
from metarun.config.schema import Config
from metarun.errors import MetarunError, RunDirError, UsageError
from metarun.run import words as words_of
from metarun.storage.rundir import RunDir
from metarun.text import reason, short_path

MOST_RUNS = 10_000  # in one command
SILENT = ("data.root", "data.download", "published", "logger")
PLACES = ("device", "engine", *SILENT)  # where a run computes and reads, not what it is,
ROUNDING = ("engine.autocast", "device.tf32")  # but for these: they show in results
# What may be typed beside experiment=NAME and leaves it the published one: where, how often, how long and how sharply.
SAME_EXPERIMENT = (
    "seed", "budget", "checkpoint_every", "log_every", "val_every", "val_tasks", "test_tasks", "objective", "hydra",
    "sweep",
)  # fmt: skip

Tasks = tuple[str, int]  # a digest of test tasks, and their number


@dataclass(frozen=True)
class Run:
    """A finished run, or what `metarun eval` made of one.

    Attributes:
        rundir: its files.
        config: that was run; of an evaluation, the one that was tested.
        trained: the config that was trained: of an evaluation its run's, where that is still there.
        summary: summary.json.
        words: of the command line that began the run.
        each: the metric of every test task; empty where it was not kept.
        digest: of the test tasks; empty where it was not kept.
        evaluation: whether it is one.
        origin: the files of the run that was trained; None for an evaluation whose run is no longer there.
    """

    rundir: RunDir
    config: Config
    trained: Config
    summary: dict[str, Any]
    words: list[str]
    each: list[float]
    digest: str
    evaluation: bool = False
    origin: RunDir | None = None

    @property
    def metric(self) -> str:
        """`accuracy` or `mse`."""
        return self.summary["metric"]

    @property
    def test(self) -> dict[str, Any]:
        """mean, ci95, tasks and by_step of the test."""
        return self.summary["test"][self.metric]

    @property
    def tested_on(self) -> Tasks | None:
        """What its test tasks are: the same for runs that were tested on the same ones. None where it was not kept."""
        return (self.digest, len(self.each)) if self.digest else None

    @property
    def validation(self) -> float | None:
        """The best validation; an evaluation has none."""
        return self.summary["val"][self.metric]["mean"] if "val" in self.summary else None

    @property
    def experiment(self) -> str:
        """The published experiment that was chosen, or ''."""
        return next((word.partition("=")[2] for word in self.words if word.startswith("experiment=")), "")

    @property
    def typed(self) -> dict[str, str]:
        """The words that changed what an experiment is: by their keys, those that another run of it need not share."""
        found = {key_of(word): word for word in self.words}
        same = ("experiment", *SAME_EXPERIMENT)
        return {key: word for key, word in found.items() if not among(same, key) and not is_place(key)}

    @property
    def changes(self) -> dict[str, Any]:
        """What an evaluation changed of how its run was trained, but for where it computed and read.

        How its run went on later is no change of the evaluation's.
        """
        old, new = (dict(leaves(config.plain())) for config in (self.trained, self.config))
        keys = [key for key in {**old, **new} if not is_place(key) and policy(key).evaluate]
        return {key: new.get(key) for key in keys if old.get(key) != new.get(key)}

    @property
    def published(self) -> dict[str, Any] | None:
        """What a paper reports of it, where it is an experiment as published."""
        same = self.experiment and not self.typed and self.changes.keys() <= {"test_tasks"}
        return published(self.experiment) if same else None


@dataclass(frozen=True)
class LeftOut:
    """A folder that cannot be used, and why."""

    path: str
    reason: str


def collect(folders: Iterable[str]) -> tuple[list[Run], list[LeftOut]]:
    """All runs in these folders and below, in the order of their names, each once.

    A run's evaluations are runs of their own where its folder `eval`, or one in it, is named.

    Raises:
        UsageError: a folder is not there, holds no run, or far too many.
    """
    found: dict[Path, None] = {}
    for name in folders:
        some = list(find_runs(Path(name)))
        if not some:
            raise UsageError(f"{name!r} (command line): expected a folder with runs; there are none in it")
        found |= dict.fromkeys(path.resolve() for path in some)
    if len(found) > MOST_RUNS:
        raise UsageError(f"{len(found)} runs (command line): expected at most {MOST_RUNS}; name fewer folders")
    runs, left_out = [], []
    for path in found:
        try:
            runs.append(read(path))
        except MetarunError as error:
            left_out.append(left(path, str(error)))
        except OSError as error:
            left_out.append(left(path, f"cannot be read: {reason(error)}"))
    return runs, left_out


def find_runs(folder: Path) -> Iterator[Path]:
    """The runs in a folder, in the order of their names; and what cannot be read, which may hold some."""
    try:
        if not folder.is_dir():
            what = "it is a file" if folder.exists() else "it does not exist"
            raise UsageError(f"{str(folder)!r} (command line): expected a folder with runs; {what}")
        next(folder.iterdir(), None)
    except OSError as error:
        raise UsageError(
            f"{str(folder)!r} (command line): expected a folder that can be read; {reason(error)}"
        ) from error
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            if _is_run(here) or _is_evaluation(here):
                yield here
                continue
            children = sorted(here.iterdir(), reverse=True)
            waiting += [c for c in children if c.is_dir() and not c.is_symlink() and not c.name.startswith(".")]
        except OSError:
            yield here  # reading it will say why


def _is_run(folder: Path) -> bool:
    """Whether it is one, or what is left of one."""
    return (folder / ".hydra").is_dir() or any((folder / name).is_file() for name in ("status.json", "metrics.jsonl"))


def _is_evaluation(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and (folder / "environment.json").is_file()


def read(folder: Path) -> Run:
    """One run, or one evaluation.

    Raises:
        RunDirError: it has not finished, or a file of it is damaged.
    """
    rundir = RunDir(folder)
    evaluation = not _is_run(folder)
    origin = None if evaluation else rundir
    config = trained = saved_config(folder / "config.yaml") if evaluation else rundir.config()
    if evaluation and len(folder.parents) > 2 and _is_run(folder.parents[2]):
        origin = RunDir(folder.parents[2])
        trained = saved_config(origin.path / ".hydra" / "config.yaml")
    record = rundir.summary()
    summary = (
        record.plain() | {"title": words_of.title(record), "settings": words_of.settings(record)} if record else {}
    )
    if record is None:
        status = status.plain() if (status := rundir.status()) else {}
        if error := status.get("error"):
            why = f"{status.get('status')} at outer step {status.get('step')}: {error}"
        else:
            step = status.get("step", 0)
            why = f"no result yet, outer step {step} was saved; unless it still runs: {rundir.resume_command}"
        raise RunDirError(why)
    if not evaluation and (record.steps or config.outer_steps) != config.outer_steps:
        raise RunDirError(
            f"was finished after {record.steps} outer steps, and is to go on to {config.outer_steps}; unless "
            f"it still runs: {rundir.resume_command}"
        )
    words = read_words(origin.path / ".hydra" / "overrides.yaml") if origin else []
    return Run(rundir, config, trained, summary, words, *_of_tasks(rundir, summary), evaluation, origin)


def _of_tasks(rundir: RunDir, summary: dict[str, Any]) -> tuple[list[float], str]:
    """The metric of each test task, and the digest of the tasks."""
    if (content := rundir.test_tasks()) is None:
        return [], ""
    each, digest, test = content.each, content.digest, summary["test"][summary["metric"]]
    if isinstance(digest, str) and isinstance(each, list) and len(each) == test["tasks"] > 0:
        numbers = all(type(value) in (int, float) and math.isfinite(value) for value in each)
        if numbers and _same(each, test):
            return each, digest
    raise RunDirError(
        f"{rundir.path / 'test_tasks.json'}: does not belong to summary.json; expected both as metarun wrote them; "
        f"restore them from a copy"
    )


def _same(each: list[float], test: dict[str, Any]) -> bool:
    """Whether a mean and an interval are those of these tasks."""
    mean, ci95 = over_tasks(each)
    return math.isclose(mean, test["mean"]) and math.isclose(ci95, test["ci95"], rel_tol=1e-6, abs_tol=1e-12)


def over_tasks(each: list[float]) -> tuple[float, float]:
    """The mean of a number for each task, and half the width of its 95% interval, 1.96 s/√T."""
    mean = math.fsum(each) / len(each)
    return mean, 1.96 * math.sqrt(math.fsum((value - mean) ** 2 for value in each) / max(len(each) - 1, 1) / len(each))


def is_place(key: str) -> bool:
    """Whether a setting says where a run computes and reads, and not what it is."""
    return among(PLACES, key) and key not in ROUNDING


def left(path: Path, why: str) -> LeftOut:
    """What was left out, in one line that names the folder once."""
    name = " ".join(str(short_path(path)).split())
    return LeftOut(name, " ".join(why.split()).removeprefix(f"{name}: "))


def key_of(word: str) -> str:
    """The key of a word of the command line."""
    return word.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".")


def among(names: tuple[str, ...], key: str) -> bool:
    """Whether a dotted key is one of these, or below one of them."""
    return any(f"{key}.".startswith(f"{name}.") for name in names)
