"""A trained run tested on another task source: what that source is given of the run's, and whether the learner fits."""

import logging
from collections.abc import Container
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from metarun.config.schema import Config
from metarun.config.targets import settings_of
from metarun.data.classes import ClassSource
from metarun.data.inputs import describe_inputs, name_inputs
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
    size and channels of the images that the learner takes; all classes of images are for the test. Of the same source
    images are inverted as in the run. A setting that it refuses has its default.

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
    takes = takes if "size" in takes else {*takes} - {"splits"}  # what tables are scaled by comes from training tasks
    alike = config.data["_target_"] == trained.data["_target_"]  # then its images are as those of the run
    kept = {"invert": trained.data["invert"]} if alike and "invert" in trained.data else {}
    given = {
        key: value
        for key, value in {**_settings_of_test(before.source), **kept}.items()
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
            if "splits" in given and getattr(source, "has_own_splits", False):
                del given["splits"]  # they would have no effect
                continue
            _check_fit(source, before, name)
            return changed, source


def _settings_of_test(source: TaskSource) -> dict[str, Any]:
    """The settings of a source that has the same form of test tasks, and images of the same size."""
    facts, shape = source.facts(), source.input_shape
    form = {key: facts[key] for key in FORM if facts.get(key) is not None}
    # None of another source's classes was trained on, so that all of them can be test classes.
    images = {"size": shape[1], "channels": shape[0], "splits": [0, 0, 1]} if len(shape) == 3 else {}
    return form | {f"eval_{key}": None for key in form} | images


def _is_implied(key: str, trained: dict[str, Any], tested: dict[str, Any]) -> bool:
    """Whether a setting of the form is null in both, as the number of queries that is that of shots."""
    nulls = (data.get(name) is None for data in (trained, tested) for name in (key, f"eval_{key}"))
    return key in FORM and key in trained and all(nulls)


def _check_fit(source: TaskSource, before: Experiment, name: str) -> None:
    """Raises UsageError: what the source asks for, or gives, is not what the learner was trained with.

    Where both have ways, those are compared later, as in any evaluation.
    """
    own, ways = before.source, [part.facts().get("ways") for part in (before.source, source)]
    of_classes = own.metric == "accuracy" and (None not in ways or before.algorithm.any_ways)
    compared = {
        "metric": (own.metric, source.metric),
        "shape of an example": (tuple(own.input_shape), tuple(source.input_shape)),
        "number of outputs": (own.outputs, own.outputs if of_classes else source.outputs),
    }
    for what, (trained, tested) in compared.items():
        if trained != tested:
            raise UsageError(
                f"{tested} ({what}, data={name}): expected {trained}, as in training; give it other settings, or take "
                "another source"
            )
    _check_meaning(source, own, name)


def _check_meaning(source: TaskSource, own: TaskSource, name: str) -> None:
    """Raises UsageError: as many inputs stand for other features or symbols, which a learner knows by their places."""
    trained, tested = (name_inputs(describe_inputs(part)) for part in (own, source))
    differing = [(n, *pair) for n, pair in enumerate(zip_longest(trained, tested)) if pair[0] != pair[1]]
    if trained and tested and differing:
        n, first, other = differing[0]
        raise UsageError(
            f"{other!r} (input {n}, data={name}): expected {first!r}, as in training; take data of the same inputs, or "
            "metarun adapt, which reads others as those of training were read"
        )


def has_other_data(config: Config, source: TaskSource, trained: Config, environment: Environment | None) -> bool:
    """Whether a source has other data than the run was trained on: another class, or files of another content."""
    if config.data["_target_"] != trained.data["_target_"]:
        return True
    digests = environment and environment.data_digest, source.identity().get("data_digest")
    return None not in digests and digests[0] != digests[1]


def warn_of_known_classes(tested: TaskSource, trained: TaskSource, name: str) -> None:
    """Warns where test classes have names of classes that the run was trained with, as in a larger copy of its data.

    Of sources of one kind: classes of others go by other names, and need not be here.
    """
    tested, trained = (getattr(part, "source", part) for part in (tested, trained))  # of a table, the one that it has
    if type(tested) is not type(trained) or not isinstance(trained, ClassSource) or not isinstance(tested, ClassSource):
        return
    seen = {*trained.classes("train"), *trained.classes("val")}
    test = tested.classes("test")
    if known := [cls for cls in test if cls in seen]:
        words = "%d of its %d test classes, such as %s, have names of classes of training or validation"
        log.warning(f"data=%s: {words}: expected new ones, or it is no test", name, len(known), len(test), known[0])
