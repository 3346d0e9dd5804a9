"""A trained run tested on another task source: what that source is given of the run's, and whether the learner fits."""

import logging
from collections.abc import Container
from dataclasses import replace
from typing import Any

from metarun.config.schema import Config
from metarun.config.targets import settings_of
from metarun.engine.loop import Experiment
from metarun.errors import UsageError
from metarun.run.build import build_source
from metarun.storage.records import Environment
from metarun.tasks import TaskSource

FORM = ("ways", "shots", "queries")

log = logging.getLogger("metarun")


def build_other_source(
    config: Config, trained: Config, before: Experiment, name: str, typed: Container[str]
) -> tuple[Config, TaskSource]:
    """The task source of a config for a test of a trained run, and the config with what the source was given.

    Where it has such settings and none is typed, it is given the ways, shots and queries of the run's own test, and the
    size and channels of the images that the learner takes; a setting that it refuses has its default.

    Args:
        config: with the source's settings in its YAML file, and those that were typed.
        trained: the config of the run.
        before: the run as it was, built of that.
        name: of the source, for messages.
        typed: dotted keys.

    Raises:
        UsageError: the source refuses its settings, or the learner does not fit it.
    """
    takes = settings_of("data", config.source) or config.source
    given = {
        key: value
        for key, value in _settings_of_test(before.source).items()
        if key in takes and f"data.{key}" not in typed and not _is_implied(key, trained.data, config.data)
    }
    while True:
        changed = replace(config, data=config.data | given)
        try:
            source = build_source(changed)
        except UsageError as error:
            key = getattr(error.__cause__, "name", None)
            if key not in given:
                raise
            log.warning("data.%s=%s of the run: not taken by data=%s, whose own holds", key, given.pop(key), name)
        else:
            _check_fit(source, before, name)
            return changed, source


def _settings_of_test(source: TaskSource) -> dict[str, Any]:
    """The settings of a source that has the same form of test tasks, and images of the same size."""
    facts, shape = source.facts(), source.input_shape
    form = {key: facts[key] for key in FORM if facts.get(key) is not None}
    images = {"size": shape[1], "channels": shape[0]} if len(shape) == 3 and shape[1] == shape[2] else {}
    return form | {f"eval_{key}": None for key in form} | images


def _is_implied(key: str, trained: dict[str, Any], tested: dict[str, Any]) -> bool:
    """Whether a setting of the form is null in both, as the number of queries that is that of shots."""
    nulls = (data.get(name) is None for data in (trained, tested) for name in (key, f"eval_{key}"))
    return key in FORM and key in trained and all(nulls)


def _check_fit(source: TaskSource, before: Experiment, name: str) -> None:
    """Raises UsageError: what the source asks for, or gives, is not what the learner was trained with."""
    own, algorithm = before.source, before.algorithm
    if source.metric != own.metric:
        raise UsageError(
            f"data={name} (command line): expected tasks whose metric is {own.metric}, as those of the run; theirs is "
            f"{source.metric}; take another source"
        )
    shape, wanted = tuple(source.input_shape), tuple(own.input_shape)
    if shape != wanted:
        raise UsageError(
            f"data={name} (command line): expected examples of shape {wanted}, as the run was trained on; these have "
            f"{shape}; give it other settings, or take another source"
        )
    if source.outputs != own.outputs and (own.metric == "mse" or not algorithm.any_ways):
        remedy = f"set data.ways={own.outputs}" if own.metric == "accuracy" else "take another source"
        raise UsageError(
            f"data={name} (command line): expected tasks of {own.outputs} outputs, as the learner of the run has; "
            f"these have {source.outputs}; {remedy}"
        )


def has_other_data(config: Config, source: TaskSource, trained: Config, environment: Environment | None) -> bool:
    """Whether a source has other data than the run was trained on: another class, or files of another content."""
    if config.data["_target_"] != trained.data["_target_"]:
        return True
    digests = environment and environment.data_digest, source.identity().get("data_digest")
    return None not in digests and digests[0] != digests[1]
