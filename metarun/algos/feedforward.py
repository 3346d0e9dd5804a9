"""The base class of algorithms without an inner loop: the support set and the queries go in, answers come out.

answers(θ, support, queries),     meta-loss = mean query loss of them
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from metarun.algos.base import Algorithm
from metarun.models.functional import Params
from metarun.models.unit import unit
from metarun.tasks import Task, example_losses, score


@dataclass(eq=False, kw_only=True)
class Feedforward(Algorithm):
    """An algorithm that answers in one pass. One method is to be written."""

    @abstractmethod
    def answers(self, meta: Params, task: Task) -> Tensor:
        """[Q, N] outputs on the queries of one task: logits of classes, or values. May not look at task.query_y."""

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean loss of the query set, and its metric, both []."""
        return unit(self._judge, meta, task)

    def _judge(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """See meta_loss. A unit."""
        outputs = self.answers(meta, task)
        return example_losses(outputs, task.query_y).mean(), score(outputs, task.query_y)

    def predict_points(self, params: Params, task: Task) -> Tensor:
        """[S + Q, N] the learner's outputs for support and query together, as a transductive batch norm sees them."""
        return self.predict(params, torch.cat([task.support_x, task.query_x]), task.support_x)

    def predictions(self, meta: Params, task: Task) -> Tensor:
        """[1, Q, N] outputs: there are no inner steps."""
        return self.answers(meta, task)[None]


def mask_absent(logits: Tensor, number: Tensor) -> Tensor:
    """[Q, N] logits, the least number there is for classes of which the support set has no example ([N] how many)."""
    return logits.masked_fill(number == 0, torch.finfo(logits.dtype).min)
