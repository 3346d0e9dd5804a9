"""Matching networks: a query point has the labels of the support points that its features are most like.

    p(n | x) = Σ_{s: y_s = n} a(x, x_s),     a(x, ·) = softmax over the support set of σ cos(f(x), f(x_s))

Reference: Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra 2016, "Matching networks for one shot learning", arXiv
1606.04080. f is the learner without its last layer. We leave out their full context embeddings, and differ in σ: it is
meta-learned, and 1 there.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from metarun.algos.base import need_classes, without_head
from metarun.algos.feedforward import Feedforward
from metarun.errors import positive
from metarun.models.functional import Params
from metarun.tasks import Task, TaskSource

SHARPNESS = "log sharpness"  # beside the learner's parameters


@dataclass(eq=False, kw_only=True)
class Matching(Feedforward):
    """Matching networks.

    Args:
        sharpness: σ before meta-training, above 0.
    """

    any_ways = True
    training_only: ClassVar = (*Feedforward.training_only, "sharpness")

    sharpness: float = 10.0

    def __post_init__(self):
        super().__post_init__()
        positive("sharpness", self.sharpness)
        self.model, head = without_head(self.model)
        self.ways = head.out_features  # at most; a task may have fewer

    @property
    def name(self) -> str:
        """See Algorithm."""
        return "Matching networks"

    def check(self, source: TaskSource, meta_batch: int) -> None:
        """See Algorithm."""
        need_classes(self, source)

    def init(self) -> Params:
        """{name: tensor}: the learner's own weights, and log σ."""
        learner = super().init()
        like = next(iter(learner.values()), torch.zeros(()))
        return {**learner, SHARPNESS: like.new_tensor(math.log(self.sharpness))}

    def answers(self, meta: Params, task: Task) -> Tensor:
        """[Q, N] log p(n | x); the least number for a class without support."""
        learner = {name: value for name, value in meta.items() if name != SHARPNESS}
        features = self.predict_points(learner, task)
        support, query = F.normalize(features, dim=1).tensor_split([len(task.support_x)])
        logits = meta[SHARPNESS].exp() * (query @ support.T)  # [Q, S]
        strangers = F.one_hot(task.support_y, self.ways).T[None] == 0  # [1, N, S]
        least = torch.finfo(logits.dtype).min
        by_class = logits[:, None].masked_fill(strangers, least).logsumexp(dim=-1)  # [Q, N]
        return (by_class - logits.logsumexp(dim=-1, keepdim=True)).clamp(min=least)
