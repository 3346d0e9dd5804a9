"""CAVIA: only a short context vector is adapted to a task; everything else is shared by all tasks.

    θ, C <- (θ, C) - β ∇ mean over tasks of L_query(φ_K),     φ_0 = 0,  φ_{k+1} = φ_k - α ∇_φ L_support(φ_k)

The context φ shifts the learner's biases by Cφ, batch norm's shifts included: at φ = 0 it is the learner itself.

Reference: Zintgraf, Shiarlis, Kurin, Hofmann & Whiteson 2019, "Fast context adaptation via meta-learning", arXiv
1810.03642. There the context is an input of the first layer, whose bias it shifts, or of convolutions it shifts and
scales the channels of one. We differ in that it may shift the biases of all layers (`layers=all`).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarun.algos.base import spell_model
from metarun.algos.gradient import GradientBased
from metarun.algos.inner import with_prefix, without_prefix
from metarun.errors import SettingError, at_least, boolean, one_of
from metarun.models.functional import Params, weights_of
from metarun.tasks import Task, TaskSource

CONTEXT, MAP = "context", "context map"  # φ [context] and C [biases, context], beside `learner.*`


@dataclass(eq=False, kw_only=True)
class CAVIA(GradientBased):
    """Context adaptation. For the settings that are not here see GradientBased.

    Args:
        context: numbers in φ, at least 1.
        layers: whose biases the context shifts: the `first` layer's, or those of `all`.
        inner_steps: K in training; at least 1.
        first_order: leave out the second derivatives.
    """

    training_only: ClassVar = (*GradientBased.training_only, "inner_steps", "first_order")

    context: int = 5
    layers: str = "first"
    inner_lr: float = 1.0
    inner_steps: int = 1
    first_order: bool = False

    def __post_init__(self):
        super().__post_init__()
        at_least(1, context=self.context, inner_steps=self.inner_steps)
        boolean(first_order=self.first_order)
        one_of("layers", self.layers, ["first", "all"])
        biases = {name: len(value) for name, value in weights_of(self.model).items() if value.dim() == 1}
        if not biases:
            raise SettingError(spell_model(self.model), "model", "a learner that has biases for a context to shift")
        self.sizes = biases if self.layers == "all" else dict(list(biases.items())[:1])
        self.fixed = {*with_prefix("learner", weights_of(self.model)), MAP}
        self.map = torch.empty(sum(self.sizes.values()), self.context).uniform_(-1, 1) / self.context**0.5

    def init(self) -> Params:
        """{name: tensor}: the learner's own weights, and C."""
        learner = super().init()
        like = next(iter(learner.values()))
        return {**with_prefix("learner", learner), MAP: self.map.to(like, copy=True)}

    def start(self, meta: Params, task: Task) -> Params:
        """See GradientBased: with the context 0, the only one that is adapted."""
        return {**meta, CONTEXT: meta[MAP].new_zeros(self.context)}

    def predict(self, params: Params, x: Tensor, support: Tensor | None = None) -> Tensor:
        """See Algorithm: the outputs of the learner whose biases the context has shifted."""
        learner = without_prefix("learner", params)
        shifts = (params[MAP] @ params[CONTEXT]).split(list(self.sizes.values()))
        learner |= {name: learner[name] + shift for name, shift in zip(self.sizes, shifts, strict=True)}
        return super().predict(learner, x, support)

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean query loss after `inner_steps` inner steps, and the query metric, both []."""
        *_, params = self.adapt(meta, task, self.inner_steps, first_order=self.first_order)
        return self.judge(params, task)

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: what is adapted, and the order of the meta-gradient."""
        where = "the first layer" if self.layers == "first" else "all layers"
        order = "first order" if self.first_order else "second order"
        return {"adapted": f"a context of {self.context}, shifts biases of {where}", "meta_gradient": order}
