"""metarun eval: meta-test trained runs again; each result goes to RUN/eval/<date>/<time>.

Under other settings, or with data=NAME on another task source that fits the learner: a test across domains. Several
runs, folders of runs (every finished run in them) and lists of values, as in data.shots=1,5,10, make all combinations;
they are checked before the first starts. data.shots, data.queries and data.ways are those of the test. What was made
already with the same settings and checkpoint is not made again, unless again=true.

Examples:
    metarun eval outputs/2026-01-31/12-00-00 test_tasks=1000
    metarun eval outputs data.shots=1,5,10       accuracy over shots; metarun table outputs evaluations=true
    metarun eval RUN data=images data.root=mine  on images of your own
    metarun eval RUN model.norm=support          batch norm's statistics of the support set alone
"""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarun.commands.common import find_choices, print_result, run_directory
from metarun.engine.ranks import refuse_several_processes
from metarun.errors import DataError, MetarunError, RunDirError, UsageError
from metarun.text import count_of, printable, reason, short_path, typed_path

if TYPE_CHECKING:
    from metarun.config.folders import ConfigFolders
    from metarun.results.evaluations import Evaluated
    from metarun.run.evaluation import Prepared
    from metarun.storage.records import Summary
    from metarun.storage.rundir import RunDir

PRINTS = "metarun.results.evaluations.Evaluations"
MADE_BEFORE = "with the same settings and checkpoint; again=true tests again"
SEVERAL = r"[^'\"{}\[\]()]*=[^'\"{}\[\]()]*=[^'\"{}\[\]()]*"  # a word with two = that is no value in quotes or brackets
Job = tuple[Path, list[str]]  # a run, and the words for its test

