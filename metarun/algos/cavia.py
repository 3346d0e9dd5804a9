"""CAVIA: only a short context vector is adapted to a task; everything else is shared by all tasks.

    θ, C <- (θ, C) - β ∇ mean over tasks of L_query(φ_K),     φ_0 = 0,  φ_{k+1} = φ_k - α ∇_φ L_support(φ_k)

The context φ shifts the learner's biases by Cφ, batch norm's shifts included: at φ = 0 it is the learner itself.

Reference: Zintgraf, Shiarlis, Kurin, Hofmann & Whiteson 2019, "Fast context adaptation via meta-learning", arXiv
1810.03642. There the context is an input of the first layer, whose bias it shifts, or of convolutions it shifts and
scales the channels of one. We differ in that it may shift the biases of all layers (`layers=all`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarun.algos.base import spell_model
from metarun.algos.gradient import GradientBased
from metarun.algos.inner import with_prefix, without_prefix
from metarun.errors import SettingError, at_least, boolean, one_of
from metarun.models.adopt import frozen_tensors
from metarun.models.functional import Params, call, weights_of
from metarun.tasks import Task, TaskSource

CONTEXT, MAP = "context", "context map"  # φ [context] and C [biases, context], beside `learner.*`
EXAMPLES, ROUNDING = 8, 1e-4  # random ones; a slope that is a smaller share of the largest is none


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias by its name: layers.0.bias, rnn.bias_ih_l0, norms.0.shift; not a scale."""
    last = name.rpartition(".")[2]
    return last.startswith("bias") or last == "shift"


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
        weights = weights_of(self.model)
        self.biases = {name: len(value) for name, value in weights.items() if value.dim() == 1 and is_bias(name)}
        if not self.biases:
            raise SettingError(spell_model(self.model), "model", "a learner that has biases for a context to shift")
        self.sizes = self.biases if self.layers == "all" else dict(list(self.biases.items())[:1])
        self.fixed = {*with_prefix("learner", weights), MAP}
        self.map = torch.empty(sum(self.sizes.values()), self.context).uniform_(-1, 1) / self.context**0.5

    def check(self, source: TaskSource, meta_batch: int) -> None:
        """See Algorithm. Takes the first bias that shows: what comes before batch norm is taken away by it again."""
        super().check(source, meta_batch)
        if self.layers == "all":
            return
        showing = self._find_showing(source.input_shape)
        (size,) = self.sizes.values()
        fitting = [name for name in self.biases if name in showing and self.biases[name] == size]
        if not fitting:
            rule = "a learner whose first bias shows in its outputs; or algo.layers=all"
            raise SettingError(spell_model(self.model), "model", rule)
        self.sizes = {fitting[0]: size}

    def _find_showing(self, shape: Sequence[int]) -> set[str]:
        """The biases on which outputs depend, beyond rounding."""
        weights = weights_of(self.model)
        like = next(iter([*frozen_tensors(self.model).values(), *weights.values()]))  # what is frozen has its device
        params = {name: value.detach().to(like.device).requires_grad_() for name, value in weights.items()}
        x = torch.randn(EXAMPLES, *shape, generator=torch.Generator().manual_seed(0)).to(like.device)
        outputs = call(self.model, params, x)
        slopes = torch.autograd.grad(outputs.square().sum(), [params[name] for name in self.biases], allow_unused=True)
        largest = [0.0 if slope is None else float(slope.abs().max()) for slope in slopes]
        return {name for name, size in zip(self.biases, largest, strict=True) if size > ROUNDING * max(largest)}

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
