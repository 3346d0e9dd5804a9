"""How far a run is, for people: its opening words, a bar on a terminal, and lines in the log."""

import logging
import sys
import threading
from contextlib import suppress
from pathlib import Path

import torch
from tqdm import tqdm
from typing_extensions import Self

from metarun.config.schema import Config
from metarun.engine.loop import Experiment
from metarun.engine.ranks import world_size
from metarun.run.summary import training_of
from metarun.run.words import describe_position, describe_training, name_source
from metarun.storage.records import Position, Source
from metarun.text import count_of, is_terminal, short_path

log = logging.getLogger("metarun")
PATIENCE = 1.0  # seconds
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


class Announcement:
    """Logs what will run: when all inside is done, or after a second; not what is refused at once, which gets one line.

    `aloud` is whether the console has it too, once.
    """

    def __init__(self, aloud: bool = True):
        self.aloud, self._line, self._timer = aloud, "", threading.Timer(PATIENCE, self._say)
        self._timer.daemon = True

    def begin(self, config: Config, folder: Path, experiment: Experiment) -> None:
        """This is what will run; its data need not be ready."""
        with suppress(Exception):  # of a source of one's own, whose facts are yet to be checked
            self._line = _opening_words(config, experiment, folder)
            self._timer.start()

    def __enter__(self) -> Self:
        """Waits for begin()."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Says it, if nothing was raised."""
        if self._line:
            self._timer.cancel()
            self._timer.join()
            if kind is None:
                self._say()

    def _say(self) -> None:
        line, self._line = self._line, ""
        if line:
            log.info("%s", line, extra={"once": True, "aloud": self.aloud})


def _opening_words(config: Config, experiment: Experiment, folder: Path) -> str:
    training = describe_training(training_of(config, experiment.algorithm))
    device, processes = experiment.device, world_size()
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    where = gpu or f"cpu ({count_of(torch.get_num_threads(), 'thread')})"
    several = f"{processes} processes on " if processes > 1 else ""
    source = name_source(Source(**experiment.source.facts()))
    what = f"{experiment.algorithm.name} on {source}, {training}"
    return f"{what}, {several}{where}, in {short_path(folder.resolve())}"


class Progress:
    """A bar, or lines.

    Args:
        steps: outer steps in all.
        done: outer steps that are done already.
        aloud: whether the console shows how far the run is, as a bar on a terminal and else as lines; the log has the
            lines in any case.
    """

    def __init__(self, steps: int, done: int, aloud: bool):
        self.steps = steps
        disable = not (aloud and is_terminal(sys.stderr))
        self.aloud = aloud and disable
        self.bar = tqdm(
            total=steps, initial=done, unit="step", bar_format=BAR, dynamic_ncols=True, disable=disable, leave=True
        )

    def advance(self) -> None:
        """Moves the bar by an outer step."""
        self.bar.update()

    def draw(self, position: Position) -> None:
        """Shows the position beside the bar."""
        if not self.bar.disable:
            self.bar.set_description_str(position.doing, refresh=False)
            self.bar.set_postfix_str(describe_position(position), refresh=False)
            self.bar.refresh()

    def say(self, step: int, position: Position) -> None:
        """Logs the position."""
        known = describe_position(position)
        line = f"outer step {step} of {self.steps}, {position.doing}{': ' if known else ''}{known}"
        log.info("%s", line, extra={"aloud": self.aloud})

    def close(self, position: Position) -> None:
        """Closes the bar, which stays on the terminal as it ended."""
        self.draw(position)
        self.bar.close()
