"""metarun eval: meta-test a trained run again; the result goes to DIR/eval/<date>/<time>.

Under other settings, or with data=NAME on another task source that fits its learner: a test across domains.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from metarun.commands.common import add_run, find_choices, print_result
from metarun.config.keys import key_of, policy
from metarun.config.schema import PATHS
from metarun.engine.ranks import refuse_several_processes
from metarun.errors import DataError, RunDirError, UsageError

if TYPE_CHECKING:
    from metarun.config.schema import Config
    from metarun.engine.loop import Experiment
    from metarun.storage.rundir import RunDir
    from metarun.tasks import TaskSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, and changes of the settings that act in meta-testing."""
    add_run(
        parser,
        "a setting that acts in meta-testing, such as data.eval_shots=5 or test_tasks=1000; or data=NAME, another task "
        "source, which is given the ways, shots and queries of the run, and its size of images",
    )
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="a folder with choices of your own: data/mine.yaml")


def main(args: argparse.Namespace) -> None:
    """Meta-tests the best checkpoint, and prints the result."""
    refuse_several_processes("eval")
    from metarun.config.saved import dump
    from metarun.engine import loop
    from metarun.files import write_atomically
    from metarun.run import pictures
    from metarun.run.build import choose_chunks
    from metarun.run.contract import check_contract
    from metarun.run.environment import describe_session
    from metarun.run.identity import warn_of_changes
    from metarun.run.other_source import has_other_data, warn_of_known_classes
    from metarun.run.starting_point import newest_checkpoint, own_checkpoint, restore
    from metarun.run.summary import compare_training, summarize, test_tasks_of
    from metarun.storage.records import Environment
    from metarun.storage.rundir import RunDir, make_dated_folder

    rundir = RunDir(args.run)
    trained = rundir.config()
    config, experiment, before, name = _build(args, trained, rundir)
    newest = newest_checkpoint(rundir, trained)
    if newest is None or not newest["best"][0]:
        raise RunDirError(
            f"{args.run}: has no checkpoint with a validation yet; expected a run that got that far; "
            f"{rundir.resume_command}"
        )
    step, _ = newest["best"]
    experiment.source.prepare(experiment.device)
    check_contract(experiment, ("test",))
    other_data = name is not None and has_other_data(config, experiment.source, trained, rundir.environment())
    choices = rundir.choices() | ({"data": name} if name is not None else {})
    warn_of_changes(rundir, trained, config, experiment, other_data)
    if other_data and name is not None:
        warn_of_known_classes(experiment.source, before.source, name)
    state = loop.start(experiment)
    restore(experiment, state, own_checkpoint(rundir, trained, step), other_data)
    chunks = choose_chunks(config, experiment, state, "test")
    result = loop.meta_test(experiment, state.meta, "test", config.test_tasks, chunks)
    summary = summarize(config, experiment, state, result, choices=choices, run=str(rundir.short), steps=newest["step"])
    summary = summary.model_copy(update={"trained": compare_training(before, experiment, other_data)})
    rundir.refuse_links()
    out = RunDir(make_dated_folder(rundir.path / "eval"))
    write_atomically(out.path / "config.yaml", dump(config.plain()).encode())
    session = describe_session(config, experiment, chunks, ("test",))
    out.write("environment.json", Environment(**session.model_dump()))
    out.write("test_tasks.json", test_tasks_of(experiment, result))
    out.write("summary.json", summary)
    pictures.draw_curves([], summary, out.curve)
    pictures.draw_examples(experiment, state.meta, result.each, out.examples)
    print_result(summary, {"files": str(out.short)})


def _build(
    args: argparse.Namespace, trained: Config, rundir: RunDir
) -> tuple[Config, Experiment, Experiment, str | None]:
    """The config of the test, its experiment, that of the run as it was, and the name of the source that is chosen."""
    from metarun.config.compose import forget_composed
    from metarun.config.edit import chosen_source, with_changes, with_source
    from metarun.config.folders import ConfigFolders
    from metarun.run.build import build_experiment, check_ways_of_eval
    from metarun.run.other_source import build_other_source

    folders = ConfigFolders(extra=find_choices(args.config_dir))
    if args.config_dir:  # its files may have changed since an earlier call in this process
        forget_composed()
    if (name := chosen_source(args.words, folders)) is None:
        config = with_changes(trained.plain(), args.words)
    else:
        config = with_source(trained.plain(), args.words, rundir.choices(), folders)
    config = replace(config, logger=None)  # which may not be installed here
    # The data of training may have moved, which those words say that change nothing else of the source.
    moved = {key: config.data[key] for key in PATHS if name is None and key in config.data}
    as_it_was = replace(trained, device=config.device, logger=None, data=trained.data | moved)
    source = None
    try:
        before = build_experiment(as_it_was)
    except DataError:
        if name is None or (form := _recall_form(rundir)) is None:
            raise
        before = build_experiment(as_it_was, (), form)  # for a test on other data that of training need not be here
    if name is not None:
        config, source = build_other_source(config, trained, before, name, {key_of(word) for word in args.words})
    experiment = build_experiment(config, ("test",), source)
    _refuse_without_effect(args.words, config.data, experiment.algorithm.training_only)
    check_ways_of_eval(before.source, experiment)
    return config, experiment, before, name


def _recall_form(rundir: RunDir) -> TaskSource | None:
    """What the learner was trained for, as the run kept it; None where it did not."""
    from metarun.run.trained import Form

    environment, summary = rundir.environment(), rundir.summary()
    if environment is None or summary is None or environment.inputs is None or environment.outputs is None:
        return None
    return Form(environment.inputs, environment.outputs, summary.metric, summary.source)


def _refuse_without_effect(words: list[str], data: dict, training_only: tuple[str, ...]) -> None:
    """Raises UsageError for a setting that acts in meta-training only."""
    for word in words:
        key = word.partition("=")[0]
        section, _, last = key.partition(".")
        remedy = "start a new run to change it"
        if section == "data" and data.get(f"eval_{last}") is not None:
            remedy = f"set data.eval_{last}"
        elif policy(key).evaluate and not any(f"{key}.".startswith(f"algo.{name}.") for name in training_only):
            continue
        raise UsageError(f"{word!r} (command line): has no effect on meta-testing; {remedy}")
