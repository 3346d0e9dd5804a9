"""An LSTM that reads a task's support set and writes the learner for it.

    θ(task) = θ + W h_S,     h_s = LSTM([φ(x_s), y_s], h_{s-1})   for each support point s = 1 .. S

The support set is the description of the task, read as a sequence of (x, y) pairs in the order in which the source
gives it; φ are the learner's features under the shared weights θ, and y is one-hot or a number. All parameters of the
learner are generated, or those of its last layer, on features that all tasks share. Gradient steps on the support set
may tune them, in training (`inner_steps`) as in test. θ, W and the LSTM are meta-learned.

References: Hochreiter, Younger & Conwell 2001, "Learning to learn using gradient descent" (an LSTM reads examples); Ha,
Dai & Le 2017, "HyperNetworks", arXiv 1609.09106 (a network writes the weights of a second). The combination is ours and
described in no paper; the tuning is that of MAML.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from metarun.algos.base import find_head, without_head
from metarun.algos.gradient import GradientBased
from metarun.algos.inner import with_prefix, without_prefix
from metarun.errors import at_least, boolean, one_of
from metarun.models.functional import Params, call, weights_of
from metarun.models.lstm import LSTMCell
from metarun.models.unit import unit
from metarun.tasks import Task, TaskSource


@dataclass(eq=False, kw_only=True)
class LSTMGenerator(GradientBased):
    """The LSTM generator.

    Its meta-parameters are `learner.*`, θ; `reader.*`, the LSTM; and `writer` [generated numbers, hidden], W.

    Args:
        generate: `all` parameters of the learner, or its `head`, the last layer.
        hidden: size of the LSTM's state.
        inner_steps: gradient steps from the generated parameters, in training; at least 0.
        eval_inner_steps: the same in validation and test.
        first_order: leave out the second derivatives of these steps.
    """

    training_only: ClassVar = (*GradientBased.training_only, "inner_steps", "first_order")

    generate: str = "all"
    hidden: int = 64
    inner_steps: int = 1
    first_order: bool = False

    def __post_init__(self):
        super().__post_init__()
        at_least(1, hidden=self.hidden)
        at_least(0, inner_steps=self.inner_steps)
        boolean(first_order=self.first_order)
        one_of("generate", self.generate, ["all", "head"])
        self.head_name, _ = find_head(self.model, trained=self.generate == "head")
        self.body, head = without_head(self.model)
        self.outputs = head.out_features
        self.shapes = {
            name: value.shape
            for name, value in weights_of(self.model).items()
            if self.generate == "all" or name.startswith(f"{self.head_name}.")
        }
        self.fixed |= {name for name in weights_of(self.model) if name not in self.shapes}
        self.reader = LSTMCell(head.in_features + self.outputs, self.hidden)
        self.writer = nn.init.uniform_(
            torch.empty(sum(s.numel() for s in self.shapes.values()), self.hidden), -0.01, 0.01
        )

    @property
    def name(self) -> str:
        """See Algorithm."""
        return "LSTM generator"

    def init(self) -> Params:
        """{name: tensor}: the learner's own weights, and those of the LSTM and of W."""
        learner = super().init()
        like = next(iter(learner.values()))
        reader = {name: value.detach().to(like, copy=True) for name, value in self.reader.named_parameters()}
        writer = {"writer": self.writer.to(like, copy=True)}
        return {**with_prefix("learner", learner), **with_prefix("reader", reader), **writer}

    def start(self, meta: Params, task: Task) -> Params:
        """The learner's parameters as written for the task."""
        learner = without_prefix("learner", meta)
        shift = meta["writer"] @ unit(self.read, meta, task)
        pieces = zip(self.shapes.items(), shift.split([shape.numel() for shape in self.shapes.values()]), strict=True)
        return {**learner, **{name: learner[name] + piece.view(shape) for (name, shape), piece in pieces}}

    def read(self, meta: Params, task: Task) -> Tensor:
        """[hidden] the LSTM's state after the support set. A unit."""
        learner = without_prefix("learner", meta)
        shared = {name: value for name, value in learner.items() if not name.startswith(f"{self.head_name}.")}
        x = call(self.body, shared, task.support_x)  # [S, F]
        y = task.support_y
        if not y.is_floating_point():
            y = F.one_hot(y, self.outputs).to(x.dtype)
        state = self.reader.start(1, x)
        for pair in torch.cat([x, y], dim=-1):
            state = functional_call(self.reader, without_prefix("reader", meta), (pair[:, None], state))
        return state[0][:, 0]

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean query loss of the written and tuned learner, and the query metric, both []."""
        *_, params = self.adapt(meta, task, self.inner_steps, first_order=self.first_order)
        return self.judge(params, task)

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: the parameters that are generated, and the order of the meta-gradient."""
        generated = "all parameters" if self.generate == "all" else "the last layer, on shared features"
        order = {"meta_gradient": "first order" if self.first_order else "second order"} if self.inner_steps else {}
        return {"generated": generated, **order}
