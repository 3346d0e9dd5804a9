"""The base class of algorithms: pure functions over one task.

An algorithm knows no meta-batch, no device and no file. Its meta-parameters are plain tensors by name; the engine maps
`meta_loss` and `adaptation_curve` (the metric of its `predictions`) over the tasks of a meta-batch.

An algorithm is a dataclass: its fields are its settings, which are the keys of its YAML file.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metarun.errors import SettingError, one_of, positive
from metarun.models.functional import Params, call, weights_of
from metarun.models.learner import Learner
from metarun.tasks import Task, TaskSource, score
from metarun.text import spell_class


@dataclass(eq=False, kw_only=True)
class Algorithm(ABC):
    """A meta-learning algorithm.

    Args:
        model: the learner. Its present parameters are the initial ones.
        meta_lr: rate of the outer optimiser.
        meta_lr_schedule: of that rate over meta-training: `constant`, or down to zero, `linear` or `cosine` (half a
            period).
        meta_clip: the largest norm of a meta-gradient; a longer one is shortened to it. None: no limit.
        meta_optimizer: makes the outer optimiser from the meta-parameters, called with lr=meta_lr.

    Attributes:
        any_ways: whether test tasks may have more or fewer classes than training tasks; the learner's outputs are then
            as many as the largest have.
        trains: whether meta-training changes anything; else its loss need have no gradient.
        uses_learner: whether answers depend on the learner, `model`.
        training_weights: names of meta-parameters that only training needs, such as those of an output for each of the
            training classes. With other data they may have another shape.
        training_only: settings that have no effect on a trained algorithm, so that `metarun eval` refuses them.
        acts_with: {setting: (other setting, values)}: it has an effect with those values alone, and is refused without.
        origin: the algorithm that this is a stage of (see `at`), by default itself.
    """

    any_ways = False
    trains = True
    uses_learner = True
    training_weights: ClassVar[tuple[str, ...]] = ()
    training_only: ClassVar[tuple[str, ...]] = ("meta_lr", "meta_lr_schedule", "meta_clip", "meta_optimizer")

    acts_with: ClassVar[Mapping[str, tuple[str, tuple[str, ...]]]] = {}

    model: nn.Module = field(kw_only=False)
    meta_lr: float = 1e-3
    meta_lr_schedule: str = "constant"
    meta_clip: float | None = None
    meta_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam

    def __post_init__(self):
        self.origin = self
        positive("meta_lr", self.meta_lr)
        one_of("meta_lr_schedule", self.meta_lr_schedule, ["constant", "linear", "cosine"])
        if self.meta_clip is not None:
            positive("meta_clip", self.meta_clip)
        if "lr" in (given := getattr(self.meta_optimizer, "keywords", {})):
            raise SettingError(given["lr"], "meta_optimizer.lr", "no rate here; set algo.meta_lr")

    def init(self) -> Params:
        """{name: tensor}: the meta-parameters before the first outer step; by default copies of the learner's."""
        return {name: value.detach().clone() for name, value in weights_of(self.model).items()}

    @abstractmethod
    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The loss of one task that meta-training lowers, and the query metric that it reports.

        Args:
            meta: the meta-parameters.
            task: without a batch dimension.

        Returns:
            The meta-loss, [], to differentiate; and the query metric after adaptation, [].
        """

    @abstractmethod
    def predictions(self, meta: Params, task: Task) -> Tensor:
        """[K+1, Q, N] outputs (logits for classes) on the query set, after 0, 1, ..., K inner steps of a test."""

    def adaptation_curve(self, meta: Params, task: Task) -> Tensor:
        """[K+1] the query metric of one task, after 0, 1, ..., K inner steps of a test."""
        return torch.stack([score(outputs, task.query_y) for outputs in self.predictions(meta, task).unbind()])

    def inner_loop(self, meta: Params, task: Task) -> Iterator[Params]:
        """Yields the learner's parameters after 0, 1, ..., K inner steps of training; by default K is 0.

        It serves the message that names the first inner step whose numbers are not finite.
        """
        yield meta

    @property
    def name(self) -> str:
        """The algorithm's name in the field, for people."""
        return type(self).__name__

    @property
    def train_tasks(self) -> int | None:
        """The number of different training tasks, taken over and over; None: new ones in every outer step."""
        return None

    def at(self, progress: float) -> "Algorithm":
        """The algorithm as it is when this share of meta-training, in [0, 1], is done; by default itself."""
        return self

    @property
    def scheduled(self) -> bool:
        """Whether it depends on the progress of meta-training: its rate or its meta-loss."""
        return self.meta_lr_schedule != "constant" or self.at(0.0) is not self

    def check(self, source: TaskSource, meta_batch: int) -> None:  # noqa: B027
        """Refuses a source, or a size of meta-batch, on which the algorithm makes no sense.

        Raises:
            SettingError: it makes none; by default never.
        """

    def optimizer(self, tensors: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The outer optimiser of these meta-parameters."""
        return self.meta_optimizer(tensors, lr=self.meta_lr)

    def meta_lr_at(self, progress: float) -> float:
        """The outer optimiser's rate when this share of meta-training, in [0, 1], is done."""
        left = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}
        return self.meta_lr * left[self.meta_lr_schedule]

    def inner(self, source: TaskSource) -> dict[str, Any] | None:
        """The inner loop's facts: keyword arguments of storage.records.Inner; by default None: there is none."""
        return None

    def details(self, source: TaskSource) -> dict[str, str]:
        """Further facts for the summary, such as {"meta_gradient": "first order"}; values are short words."""
        return {}

    def predict(self, params: Params, x: Tensor, support: Tensor | None = None) -> Tensor:
        """The learner's outputs under the given parameters.

        Args:
            params: all parameters of the learner.
            x: [n, *input_shape].
            support: [S, *input_shape], the task's support inputs where x is its query set. A learner with norm=support
                takes the statistics of its batch norm from them.

        Returns:
            [n, N].
        """
        return call(self.model, params, x, support)


