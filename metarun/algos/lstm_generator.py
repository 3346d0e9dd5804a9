"""An LSTM that reads the support set and writes the learner for it.

    θ(task) = θ + Δ,     h_s = LSTM([φ(x_s), y_s], h_{s-1})   for each support point s = 1 .. S

    outer   Δ = 1/S Σ_s (A h_s)(B h_s)ᵀ     for each matrix of the learner; for its vectors the mean of A h_s
    state   Δ = W h_S

The support set is the description of the task, read as a sequence of (x, y) pairs in the order in which the source
gives it; φ are the learner's features under the shared weights θ, and y is one-hot or a number. All parameters of the
learner are generated, or those of its last layer, on features that all tasks share. With `fast_layers` what is written
makes layers of its own, whose outputs are added to those of the shared ones. Gradient steps on the support set may tune
what was written, in training (`inner_steps`) as in test. θ, W, A, B and the LSTM are meta-learned.

References: Hochreiter, Younger & Conwell 2001, "Learning to learn using gradient descent" (an LSTM reads examples);
Schmidhuber 1992, "Learning to control fast-weight memories" (outer products are written); Ha, Dai & Le 2017,
"HyperNetworks", arXiv 1609.09106; Munkhdalai & Yu 2017, "Meta networks", arXiv 1703.00837 (slow and fast layers; theirs
are written from gradients). The combination is ours and described in no paper; the tuning is that of MAML.
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
from metarun.errors import SettingError, at_least, boolean, one_of
from metarun.models.functional import Params, call, weights_of
from metarun.models.lstm import LSTMCell
from metarun.models.slow_and_fast import SlowAndFast
from metarun.models.unit import unit
from metarun.tasks import Task, TaskSource


@dataclass(eq=False, kw_only=True)
class LSTMGenerator(GradientBased):
    """The LSTM generator.

    Its meta-parameters are `learner.*`, θ; `reader.*`, the LSTM; and `writer` [written numbers, hidden]: W, or the rows
    of A and B, parameter by parameter.

    Args:
        generate: `all` parameters of the learner, or its `head`, the last layer.
        write: how: the `outer` products of what each state gives, or all numbers from the last `state`.
        fast_layers: whether what is written makes layers of its own beside the shared ones; with generate=all.
        hidden: size of the LSTM's state.
        inner_steps: gradient steps from the generated parameters, in training; at least 0.
        eval_inner_steps: the same in validation and test.
        first_order: leave out the second derivatives of these steps.
    """

    training_only: ClassVar = (*GradientBased.training_only, "inner_steps", "first_order")

    generate: str = "all"
    write: str = "state"
    fast_layers: bool = False
    hidden: int = 64
    inner_steps: int = 1
    first_order: bool = False

    def __post_init__(self):
        super().__post_init__()
        at_least(1, hidden=self.hidden)
        at_least(0, inner_steps=self.inner_steps)
        boolean(first_order=self.first_order, fast_layers=self.fast_layers)
        one_of("generate", self.generate, ["all", "head"])
        one_of("write", self.write, ["outer", "state"])
        self.head_name, _ = find_head(self.model, trained=self.generate == "head")
        self.body, head = without_head(self.model)
        self.outputs = head.out_features
        if self.fast_layers:
            if self.generate == "head":
                rule = "false with generate=head, whose outputs are sums with shared layers or without"
                raise SettingError(True, "fast_layers", rule)
            self.model = SlowAndFast(self.model)
            self.fixed = self.model.norm_parameters
        self.shapes = {
            name: value.shape for name, value in weights_of(self.model).items() if name.startswith(self.written)
        }
        self.fixed |= {name for name in weights_of(self.model) if name not in self.shapes}
        self.reader = LSTMCell(head.in_features + self.outputs, self.hidden)
        numbers = sum(number for shape in self.shapes.values() for number in self.factors(shape))
        self.writer = nn.init.uniform_(torch.empty(numbers, self.hidden), -0.01, 0.01)
        for piece in self.split(self.writer):
            for columns in piece[1:]:  # were both factors near zero, the slopes of both would be
                nn.init.uniform_(columns, -1, 1)

    @property
    def name(self) -> str:
        """See Algorithm."""
        return "LSTM generator"

    @property
    def written(self) -> str:
        """How the names of those parameters of the learner begin that are written."""
        return "fast." if self.fast_layers else f"{self.head_name}." if self.generate == "head" else ""

    def factors(self, shape: torch.Size) -> tuple[int, ...]:
        """How many numbers are written for a parameter of this shape: its own, or those of two factors."""
        return (shape[0], shape[1:].numel()) if self.write == "outer" and len(shape) > 1 else (shape.numel(),)

    def split(self, written: Tensor) -> list[tuple[Tensor, ...]]:
        """For each parameter that is written the rows of [written numbers, ...] that are its own, or its factors'."""
        factors = [self.factors(shape) for shape in self.shapes.values()]
        pieces = iter(written.split([number for each in factors for number in each]))
        return [tuple(next(pieces) for _ in each) for each in factors]

    def init(self) -> Params:
        """{name: tensor}: the learner's own weights, and those of the LSTM and of what writes."""
        learner = super().init()
        like = next(iter(learner.values()))
        reader = {name: value.detach().to(like, copy=True) for name, value in self.reader.named_parameters()}
        writer = {"writer": self.writer.to(like, copy=True)}
        return {**with_prefix("learner", learner), **with_prefix("reader", reader), **writer}

    def start(self, meta: Params, task: Task) -> Params:
        """The learner's parameters as written for the task."""
        learner = without_prefix("learner", meta)
        states = unit(self.read, meta, task)
        for name, (rows, *columns) in zip(self.shapes, self.split(meta["writer"] @ states), strict=True):
            shift = rows @ columns[0].T / len(states.T) if columns else rows.mean(dim=1)
            learner[name] = learner[name] + shift.view(self.shapes[name])
        return learner

    def read(self, meta: Params, task: Task) -> Tensor:
        """[hidden, S] the LSTM's states after each support point; with write=state [hidden, 1] the last. A unit."""
        shared = without_prefix("learner.slow" if self.fast_layers else "learner", meta)
        shared = {name: value for name, value in shared.items() if not name.startswith(f"{self.head_name}.")}
        x = call(self.body, shared, task.support_x)  # [S, F]
        y = task.support_y
        if not y.is_floating_point():
            y = F.one_hot(y, self.outputs).to(x.dtype)
        states = [self.reader.start(1, x)]
        for pair in torch.cat([x, y], dim=-1):
            inputs = (pair[:, None], states[-1])
            states.append(functional_call(self.reader, without_prefix("reader", meta), inputs))
        return torch.cat([h for h, _ in (states[1:] if self.write == "outer" else states[-1:])], dim=1)

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean query loss of the written and tuned learner, and the query metric, both []."""
        *_, params = self.adapt(meta, task, self.inner_steps, first_order=self.first_order)
        return self.judge(params, task)

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: the parameters that are generated, how, and the order of the meta-gradient."""
        generated = "all parameters" if self.generate == "all" else "the last layer, on shared features"
        how = "as outer products" if self.write == "outer" else "from the last state"
        beside = ", in layers of their own" if self.fast_layers else ""
        order = {"meta_gradient": "first order" if self.first_order else "second order"} if self.inner_steps else {}
        return {"generated": f"{generated}, {how}{beside}", **order}
