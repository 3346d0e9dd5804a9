"""How long a run still takes, by how long its outer steps and validations took.

left = steps to go x seconds of a step + validations to go x seconds of one + test tasks x seconds of a validation task
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median_low

PREPARING, MEASURING, COMPILING = "preparing data", "measuring memory", "compiling"
TRAINING, VALIDATING, TESTING, DRAWING = "training", "validating", "testing", "drawing"
FIRST_LINE, LINES = 10.0, 60.0  # seconds after which a log or a pipe has a line, and between lines
RECENT = 300.0  # seconds of training by which a step is measured: beside other programs its time changes
ENDING = 2.0  # seconds for pictures and files


@dataclass
class Pace:
    """The clock of a run.

    Attributes:
        steps: outer steps in all.
        val_every: outer steps between validations; there is one after the last, too.
        meta_batch: tasks of an outer step.
        val_tasks: tasks of a validation.
        test_tasks: tasks of the test.
        step: outer steps done.
        doing: what the run does, one of the words above.
        now: gives seconds.
    """

    steps: int
    val_every: int
    meta_batch: int
    val_tasks: int
    test_tasks: int
    step: int = 0
    doing: str = PREPARING
    now: Callable[[], float] = field(kw_only=True)

    def __post_init__(self):
        self._since = self.now()  # it does this
        self._before: float | None = None  # when the first outer step began
        self._done = 0  # outer steps since then: of an algorithm that does not train only the last of all is done
        self._marks: deque[tuple[float, int]] = deque()  # (seconds, outer steps since) after outer steps: one a second
        self._newest: tuple[float, int] | None = None
        self._last = self._since  # the end of the last outer step
        self._validated = 0.0  # seconds of all validations, which the marks leave out
        self._validations: deque[float] = deque(maxlen=3)  # seconds of the last ones

    def begin(self, doing: str) -> None:
        """Does something else from now on."""
        now = self.now()
        if self.doing == VALIDATING:
            self._validations.append(now - self._since)
            self._validated += now - self._since
        if self._newest is None:
            self._before = now - self._validated
        self.doing, self._since, self._last = doing, now, now

    def outer_step(self, step: int) -> None:
        """An outer step is done."""
        self._last, self.step = self.now(), step
        self._done += 1
        newest = (self._last - self._validated, self._done)
        if not self._marks or newest[0] - self._marks[-1][0] >= 1:
            self._marks.append(newest)
        while len(self._marks) > 2 and newest[0] - self._marks[1][0] > RECENT:
            self._marks.popleft()
        self._newest = newest  # last, for another thread may ask at any moment, and then needs a mark

    @property
    def seconds_of_step(self) -> float | None:
        """Seconds of an outer step; None before the first. That one also compiles, and counts only when it is alone."""
        newest = self._newest
        if newest is None or self._before is None:
            return None
        mark = self._marks[0]
        first = mark if newest[1] > mark[1] else (self._before, 0)
        return (newest[0] - first[0]) / (newest[1] - first[1])

    @property
    def seconds_of_validation(self) -> float | None:
        """Seconds of a validation; before the first, as if its tasks took as long as those of training."""
        if self._validations:
            return median_low(self._validations)  # the first one may have compiled
        step = self.seconds_of_step
        return None if step is None else step * self.val_tasks / self.meta_batch

    @property
    def seconds_of_test(self) -> float | None:
        """Seconds of the test, by those of a validation."""
        validation = self.seconds_of_validation
        return None if validation is None else validation * self.test_tasks / self.val_tasks

    @property
    def tasks_per_second(self) -> float | None:
        """Training tasks in a second of training."""
        step = self.seconds_of_step
        return self.meta_batch / step if step else None

    def seconds_left(self) -> float | None:
        """Seconds to the end of the run; None where nothing has been measured yet."""
        since = self.now() - self._since
        if self.doing == DRAWING:
            return max(ENDING - since, 0.0)
        test, validation, step = self.seconds_of_test, self.seconds_of_validation, self.seconds_of_step
        if test is None or validation is None:
            return None
        if self.doing == TESTING:
            return max(test - since, 0.0) + ENDING
        left = test + ENDING + self._validations_to_go() * validation
        if self.doing == VALIDATING:
            left += max(validation - since, 0.0)
        if step is None or self.step == self.steps:
            return left
        begun = min(self.now() - self._last, step) if self.doing == TRAINING else 0.0
        return left + (self.steps - self.step) * step - begun

    def _validations_to_go(self) -> int:
        last = self.step < self.steps and self.steps % self.val_every != 0
        return self.steps // self.val_every - self.step // self.val_every + last
