"""Prototypical networks: a query point belongs to the class whose support points have the nearest mean.

    p(n | x) ∝ exp(-|f(x) - c_n|²),     c_n = mean of f over the support points of class n

Reference: Snell, Swersky & Zemel 2017, "Prototypical networks for few-shot learning", arXiv 1703.05175. f is the
learner without its last layer, and all its parameters are meta-learned; nothing is adapted to a task but the c_n.

As in the authors' code, support and query set are normalised together where batch norm is transductive. Training tasks
may have more ways than test tasks (data.ways=60 data.eval_ways=5), as theirs have; in experiment=snell2017/*_60way they
do. We differ in the outer rate: constant or with a schedule of its own, theirs is halved every 2000 episodes.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from metarun.algos.base import need_classes, without_head
from metarun.algos.feedforward import Feedforward, mask_absent
from metarun.models.functional import Params
from metarun.tasks import Task, TaskSource


@dataclass(eq=False, kw_only=True)
class ProtoNet(Feedforward):
    """Prototypical networks, with squared Euclidean distances."""

    any_ways = True

    def __post_init__(self):
        super().__post_init__()
        self.model, head = without_head(self.model)
        self.ways = head.out_features  # at most; a task may have fewer

    @property
    def name(self) -> str:
        """See Algorithm."""
        return "Prototypical networks"

    def check(self, source: TaskSource, meta_batch: int) -> None:
        """See Algorithm."""
        need_classes(self, source)

    def answers(self, meta: Params, task: Task) -> Tensor:
        """[Q, N] minus the squared distance between query points and prototypes; least for a class without support."""
        features = self.predict_points(meta, task)
        support, query = features.tensor_split([len(task.support_x)])
        members = F.one_hot(task.support_y, self.ways).to(support.dtype)  # [S, N]
        number = members.sum(dim=0)
        prototypes = members.T @ support / number.clamp(min=1)[:, None]
        logits = -(query[:, None] - prototypes).square().sum(dim=-1)
        return mask_absent(logits, number)
