"""Where a trained learner comes from, and goes to: a run directory, or a file that metarun export wrote."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metarun.config.earlier import without_gone
from metarun.config.schema import PATHS, Config, check
from metarun.config.targets import check_target, targets
from metarun.data.inputs import check_inputs, describe_inputs
from metarun.errors import RunDirError, UsageError
from metarun.run.build import build_source
from metarun.run.starting_point import newest_checkpoint, own_checkpoint
from metarun.run.trained import Form, Trained
from metarun.run.words import closing_words
from metarun.storage.exported import VERSION, read_exported, write_exported
from metarun.storage.learner_records import Exported
from metarun.storage.rundir import RunDir

SUPPORT = ("support.x", "support.y")  # beside the meta-parameters in the file of an adapted learner


def load_trained(path: str | Path) -> Trained:
    """The trained learner of a run directory, or of an exported file.

    Raises:
        RunDirError: it is neither; the run is not finished; or what is there cannot be used.
        UsageError: a class of the user's has no trust.
        DataError: a run of an earlier version kept no preprocessing, and its data is not here.
    """
    path = Path(path)
    if os.path.isdir(path):
        return _load_run(path)
    if os.path.isfile(path):
        return _load_file(path)
    raise RunDirError(f"{path}: expected a run directory, or a file that `metarun export` wrote")


def _load_run(path: Path) -> Trained:
    rundir = RunDir(path)
    if not rundir.holds_run:
        raise RunDirError(f"{path}: no run there; expected a folder with .hydra/config.yaml, or an exported file")
    config = replace(rundir.config(), logger=None)
    status, summary, environment = rundir.status(), rundir.summary(), rundir.environment()
    if status is None or status.status != "done" or summary is None or environment is None:
        step = f" (outer step {status.step} of {config.outer_steps})" if status else ""
        raise RunDirError(f"{path}: not finished{step}; expected a finished run; {rundir.resume_command}")
    newest = newest_checkpoint(rundir, config)
    assert newest is not None
    step = newest["best"][0]
    saved = own_checkpoint(rundir, config, step)
    inputs, outputs = environment.inputs, environment.outputs
    if inputs is None or outputs is None:  # of a run from before they were kept
        source = build_source(config)
        inputs, outputs = describe_inputs(source), source.outputs
    _refuse_other_inputs(path, inputs)
    facts = Exported(
        version=VERSION,
        name=path.resolve().name,
        config=_without_places(config),
        inputs=inputs,
        outputs=outputs,
        metric=summary.metric,
        frozen=saved["frozen"],
        step=step,
        split_hash=environment.split_hash,
        data_digest=environment.data_digest,
        code=environment.code,
        summary=summary,
    )
    return Trained(path, facts, config, saved["meta"])


def _without_places(config: Config) -> dict[str, Any]:
    """The plain config without what names a place of this machine."""
    data = {key: None if key in PATHS else value for key, value in config.data.items()}
    return config.plain() | {"data": data}


def _load_file(path: Path) -> Trained:
    facts, arrays = read_exported(path)
    _refuse_other_inputs(path, facts.inputs)
    config, task = _config_of(path, facts), facts.task
    support = None
    if task is not None:
        try:
            support = arrays.pop(SUPPORT[0]), arrays.pop(SUPPORT[1])
            Form(facts.inputs, facts.outputs, facts.metric).check_support(task, *support)
        except (KeyError, ValueError) as error:
            raise RunDirError(
                f"{path}: its support examples: {error}: expected those of its task; save it anew"
            ) from error
    meta = {name: torch.from_numpy(value) for name, value in arrays.items()}
    return Trained(path, facts, config, meta, support)


def _config_of(path: Path, facts: Exported) -> Config:
    """The config of an exported learner; of its classes only those that are built need trust. Raises UsageError."""
    try:
        config = replace(check(without_gone(dict(facts.config)), check_class=lambda key, target: None), logger=None)
    except UsageError as error:
        raise RunDirError(f"{path}: its config cannot be used: {error}") from error
    for key, target in targets({**config.plain(), "data": {}}, ""):
        check_target(key, target)
    return config


def _refuse_other_inputs(path: Path, inputs: dict[str, Any]) -> None:
    try:
        check_inputs(inputs)
    except ValueError as error:
        raise RunDirError(f"{path}: cannot be used: {error}; take it anew from whoever has the run") from error


def save_trained(trained: Trained, path: Path) -> str:
    """Writes a trained learner to a file, with its support examples if it has any; returns its card.

    Raises:
        UsageError: the name has another suffix than .safetensors.
        RunDirError: something else is there, or it cannot be written.
    """
    support = dict(zip(SUPPORT, trained.support, strict=True)) if trained.support else {}
    card = _write_card(trained.facts)
    write_exported(path, trained.facts, {name: value.numpy() for name, value in trained.meta.items()} | support, card)
    return card


def _write_card(facts: Exported) -> str:
    """What the learner is, in words."""
    result = closing_words(facts.summary, {}).strip() if facts.summary else facts.name
    shape = "x".join(map(str, facts.inputs["shape"]))
    lines = {"inputs": f"{facts.inputs['kind']} of shape {shape}"}
    if not facts.split_hash.startswith("none"):
        lines["class split"] = facts.split_hash[:12]
    if facts.task is not None:
        count = len(facts.task.classes or [])
        lines["learned"] = f"a task{f' of {count} classes' if count else ''}, with its support examples"
    own = {str(target).partition(".")[0] for _, target in targets({**facts.config, "data": {}}, "")}
    if own := sorted(own - {"metarun", "torch"}):
        lines["needs"] = f"METARUN_TRUST={','.join(own)}, and that code where it is loaded"
    return "\n".join([result, *(f"{name:<13} {words}" for name, words in lines.items())])
