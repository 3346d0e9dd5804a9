"""The JSON files of a run: for each its typed record, which writes it, reads it, and refuses what is not one.

Facts are stored; sentences are made of them where they are printed (run/words.py). Accuracies are shares of 1. Older
files stay readable: what was added later has a default, and summaries from before there were facts have `title` and
`settings` in words.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import Self

Metric = Literal["accuracy", "mse"]
Phase = Literal["running", "done", "failed", "stopped"]
Count = Annotated[int, Field(ge=0, lt=10**15)]
Moment = Annotated[float, Field(ge=0, lt=10**11)]  # seconds since 1970, which a calendar has
TASK_DIGITS = 8  # of a task's digest


class Record(BaseModel):
    """A JSON object of known shape. Numbers are finite; nothing is converted; unknown keys are dropped."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, populate_by_name=True)

    @classmethod
    def from_json(cls, content: bytes | str) -> Self:
        """The record that the text of a file holds.

        Raises:
            ValueError: it is no JSON object, or not of this shape; in one line.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ValueError(f"{where}: {first['msg']}") from error

    def plain(self) -> dict[str, Any]:
        """The record as JSON has it, without what is None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_document(self) -> str:
        """The record as a JSON document that has every key; what is not known is null."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, allow_nan=False)

    def to_json(self) -> bytes:
        """The content of its file: strict JSON, a line for each key, without what is None."""
        lines = [f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in self.plain().items()]
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


class Point(Record):
    """A mean over tasks, and half the width of its 95% interval."""

    mean: float
    ci95: float
    unclustered: float | None = None  # ci95 as it would be if tasks shared no classes or tables; None where they do not


class Clusters(Record):
    """What the tasks of a test share, over which its interval is: `classes` or `tables`, how many, how many a task."""

    kind: str
    number: Count
    in_task: Count


class Test(Point):
    """The test: the metric over `tasks` tasks after the last inner step, and after each of 0..K inner steps."""

    tasks: Count
    by_step: Annotated[list[Point], Field(min_length=1)]
    clusters: Clusters | None = None  # None where tasks are independent, and in runs from before they were seen to


class Validation(Record):
    """The best validation: its mean, over how many tasks, after which outer step."""

    mean: float
    step: Count = 0
    tasks: Count = 0


class EarlierTest(Point):
    """A test at an earlier end of a run that went on: after how many outer steps, of which checkpoint."""

    outer_steps: Count
    step: Count
    tasks: Count


class Inner(Record):
    """The inner loop."""

    rule: str  # SGD, Adam, LSTM, or `learned rates`
    lr: float | None = None  # None for a rule that has none
    lr_on_mean: float | None = None  # the rate as it acts on the mean support loss, where that is reduced otherwise
    reduction: str = "mean"  # of the inner loss over examples; or per_shot
    steps: Count  # in training
    eval_steps: Count  # in validation and test


class Source(Record):
    """The task source; shots and queries of a class, in regression of a task."""

    name: str
    ways: Count | None = None  # classes of a task in validation and test; None in regression
    train_ways: Count | None = None  # in training, where there are others
    shots: Count  # in validation and test
    queries: Count
    train_shots: Count
    train_queries: Count
    train_tasks: Count | None = None  # the number of different training tasks; None: no two are the same
    more: dict[str, str | int | float | bool | None] = {}  # further facts of the tasks by name, such as rotations


class Training(Record):
    """How long a run trained, and on what."""

    steps: Count  # outer steps done
    outer_steps: Count  # that the run has in all: the budget's share of meta_steps
    meta_batch: Count
    meta_steps: Count  # of the whole schedule
    budget: float
    trains: bool = True  # whether the algorithm learns anything in meta-training


class Learner(Record):
    """The network: its class, which published form it is, and its batch norm's statistics (`none` without)."""

    name: str
    form: str = ""
    norm: str = "none"


class Trained(Record):
    """How the run that an evaluation tests was trained, where that differs from the test: None where it does not."""

    source: Source | None = None  # of the training tasks
    inner: Inner | None = None
    details: dict[str, str] = {}
    norm: str | None = None  # the statistics of its batch norm
    other_data: bool = False  # whether the test has other data than the training: it is one across domains


class Checkpoint(Record):
    """The checkpoint that was tested: its outer step; of an evaluation also the run's directory, and its SHA-256."""

    step: Count
    run: str | None = None
    sha256: str | None = None  # None in a run, and in older evaluations


