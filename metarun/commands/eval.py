"""metarun eval: meta-test a trained run again, under other settings; the result goes to DIR/eval/<date>/<time>."""

import argparse
from dataclasses import replace

from metarun.commands.common import add_run, print_result
from metarun.config.keys import policy
from metarun.engine.ranks import refuse_several_processes
from metarun.errors import RunDirError, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, and changes of the settings that act in meta-testing."""
    add_run(parser, "a setting that acts in meta-testing, such as data.eval_shots=5 or test_tasks=1000")


def main(args: argparse.Namespace) -> None:
    """Meta-tests the best checkpoint, and prints the result."""
    refuse_several_processes("eval")
    from metarun.config.edit import with_changes
    from metarun.config.saved import dump
    from metarun.engine import loop
    from metarun.files import write_atomically
    from metarun.run import pictures
    from metarun.run.build import build_experiment, check_ways_of_eval, choose_chunks
    from metarun.run.contract import check_contract
    from metarun.run.environment import describe_session
    from metarun.run.identity import warn_of_changes
    from metarun.run.starting_point import newest_checkpoint, own_checkpoint, restore
    from metarun.run.summary import compare_training, summarize, test_tasks_of
    from metarun.storage.records import Environment
    from metarun.storage.rundir import RunDir, make_dated_folder

    rundir = RunDir(args.run)
    trained = rundir.config()
    config = replace(with_changes(trained.plain(), args.words), logger=None)  # which may not be installed here
    experiment = build_experiment(config, ("test",))
    _refuse_without_effect(args.words, config.data, experiment.algorithm.training_only)
    before = build_experiment(replace(trained, device=config.device, logger=None))
    check_ways_of_eval(before.source, experiment)
    newest = newest_checkpoint(rundir, trained)
    if newest is None or not newest["best"][0]:
        raise RunDirError(
            f"{args.run}: has no checkpoint with a validation yet; expected a run that got that far; "
            f"{rundir.resume_command}"
        )
    step, _ = newest["best"]
    experiment.source.prepare(experiment.device)
    check_contract(experiment, ("test",))
    warn_of_changes(rundir, trained, config, experiment)
    state = loop.start(experiment)
    restore(experiment, state, own_checkpoint(rundir, trained, step))
    chunks = choose_chunks(config, experiment, state, "test")
    result = loop.meta_test(experiment, state.meta, "test", config.test_tasks, chunks)
    choices = rundir.choices()
    summary = summarize(config, experiment, state, result, choices=choices, run=str(rundir.short), steps=newest["step"])
    summary = summary.model_copy(update={"trained": compare_training(before, experiment)})
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
