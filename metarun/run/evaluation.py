"""A trained run, meta-tested again: under other settings, or on another task source that fits its learner.

prepare     all that can be refused; nothing is written
find_made   the same test, made before
evaluate    the test, and its files in RUN/eval/<date>/<time>
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from metarun.config.edit import chosen_source, with_changes, with_source
from metarun.config.folders import ConfigFolders
from metarun.config.keys import key_of, leaves, policy, value_in_test
from metarun.config.overrides import spell_apart
from metarun.config.saved import dump, saved_config
from metarun.config.schema import PATHS, Config
from metarun.config.targets import settings_of
from metarun.engine import loop
from metarun.engine.loop import Experiment, State
from metarun.errors import DataError, MetarunError, RunDirError, UsageError
from metarun.files import write_atomically
from metarun.run import pictures
from metarun.run.build import build_experiment, check_ways_of_eval, choose_chunks, refuse_without_effect
from metarun.run.contract import check_contract
from metarun.run.environment import describe_session
from metarun.run.identity import identify, warn_of_changes
from metarun.run.other_source import build_other_source, has_other_data, warn_of_known_classes
from metarun.run.starting_point import newest_checkpoint, own_checkpoint, restore
from metarun.run.summary import compare_training, summarize, test_tasks_of
from metarun.storage import checkpoint
from metarun.storage.records import Checkpoint, Environment, Identity, Summary
from metarun.storage.rundir import RunDir, make_dated_folder
from metarun.tasks import TaskSource

PLACE = "make it one, or test a copy of the run"
FORM = ("shots", "queries", "ways")  # of a source, which has them in training and, as eval_shots and so on, in the test


@dataclass(frozen=True)
class Prepared:
    """An evaluation that nothing is left to refuse of.

    Attributes:
        trained: the config of the run; `config` is that of the test.
        before: the run as it was, built.
        state: with the best checkpoint, which `checkpoint` names.
        source: the name of the task source that was chosen for the test; None: the run's own.
        other_data: whether the test has other data than training had.
        steps: outer steps that the run has done.
    """

    rundir: RunDir
    trained: Config
    config: Config
    experiment: Experiment
    before: Experiment
    state: State
    checkpoint: Checkpoint
    source: str | None
    other_data: bool
    steps: int


def prepare(rundir: RunDir, words: Sequence[str], folders: ConfigFolders) -> Prepared:
    """Builds the test of a run with these changes, and reads its data and its best checkpoint.

    Raises:
        UsageError: a change is refused, or has no effect on the test.
        DataError: the data is missing, incomplete or altered.
        RunDirError: the run has no checkpoint that fits.
    """
    trained, words = rundir.config(), spell_apart(words)
    name = chosen_source(words, folders)
    config, experiment, before = _build(rundir, trained, words, name, folders)
    newest = newest_checkpoint(rundir, trained)
    if newest is None or not newest["best"][0]:
        raise RunDirError(
            f"{rundir.short}: has no checkpoint with a validation yet; expected a run that got that far; "
            f"{rundir.resume_command}"
        )
    RunDir(rundir.path / "eval").check_place(PLACE)  # before the work
    experiment.source.prepare(experiment.device)
    check_contract(experiment, ("test",))
    other_data = name is not None and has_other_data(config, experiment.source, trained, rundir.environment())
    step, _ = newest["best"]
    state = loop.start(experiment)
    restore(experiment, state, own_checkpoint(rundir, trained, step), other_data)
    digest = checkpoint.digest_of(rundir.checkpoints, step)
    tested = Checkpoint(step=step, run=str(rundir.short), sha256=digest)
    return Prepared(rundir, trained, config, experiment, before, state, tested, name, other_data, newest["step"])


def find_made(prepared: Prepared) -> RunDir | None:
    """The newest evaluation with the same settings, checkpoint, data and code; else the run, whose own test may be it.

    None: there is none.
    """
    now = identify(prepared.config, prepared.experiment, ("test",))
    prepared.rundir.refuse_links()
    evaluations = sorted((prepared.rundir.path / "eval").glob("*/*"), reverse=True)
    made = (RunDir(folder) for folder in evaluations if _is_same(RunDir(folder), prepared, now))
    found = next(made, None) or (prepared.rundir if _is_same(prepared.rundir, prepared, now) else None)
    if found is not None:
        _warn(prepared)
    return found


def _is_same(made: RunDir, prepared: Prepared, now: Identity) -> bool:
    """Whether an evaluation, or the test of the run itself, is the one that is prepared."""
    own = made is prepared.rundir
    try:
        summary, environment = made.summary(), made.environment()
        if summary is None or environment is None or summary.checkpoint is None:
            return False
        tested = summary.checkpoint.model_dump(include={"step"} if own else {"sha256"})  # a run does not say the digest
        if any(getattr(prepared.checkpoint, field) != value for field, value in tested.items()):
            return False
        first = {split: digest for split, digest in environment.first_tasks.items() if split in now.first_tasks}
        then = environment.model_copy(update={"first_tasks": first})
        if any(getattr(then, field) != getattr(now, field) for field in Identity.model_fields):
            return False
        config = prepared.trained if own else saved_config(made.path / "config.yaml")
    except MetarunError:  # it is damaged, or of another version
        return False
    old, new = (dict(leaves(config.plain())) for config in (config, prepared.config))
    return not any(value_in_test(old, key) != value_in_test(new, key) for key in old | new if policy(key).evaluate)


def _warn(prepared: Prepared) -> None:
    """Says what a reader of the result has to know, whether the test is made now or was before."""
    experiment = prepared.experiment
    warn_of_changes(prepared.rundir, prepared.trained, prepared.config, experiment, prepared.other_data)
    if prepared.other_data and prepared.source is not None:
        warn_of_known_classes(experiment.source, prepared.before.source, prepared.source)


def evaluate(prepared: Prepared) -> tuple[RunDir, Summary]:
    """Meta-tests, and writes the files; returns their folder and the summary."""
    rundir, config, experiment, state = prepared.rundir, prepared.config, prepared.experiment, prepared.state
    _warn(prepared)
    choices = rundir.choices() | ({"data": prepared.source} if prepared.source is not None else {})
    chunks = choose_chunks(config, experiment, state, "test")
    result = loop.meta_test(experiment, state.meta, "test", config.test_tasks, chunks)
    summary = summarize(config, experiment, state, result, choices=choices, steps=prepared.steps)
    trained = compare_training(prepared.before, experiment, prepared.other_data)
    summary = summary.model_copy(update={"checkpoint": prepared.checkpoint, "trained": trained})
    rundir.refuse_links()
    out = RunDir(make_dated_folder(rundir.path / "eval", remedy=PLACE))
    write_atomically(out.path / "config.yaml", dump(config.plain()).encode())
    session = describe_session(config, experiment, chunks, ("test",))
    out.write("environment.json", Environment(**session.model_dump()))
    out.write("test_tasks.json", test_tasks_of(experiment, result))
    out.write("summary.json", summary)
    pictures.draw_curves([], summary, out.curve)
    pictures.draw_examples(experiment, state.meta, result.each, out.examples)
    return out, summary


def _build(
    rundir: RunDir, trained: Config, words: Sequence[str], name: str | None, folders: ConfigFolders
) -> tuple[Config, Experiment, Experiment]:
    """The config of the test, its experiment, and that of the run as it was; `name` is of the source that is chosen."""
    if name is None:
        words = [_acting_in_test(word, trained.source) for word in words]
        config = with_changes(trained.plain(), words)
    else:
        config = with_source(trained.plain(), words, rundir.choices(), folders)
    config = replace(config, logger=None)  # which may not be installed here
    typed = {key_of(word) for word in words}
    if "data.root" in typed and "data.download" not in typed and "download" in config.data:
        config = replace(config, data=config.data | {"download": False})  # nothing is put into a folder of the user's
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
        config, source = build_other_source(config, trained, before, name, typed)
    # The learner begins as that of the run did: of its class not all need be in a checkpoint.
    experiment = build_experiment(replace(config, seed=trained.seed), ("test",), source)
    experiment = replace(experiment, seed=config.seed)
    _refuse_what_only_trains(words, config.data, experiment.algorithm.training_only)
    refuse_without_effect(words, config)
    check_ways_of_eval(before.source, experiment)
    return config, experiment, before


def _acting_in_test(word: str, source: dict) -> str:
    """The word, where the source has such a setting for the test alone with that: data.eval_shots=5 for data.shots=5.

    So training stays what it was, and a value for the test alone that the run has itself does not hide the new one.
    """
    key, equals, value = word.partition("=")
    section, _, last = key.partition(".")
    if section == "data" and last in FORM and f"eval_{last}" in (settings_of("data", source) or ()):
        return f"data.eval_{last}{equals}{value}"
    return word


def _recall_form(rundir: RunDir) -> TaskSource | None:
    """What the learner was trained for, as the run kept it; None where it did not."""
    from metarun.run.trained import Form

    environment, summary = rundir.environment(), rundir.summary()
    if environment is None or summary is None or environment.inputs is None or environment.outputs is None:
        return None
    return Form(environment.inputs, environment.outputs, summary.metric, summary.source)


def _refuse_what_only_trains(words: Sequence[str], data: dict, training_only: tuple[str, ...]) -> None:
    """Raises UsageError for a setting that acts in meta-training only."""
    for word in words:
        key = word.partition("=")[0]
        section, _, last = key.partition(".")
        remedy = "start a new run to change it"
        if section == "data" and data.get(f"eval_{last}") is not None:
            remedy = f"set data.eval_{last}"
        elif policy(key).evaluate and not any(f"{key}.".startswith(f"algo.{name}.") for name in training_only):
            continue
        elif key == "algo.inner_steps":
            remedy = "set algo.eval_inner_steps, which are those of the test"
        raise UsageError(f"{word!r} (command line): has no effect on meta-testing; {remedy}")