class Summary(Record):
    """summary.json: what a run or an evaluation came to."""

    choices: dict[str, str] = {}  # of Hydra's groups, such as {"algo": "maml"}
    algorithm: str = ""  # what the field calls it
    source: Source | None = None
    learner: Learner | None = None  # None where the algorithm has no use for one
    inner: Inner | None = None  # None where there is none
    details: dict[str, str] = {}  # more settings that a reader of the result has to know
    training: Training | None = None
    trained: Trained | None = None  # evaluations only
    checkpoint: Checkpoint | None = None
    parameters: Count = 0  # meta-parameters
    metric: Metric
    tests: dict[Metric, Test] = Field(alias="test")
    validations: dict[Metric, Validation] = Field(default={}, alias="val")  # the best; an evaluation has none
    earlier: list[EarlierTest] = []  # of a run that was extended: all tests before this one, in order
    objective: float | None = None  # of a sweeper; an evaluation has none
    wall_seconds: float = 0.0  # of all sessions
    # Summaries from before there were facts have these in words, and the outer steps of the run:
    title: str | None = None
    settings: dict[str, str] | None = None  # in those from before: effective settings, in words
    outer_steps: Count | None = Field(default=None, alias="meta_steps")

    def model_post_init(self, _: Any) -> None:
        """Refuses a summary without a test of its metric, or with neither facts nor words."""
        if self.metric not in self.tests:
            raise ValueError(f"no test of {self.metric}")
        if self.title is None and (self.source is None or self.training is None):
            raise ValueError("neither facts nor a title")

    @property
    def test(self) -> Test:
        """The test of its metric."""
        return self.tests[self.metric]

    @property
    def tests_so_far(self) -> list[EarlierTest]:
        """This test and those before it, as they are of a run that goes on; without this where an old one lacks facts.

        A run that is extended is tested again on the same tasks, and a reader has to know how often: the best of
        several tests is no test.
        """
        if self.steps is None or self.checkpoint is None:
            return self.earlier
        test = {"mean": self.test.mean, "ci95": self.test.ci95, "tasks": self.test.tasks}
        return [*self.earlier, EarlierTest(**test, outer_steps=self.steps, step=self.checkpoint.step)]

    @property
    def validation(self) -> Validation | None:
        """The best validation; None for an evaluation."""
        return self.validations.get(self.metric)

    @property
    def steps(self) -> int | None:
        """Outer steps that the run has in all; None where an old summary does not say."""
        return self.training.outer_steps if self.training else self.outer_steps


class Tasks(Record):
    """test_tasks.json: the metric of every test task after the last inner step, and a digest of the tasks.

    Two runs with the same digest were tested on the very same tasks, so that they can be compared task by task. Where
    one has more tasks, `each_digest` tells whether its first ones are those of the other.
    """

    metric: Metric = "accuracy"
    digest: str
    each_digest: str | None = None  # of every task the first TASK_DIGITS of its SHA-256, in a row; None in older runs
    inner_steps: Count = 0
    queries: Count | None = None  # of a task; None in runs whose intervals are intervals.former()
    each: list[float]
    clusters: list[list[Count]] | None = None  # the numbers of the classes, or of the table, that each is made of


class Position(Record):
    """How far a running process is, by its own clock. What is not known yet is None."""

    doing: str = "training"  # or preparing data, compiling, validating, testing, drawing
    began: Moment = 0.0  # of this session, in seconds since 1970
    updated: Moment = 0.0  # when this was written
    seconds_left: float | None = None  # of the whole run: training, validations and the test
    tasks_per_second: float | None = None
    memory_mb: Count | None = None  # peak, in MiB
    metric: Metric | None = None
    loss: float | None = None  # the last one logged, the mean meta-loss of one meta-batch
    score: float | None = None  # the metric with it
    validation: float | None = None  # the last one


class Status(Record):
    """status.json: running, done, failed or stopped; outer steps done; the error; the process and its position."""

    status: Phase
    step: Count = 0
    steps: Count | None = None  # outer steps that the run has in all; None in older runs
    error: str | None = None
    pid: int | None = None
    host: str | None = None
    position: Position | None = None  # None in older runs


class Git(Record):
    """The commit of metarun's own checkout."""

    commit: str
    dirty: bool = False


class Identity(Record):
    """What a run is made of beside its config: data, and the user's code. SHA-256 of each; '' or None: not known."""

    split_hash: str = ""
    data_digest: str | None = None
    pixels_digest: str | None = None
    split_seed: str | None = None
    first_tasks: dict[str, str] = {}  # of a source of the user's: of a few tasks, by split
    code: dict[str, str] = {}  # of the files of the user's trusted modules, by module


class Session(Identity):
    """One process of a run: everything outside the config that the last digits can depend on. No secrets."""

    versions: dict[str, str | None] = {}
    git: Git | None = None
    argv: list[str] = []
    platform: str = ""
    device: str = ""
    cpu_capability: str = ""
    intervals: str = ""  # over tasks, by which formula: intervals.NAME or CLUSTERED; '' stands for former()
    threads: int | None = None
    config: str | None = None
    seed: int | None = None
    processes: int = 1
    chunk: int | None = None
    eval_chunk: int | None = None
    inputs: dict[str, Any] | None = None  # data.inputs.describe_inputs(): what `adapt` does to new examples
    outputs: Count | None = None  # of the learner; N for classes
    after_step: Count | None = None  # outer steps done before it; None for the first session
    changed: list[str] = []  # keys of the config that were changed for it


class Environment(Session):
    """environment.json: the run's first session, and the sessions that went on with it."""

    continued: list[Session] = []  # in order
    reproduces: str | None = None  # the directory of the run that this one repeats; None where it repeats none

    @property
    def sessions(self) -> list[Session]:
        """All sessions, in order."""
        return [self, *self.continued]


class Manifest(Record):
    """step-N.json beside a checkpoint: what its file has to be."""

    step: Count
    bytes: Count
    sha256: str


class Published(Record):
    """What a paper reports of an experiment: accuracies as shares of 1; `by_step` the mean after some inner steps."""

    paper: Annotated[str, Field(min_length=1)]
    mean: float
    ci95: Annotated[float, Field(gt=0)] | None = None
    by_step: dict[int, float] = {}