def need_classes(algorithm: Algorithm, source: TaskSource) -> None:
    """Refuses a source of regression tasks.

    Raises:
        SettingError: it is one.
    """
    if source.metric != "accuracy":
        why = f"{type(algorithm).__name__} has no meaning in regression"
        raise SettingError(source.facts()["name"], "data", f"a source of classes, such as data=omniglot: {why}")


def find_head(model: nn.Module, trained: bool = False) -> tuple[str, nn.Linear]:
    """The name of a learner's last layer, and the layer.

    Args:
        model: the learner.
        trained: whether its weights have to be meta-parameters.

    Raises:
        SettingError: it does not end in a linear layer, or in none that is trained.
    """
    if isinstance(model, Learner) and model.head_name is not None:
        name, head = model.head_name, dict(model.network.named_modules()).get(model.head_name)
        if isinstance(head, nn.Linear):
            names = {f"{name}.{weight}" for weight, _ in head.named_parameters()}
            if trained and not names <= set(weights_of(model)):
                raise SettingError(f"{model.own_class}.{name}", "model", "a last layer whose weights are trained")
            return name, head
    raise SettingError(
        spell_model(model), "model", "a learner whose outputs are those of a linear layer (torch.nn.Linear)"
    )


def spell_model(model: nn.Module) -> str:
    """The class of a learner, as its author knows it."""
    return model.own_class if isinstance(model, Learner) else spell_class(type(model))


def without_head(model: nn.Module) -> tuple[Learner, nn.Linear]:
    """A copy of a learner that ends at its features, and the last layer, which the copy lacks.

    Raises SettingError as find_head().
    """
    name, head = find_head(model)
    body = copy.deepcopy(model)
    assert isinstance(body, Learner)
    body.network.set_submodule(name, nn.Identity())
    return body, head
