"""What an algorithm is: pure functions over one task.

An algorithm knows no meta-batch, no device and no file. Its meta-parameters are plain tensors by name; the engine maps
`meta_loss` and `adaptation_curve` over the tasks of a meta-batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metarun.errors import positive
from metarun.inner import Params
from metarun.tasks import Task, TaskSource


class Algorithm(ABC):
    """One meta-learning algorithm.

    Args:
        model: the learner. Its present parameters are the initial ones.
        meta_lr: rate of the outer optimiser.
        meta_optimizer: makes the outer optimiser from the meta-parameters, called with lr=meta_lr.

    Attributes:
        training_only: settings that have no effect on a trained algorithm, so that `metarun eval` refuses them.
    """

    training_only: tuple[str, ...] = ("meta_lr", "meta_optimizer")

    def __init__(
        self,
        model: nn.Module,
        *,
        meta_lr: float = 1e-3,
        meta_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    ):
        positive("meta_lr", meta_lr)
        self.model = model
        self.meta_lr = meta_lr
        self.meta_optimizer = meta_optimizer

    def init(self) -> Params:
        """The meta-parameters before the first outer step, new tensors by name: by default the learner's own."""
        return {name: value.detach().clone() for name, value in self.model.named_parameters()}

    @abstractmethod
    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """What meta-training lowers, on one task.

        Returns:
            The meta-loss, a scalar to differentiate; and the query metric after adaptation, a scalar to report.
        """

    @abstractmethod
    def adaptation_curve(self, meta: Params, task: Task) -> Tensor:
        """[K+1]: the query metric of one task after 0, 1, ..., K inner steps of testing."""

    @property
    def name(self) -> str:
        """For people: what the field calls the algorithm."""
        return type(self).__name__

    def optimizer(self, tensors: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The outer optimiser over the meta-parameters."""
        return self.meta_optimizer(tensors, lr=self.meta_lr)

    def describe(self, source: TaskSource) -> dict[str, str]:
        """Effective settings that a reader of the result has to know, for the summary."""
        return {}

    def predict(self, params: Params, x: Tensor, support: Tensor | None = None) -> Tensor:
        """The learner's outputs under these parameters.

        Args:
            params: of the learner, all of them.
            x: [n, *input_shape].
            support: the support inputs where x is a query; a learner with norm=support takes its statistics there.

        Returns:
            [n, N].
        """
        takes_support = hasattr(self.model, "norm")  # one of metarun's learners; any other module is called with x
        return functional_call(self.model, params, (x, support) if takes_support else (x,))
