"""Pretraining: one learner for all tasks together, fine-tuned on a new task's support set.

    θ <- θ - β ∇_θ mean over tasks of L_support+query(θ)

Reference: the baseline of Finn, Abbeel & Levine 2017, section 5.1, arXiv 1703.03400. They choose the rate of
fine-tuning for it; here it is `inner_lr`, to be chosen by validation.

The `Oracle` is their upper bound on sinusoids: the same, where every input comes with the truth about its task, so that
nothing is left to adapt to.
"""

from dataclasses import dataclass

from torch import Tensor

from metarun.algos.gradient import GradientBased
from metarun.errors import SettingError
from metarun.models.functional import Params
from metarun.models.unit import unit
from metarun.tasks import Task, TaskSource, example_losses, score


@dataclass(eq=False, kw_only=True)
class Pretrain(GradientBased):
    """Joint training. As training has no inner loop, its training metrics are those before any adaptation."""

    @property
    def name(self) -> str:
        """See Algorithm."""
        return "Pretraining"

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean loss of all the task's points, and the query metric, both [] and without adaptation."""
        return unit(self._joint_loss, meta, task)

    def _joint_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """See meta_loss. A unit."""
        x, y = task.points()
        return example_losses(self.predict(meta, x), y).mean(), score(self.query(meta, task), task.query_y)


@dataclass(eq=False, kw_only=True)
class Oracle(Pretrain):
    """Joint training on a source that tells the truth about each task."""

    @property
    def name(self) -> str:
        """See Algorithm."""
        return "Oracle"

    def check(self, source: TaskSource, meta_batch: int) -> None:
        """See Algorithm. Of a run that is taken out the examples have the truth beside them."""
        if hasattr(source, "sample") and not getattr(source, "tell", False):
            raise SettingError(
                source.facts()["name"],
                "data",
                "a source that can tell the truth about its tasks, such as data=sinusoid",
            )
