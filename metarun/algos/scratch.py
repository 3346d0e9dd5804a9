"""No meta-learning at all: the learner is trained anew on each support set. The floor that every table should have.

    θ_0 = the initial weights,     θ_{k+1} = θ_k - rule(∇ L_support(θ_k)),     k = 0 .. K-1

Meta-training leaves the initial weights as they are, so that one outer step is as good as any number. The rule is Adam
(Kingma & Ba 2015, arXiv 1412.6980), unless set otherwise; how many steps are best, validation tasks say.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from metarun.algos.gradient import GradientBased, make_rule
from metarun.algos.inner import Rule
from metarun.models.functional import Params
from metarun.tasks import Task


@dataclass(eq=False, kw_only=True)
class Scratch(GradientBased):
    """Training from scratch. For the settings that are not here see GradientBased.

    Args:
        inner_optimizer: `adam`, or `sgd`.
        inner_betas: Adam's (β1, β2), by default (0.9, 0.999). None with sgd.
    """

    trains = False

    inner_optimizer: str = "adam"
    inner_betas: tuple[float, float] | None = None

    def __post_init__(self):
        super().__post_init__()
        self.inner_rule = make_rule(self.inner_optimizer, self.inner_lr, self.inner_betas)
        self.fixed = set()

    @property
    def name(self) -> str:
        """See Algorithm."""
        return "From scratch"

    def rule(self, meta: Params) -> Rule:
        """The update rule: Adam or SGD."""
        return self.inner_rule

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean query loss of the initial weights, with the gradient 0, and the query metric, both []."""
        loss, metric = self.judge({name: value.detach() for name, value in meta.items()}, task)
        return loss + 0 * torch.stack([value.sum() for value in meta.values()]).sum(), metric
