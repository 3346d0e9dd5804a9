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
Count = Annotated[int, Field(ge=0, lt=10**15)]


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

    def to_json(self) -> bytes:
        """The content of its file: strict JSON, a line for each key."""
        lines = [f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in self.plain().items()]
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


class Point(Record):
    """A mean over tasks, and half the width of its 95% interval."""

    mean: float
    ci95: float


class Test(Point):
    """The test: the metric over `tasks` tasks after the last inner step, and after each of 0..K inner steps."""

    tasks: Count
    by_step: Annotated[list[Point], Field(min_length=1)]


class Validation(Record):
    """The best validation: its mean, over how many tasks, after which outer step."""

    mean: float
    step: Count = 0
    tasks: Count = 0


class Inner(Record):
    """The inner loop.

    Attributes:
        rule: the update rule: SGD, Adam, LSTM, or `learned rates`.
        lr: its rate; None for a rule that has none.
        lr_on_mean: the rate as it acts on the mean support loss, where the loss is reduced in another way.
        reduction: of the inner loss over examples: `mean` or `per_shot`.
        steps: in training.
        eval_steps: in validation and test.
    """

    rule: str
    lr: float | None = None
    lr_on_mean: float | None = None
    reduction: str = "mean"
    steps: Count
    eval_steps: Count


class Source(Record):
    """The task source.

    Attributes:
        name: such as omniglot.
        ways: classes of a task; None in regression.
        shots: support examples of a class (in regression: of a task) in validation and test.
        queries: query examples, likewise.
        train_shots: shots in training.
        train_queries: queries in training.
        more: what else makes the tasks what they are, by name, such as rotations.
    """

    name: str
    ways: Count | None = None
    shots: Count
    queries: Count
    train_shots: Count
    train_queries: Count
    more: dict[str, str | int | float | bool | None] = {}


class Training(Record):
    """How long and on what a run trained: outer steps done, of how many, each of `meta_batch` tasks.

    Attributes:
        steps: outer steps done.
        outer_steps: outer steps that the run has in all: the budget's share of meta_steps.
        meta_batch: tasks of an outer step.
        meta_steps: outer steps of the whole schedule.
        budget: share of the schedule that is run.
    """

    steps: Count
    outer_steps: Count
    meta_batch: Count
    meta_steps: Count
    budget: float


class Learner(Record):
    """The network: its class, which published form it is, and its batch norm's statistics (`none` without)."""

    name: str
    form: str = ""
    norm: str = "none"


class Trained(Record):
    """How the run that an evaluation tests was trained, where that differs from the test: None where it does not."""

    source: Source | None = None
    inner: Inner | None = None
    details: dict[str, str] = {}


class Checkpoint(Record):
    """The checkpoint that was tested: its outer step; of an evaluation also the run's directory."""

    step: Count
    run: str | None = None


class Summary(Record):
    """summary.json: what a run or an evaluation came to.

    Attributes:
        choices: of Hydra's groups, such as {"algo": "maml", "experiment": "finn2017/omniglot_5w1s"}.
        algorithm: for people: what the field calls it.
        source: the task source.
        learner: the network.
        inner: the inner loop; None where there is none.
        details: more settings that a reader of the result has to know, by name.
        training: how long.
        trained: of an evaluation, what was otherwise in training.
        checkpoint: which one was tested.
        parameters: how many meta-parameters.
        metric: accuracy or mse.
        tests: by the metric, the test.
        validations: by the metric, the best validation; an evaluation has none.
        objective: what a sweeper is given; an evaluation has none.
        wall_seconds: of all sessions.
        title: in summaries from before there were facts: what ran, in words.
        settings: in those: effective settings, in words.
        outer_steps: in those: outer steps of the run.
    """

    choices: dict[str, str] = {}
    algorithm: str = ""
    source: Source | None = None
    learner: Learner | None = None
    inner: Inner | None = None
    details: dict[str, str] = {}
    training: Training | None = None
    trained: Trained | None = None
    checkpoint: Checkpoint | None = None
    parameters: Count = 0
    metric: Metric
    tests: dict[Metric, Test] = Field(alias="test")
    validations: dict[Metric, Validation] = Field(default={}, alias="val")
    objective: float | None = None
    wall_seconds: float = 0.0
    title: str | None = None
    settings: dict[str, str] = {}
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
    def validation(self) -> Validation | None:
        """The best validation; None for an evaluation."""
        return self.validations.get(self.metric)

    @property
    def steps(self) -> int | None:
        """Outer steps that the run has in all; None where an old summary does not say."""
        return self.training.outer_steps if self.training else self.outer_steps


class Tasks(Record):
    """test_tasks.json: the metric of every test task after the last inner step, and a digest of the tasks.

    Two runs with the same digest were tested on the very same tasks, so that they can be compared task by task.
    """

    metric: Metric = "accuracy"
    digest: str
    inner_steps: Count = 0
    each: list[float]


class Status(Record):
    """status.json: running, done, failed or stopped; outer steps saved; the error; the process."""

    status: Literal["running", "done", "failed", "stopped"]
    step: Count = 0
    error: str | None = None
    pid: int | None = None
    host: str | None = None


class Git(Record):
    """The commit of metarun's own checkout."""

    commit: str
    dirty: bool = False


class Session(Record):
    """One process of a run: everything outside the config that the last digits can depend on. No secrets.

    Attributes:
        after_step: outer steps done before it; None for the first.
        changed: keys of the config that were changed for it.
    """

    versions: dict[str, str | None] = {}
    git: Git | None = None
    argv: list[str] = []
    platform: str = ""
    device: str = ""
    cpu_capability: str = ""
    threads: int | None = None
    config: str | None = None
    seed: int | None = None
    processes: int = 1
    chunk: int | None = None
    eval_chunk: int | None = None
    split_hash: str = ""
    data_digest: str | None = None
    pixels_digest: str | None = None
    split_seed: str | None = None
    after_step: Count | None = None
    changed: list[str] = []


class Environment(Session):
    """environment.json: the run's first session, Hydra's choices, and the sessions that went on with it.

    Attributes:
        choices: as in Summary; None in files from before they were stored.
        continued: the later sessions, in order.
    """

    choices: dict[str, str] | None = None
    continued: list[Session] = []


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
