"""The head that all classes share: before the first inner step every class has the same weights.

    W_0 = [w, ..., w],     W_{k+1} = W_k - rule(∇ L_support(W_k)),     a row for each of the task's N classes

No class differs from another but by its support examples: any number of ways will do, their order plays no part, and
before the first step all logits are equal. As the rows tell no classes apart yet, the first step moves the head alone:
with one inner step MAML is ANIL, and the body moves from the second on.

Reference: UNICORN-MAML of Ye & Chao 2022, "How to train your MAML to excel in few-shot classification", arXiv
2106.16245. They learn the row w, with the sum of its copies' gradients. Here w is 0 and no meta-parameter, with the
very same predictions and meta-gradients: w adds w·f(x) to all logits of x, which softmax ignores, so that no loss,
gradient or step of an inner rule depends on w. Its own gradient is 0. Of that an outer Adam would make steps of
rounding errors, and the logits of step 0 would be equal but for rounding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from metarun.algos.base import find_head
from metarun.algos.gradient import GradientBased
from metarun.errors import SettingError, one_of
from metarun.models.functional import Params, weights_of
from metarun.tasks import Task, TaskSource

ABSENT = "absent classes"  # beside the learner's parameters


@dataclass(eq=False, kw_only=True)
class WithHead(GradientBased):
    """A gradient-based algorithm that has the choice of a head.

    Args:
        head: the last layer before the first inner step. `own`: meta-learned, with weights of its own for each class.
            `shared`: the same for all classes, so that tasks may have any number of ways; not for regression.

    Attributes:
        row: {name: [1, ...]}: the share of a class in a shared head, zero; {} with a head of its own. What belongs to
            the head's weights, such as their rates, is kept for a row.
    """

    head: str = "own"

    def __post_init__(self):
        super().__post_init__()
        one_of("head", self.head, ["own", "shared"])
        self.any_ways, self.row = self.head == "shared", {}
        if self.head == "shared":
            name, layer = find_head(self.model, trained=True)
            if not {n for n, _ in layer.named_parameters()} <= {"weight", "bias"}:
                raise SettingError("shared", "head", "own where the last layer has other weights than a linear one's")
            self.ways = layer.out_features  # at most; a task may have fewer
            self.row = {f"{name}.{n}": torch.zeros_like(w[:1]).detach() for n, w in layer.named_parameters()}
            if not set(weights_of(self.model)) - set(self.row):
                raise SettingError("shared", "head", "own where nothing but the last layer is trained")

    def check(self, source: TaskSource, meta_batch: int) -> None:
        """See Algorithm."""
        if self.head == "shared" and source.metric != "accuracy":
            raise SettingError("shared", "algo.head", "own in regression, where there are no classes to share it")

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: whether the head is shared."""
        return {"head": "shared"} if self.head == "shared" else {}

    def init(self) -> Params:
        """{name: tensor}: the learner's own weights, but for a shared head."""
        return {name: value for name, value in super().init().items() if name not in self.row}

    def start(self, meta: Params, task: Task) -> Params:
        """See GradientBased."""
        return self.with_head(meta)

    def with_head(self, params: Params) -> Params:
        """The learner's parameters with a shared head, if it is one, before the first inner step."""
        like = next(iter(params.values()))
        return {**params, **{name: like.new_zeros(self.ways, *row.shape[1:]) for name, row in self.row.items()}}

    def constants(self, task: Task) -> Params:
        """See GradientBased: with a shared head [N] bool, the outputs whose classes the task lacks."""
        if not self.row:
            return {}
        classes = torch.arange(self.ways, device=task.support_y.device)
        return {ABSENT: (task.support_y[:, None] != classes).all(dim=0)}

    def tie(self, params: Params, task: Task) -> Params:
        """The parameters, with the mean over the task's classes, [1, ...], for those of a shared head."""
        if not self.row:
            return params
        present = (~self.constants(task)[ABSENT]).to(next(iter(params.values())).dtype)
        share = present / present.sum()
        rows = {name: torch.tensordot(share, params[name].expand(self.ways, *row.shape[1:]), dims=1)[None]
                for name, row in self.row.items()}  # fmt: skip
        return {**params, **rows}

    def count_ways(self, params: Params, outputs: Tensor) -> int | Tensor:
        """See GradientBased: with a shared head without the classes that the task lacks."""
        return (~params[ABSENT]).sum() if self.row else super().count_ways(params, outputs)

    def predict(self, params: Params, x: Tensor, support: Tensor | None = None) -> Tensor:
        """See Algorithm. The logits of classes that a task lacks are the least, whose softmax is 0."""
        if ABSENT not in params:
            return super().predict(params, x, support)
        weights = {name: value for name, value in params.items() if name != ABSENT}
        outputs = super().predict(weights, x, support)
        return outputs.masked_fill(params[ABSENT], torch.finfo(outputs.dtype).min)