log = logging.getLogger("metarun")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Runs, and changes of the settings that act in meta-testing."""
    runs = "run directories, or the ends of their paths; or folders of runs, of which every finished one is taken"
    parser.add_argument("runs", nargs="+", metavar="RUN", help=runs)
    words = (
        "settings that act in meta-testing, such as data.shots=1,5 or test_tasks=1000; or data=NAME, another task "
        "source, which is given the ways, shots and queries of the run, and its size of images"
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help=words)
    parser.add_argument(
        "--again", choices=("true", "false"), default="false", help="whether to test again what was made before"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="for people, or for programs")
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="a folder with choices of your own: data/mine.yaml")


def main(args: argparse.Namespace) -> None:
    """Meta-tests the best checkpoint of each run, and prints the results."""
    refuse_several_processes("eval")
    from metarun.config.folders import ConfigFolders
    from metarun.results import evaluations
    from metarun.results.run_names import find_by_end

    given = [*args.runs, *args.words]
    # A sweep's runs may be called algo=maml,seed=0, which is no setting.
    names = [
        word
        for word in given
        if "=" not in word or os.path.isdir(word) or (re.fullmatch(SEVERAL, word) and find_by_end(word))
    ]
    words = [word for word in given if word not in names]
    if not names and find_by_end(words[0]):
        names.append(words.pop(0))
    if not names:
        raise RunDirError(f"{words[0]}: no run there; expected a run directory, as in metarun eval RUN {words[0]}")
    folders = ConfigFolders(extra=find_choices(args.config_dir))
    jobs = [(run, combination) for run in find_trained(names) for combination in combine(words, folders)]
    prepared = _check(jobs, folders)  # the only one
    found: list[Evaluated] = []
    try:
        for number, job in enumerate(jobs, start=1):
            found.append(_make(job, prepared, args.again == "true", folders))
            if len(jobs) > 1:
                result = evaluations.describe_result(found[-1])
                log.info("eval %d of %d: %s  %s", number, len(jobs), _spell(job), result)
    finally:
        if args.format == "json":
            print(evaluations.as_json(found))
        elif len(jobs) > 1 and found:
            print(printable(f"\n{evaluations.as_text(found)}\n\n{_closing_words(names, found)}"))
        elif found:
            _print_one(found[0])
    if failed := [evaluation for evaluation in found if evaluation.status == "failed"]:
        raise MetarunError(
            f"{count_of(len(failed), 'evaluation')} of {len(jobs)} failed (eval): expected all to finish; see above"
        )


def find_trained(names: Sequence[str]) -> list[Path]:
    """The runs that these names are, and the finished ones in folders of runs, each once.

    What is left out of a folder is said: what has not finished, and reproductions. Raises RunDirError: there is none.
    """
    from metarun.results.runs import find_runs
    from metarun.storage.rundir import RunDir

    found: dict[Path, Path] = {}
    for name in names:
        folder = Path(name)
        below = [path for path in find_runs(folder) if RunDir(path).holds_run] if os.path.isdir(folder) else []
        if below in ([], [folder]):
            run = _run_of(folder)
            found.setdefault(run.resolve(), run)
            continue
        finished = []
        for path in below:
            if why := _describe_unfinished(RunDir(path)):
                log.info("left out: %s: %s", path, why)
            else:
                finished.append(path)
        if not finished:
            raise RunDirError(f"{name}: no finished run in it; expected one that can be tested; the reasons are above")
        for path in finished:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _run_of(folder: Path) -> Path:
    """The folder, which is a run. Raises RunDirError: it is none, or is a part of one, which the message names."""
    from metarun.results.run_names import run_around

    if os.path.isdir(folder) and (run := run_around(folder)) is not None:
        raise RunDirError(f"{folder}: is a part of a run; expected the run: metarun eval {typed_path(run)}")
    return run_directory(str(folder))


def _describe_unfinished(rundir: RunDir) -> str:
    """Why a run that was found in a folder is not tested; '' where it is."""
    try:
        status, original = rundir.status(), rundir.reproduction_of()
    except RunDirError as error:
        return str(error)
    if original is not None:
        return f"a reproduction of {short_path(Path(original))}"
    if status is not None and status.status != "done":
        return f"{status.status} at outer step {status.step}"
    return "" if any(rundir.checkpoints.glob("step-*.json")) else "has no checkpoints"


def combine(words: Sequence[str], folders: ConfigFolders) -> list[list[str]]:
    """The words of each evaluation of a run: all combinations of lists of values. Raises UsageError for a range."""
    from hydra.core.override_parser.types import IntervalSweep

    from metarun.config.overrides import combinations, parse

    overrides = parse(words, folders)
    for override in overrides.sweeps:
        if isinstance(override.value(), IntervalSweep):
            word, key = override.input_line, override.get_key_element()
            raise UsageError(f"{word!r} (command line): a range is for a search; give values, {key}=A,B")
    found = {tuple(combination): combination for combination in combinations(overrides, folders)}
    return list(found.values())


def _check(jobs: Sequence[Job], folders: ConfigFolders) -> Prepared | None:
    """Prepares every evaluation; one that is alone is returned, of several only one at a time is held in memory.

    Raises:
        UsageError, DataError or RunDirError: the first one that is refused, and how many more are.
    """
    from metarun.run.evaluation import prepare
    from metarun.storage.rundir import RunDir

    if len(jobs) == 1:
        return prepare(RunDir(jobs[0][0]), jobs[0][1], folders)
    refused: list[tuple[Job, MetarunError]] = []
    for job in jobs:
        try:
            prepare(RunDir(job[0]), job[1], folders)
        except (UsageError, DataError, RunDirError) as error:
            refused.append((job, error))
    if refused:
        job, error = refused[0]
        more = f", and {len(refused) - 1} more of {len(jobs)}" if len(refused) > 1 else ""
        raise type(error)(f"{error} (in {_spell(job)}{more})") from error
    return None


def _make(job: Job, prepared: Prepared | None, again: bool, folders: ConfigFolders) -> Evaluated:
    """Makes an evaluation, or finds it made before. What goes wrong in one of several is its result."""
    from metarun.config.own_code import explain
    from metarun.results.evaluations import Evaluated
    from metarun.run.evaluation import evaluate, find_made, prepare
    from metarun.storage.rundir import RunDir

    run, words = job
    evaluated = Evaluated(run=str(run), settings=_settings(words, folders), status="failed")
    try:
        ready = prepared or prepare(RunDir(run), words, folders)
        made = None if again else find_made(ready)
        if made is not None and (summary := made.summary()) is not None:
            return evaluated.with_result(summary, str(made.short)).model_copy(update={"status": "made_before"})
        out, summary = evaluate(ready)
        return evaluated.with_result(summary, str(out.short)).model_copy(update={"status": "done"})
    except Exception as error:
        if prepared:
            raise
        return evaluated.model_copy(update={"error": reason(explain(error) or error)})


def _settings(words: Sequence[str], folders: ConfigFolders) -> dict[str, Any]:
    """The values of these words by their keys."""
    from metarun.config.overrides import parse

    return {override.get_key_element(): override.value() for override in parse(words, folders).parsed}


def _spell(job: Job) -> str:
    return " ".join([str(job[0]), *job[1]])


def _print_one(evaluated: Evaluated) -> None:
    """Prints the closing words of an evaluation that is alone."""
    from metarun.storage.rundir import RunDir

    assert evaluated.folder is not None
    summary: Summary | None = RunDir(Path(evaluated.folder)).summary()
    assert summary is not None
    note = {"made_before": MADE_BEFORE} if evaluated.status == "made_before" else {}
    print_result(summary, {"files": evaluated.folder, **note})


def _closing_words(names: Sequence[str], found: Sequence[Evaluated]) -> str:
    """How to see several evaluations beside each other; and what those made before are."""
    places = names if all(map(os.path.isdir, names)) else dict.fromkeys(evaluation.run for evaluation in found)
    lines = [" ".join(["metarun table", *(typed_path(Path(place)) for place in places), "evaluations=true"])]
    if any(evaluation.status == "made_before" for evaluation in found):
        lines.insert(0, f"made before: {MADE_BEFORE}")
    return "\n".join(lines)
