"""A memory-augmented network: it reads the support set, writes what it saw to a memory, and looks queries up there.

    k_t = W_k h_t,    r_t = Σ_i w_i M_i,    w = softmax_i β cos(k_t, M_i),    M_u <- v_t = W_v h_t in the row used least

h_t are the states of an LSTM that reads the support points (f(x_t), y_t) and r_{t-1}, one after the other in an order
that is the task's own. A query (f(x), 0) is one more step from the last state, so that none knows of the others, and
its answer is W_o [h, r]. f is the learner without its last layer, and is meta-learned with all W and β.

Reference: Santoro, Bartunov, Botvinick, Wierstra & Lillicrap 2016, "Meta-learning with memory-augmented neural
networks", ICML 2016. We differ in that a label comes with its point and not one step later, so that a task is a support
set and queries as for all others; in one head that reads and one that writes; and in that a row is replaced outright,
where they also write to the rows that were read last.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from metarun import seeds
from metarun.algos.base import without_head
from metarun.algos.feedforward import Feedforward
from metarun.algos.inner import with_prefix, without_prefix
from metarun.errors import SettingError, at_least
from metarun.models.functional import Params
from metarun.models.lstm import LSTMCell
from metarun.tasks import Task


@dataclass(eq=False, kw_only=True)
class MANN(Feedforward):
    """The memory-augmented network. Its meta-parameters are `learner.*` and `memory.*`.

    Args:
        hidden: size of the LSTM's state.
        slots: rows of the memory.
        width: of a row.
        forgetting: γ: what is left of a row's usage after each step, in [0, 1).
    """

    hidden: int = 128
    slots: int = 128
    width: int = 40
    forgetting: float = 0.95

    def __post_init__(self):
        super().__post_init__()
        at_least(1, hidden=self.hidden, slots=self.slots, width=self.width)
        if not 0 <= self.forgetting < 1:
            raise SettingError(self.forgetting, "forgetting", "a number in [0, 1)")
        self.model, head = without_head(self.model)
        self.outputs = head.out_features
        self.memory = _Memory(head.in_features, head.out_features, self.hidden, self.slots, self.width, self.forgetting)

    def init(self) -> Params:
        """{name: tensor}: the learner's own weights, and those of the LSTM and its heads."""
        learner = super().init()
        like = next(iter(learner.values()), torch.zeros(()))
        memory = {name: value.detach().to(like, copy=True) for name, value in self.memory.named_parameters()}
        return {**with_prefix("learner", learner), **with_prefix("memory", memory)}

    def answers(self, meta: Params, task: Task) -> Tensor:
        """[Q, N] logits, or values."""
        points = len(task.support_x)
        support, query = self.predict_points(without_prefix("learner", meta), task).tensor_split([points])
        y = task.support_y
        y = y if y.is_floating_point() else F.one_hot(y, self.outputs).to(support.dtype)
        order = seeds.distinct(("order of reading",), task.key[None], 1, points, points)[0, 0]
        pairs = torch.cat([support, y], dim=1)[order]
        return functional_call(self.memory, without_prefix("memory", meta), (pairs, query))


class _Memory(nn.Module):
    """The LSTM with its memory: reads pairs [S, F + N], answers queries [Q, F] with [Q, N]."""

    def __init__(self, features: int, outputs: int, hidden: int, slots: int, width: int, forgetting: float):
        super().__init__()
        self.slots, self.width, self.forgetting = slots, width, forgetting
        self.controller = LSTMCell(features + outputs + width, hidden)
        self.key, self.value = nn.Linear(hidden, width), nn.Linear(hidden, width)
        self.sharpness = nn.Parameter(torch.tensor(1.0))
        self.answer = nn.Linear(hidden + width, outputs)

    def forward(self, pairs: Tensor, query: Tensor) -> Tensor:
        memory = pairs.new_full((self.slots, self.width), 1e-6)
        read, usage = pairs.new_zeros(1, self.width), pairs.new_zeros(self.slots)
        state = self.controller.start(1, pairs)
        for pair in pairs:
            state = self.controller(torch.cat([pair[None], read], dim=1).T, state)
            weights, read = self.look_up(memory, state[0].T)
            row = F.one_hot(usage.argmin(), self.slots).to(usage.dtype)
            memory = memory + row[:, None] * (self.value(state[0].T) - memory)
            usage = self.forgetting * usage + weights[0].detach() + row
        unknown = query.new_zeros(len(query), pairs.shape[1] - query.shape[1])
        inputs = torch.cat([query, unknown, read.expand(len(query), -1)], dim=1)
        hidden, _ = self.controller(inputs.T, tuple(part.expand(-1, len(query)) for part in state))
        _, found = self.look_up(memory, hidden.T)
        return self.answer(torch.cat([hidden.T, found], dim=1))

    def look_up(self, memory: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """[n, slots] how much each row is read for each of n states, [n, hidden]; and [n, width] what is read."""
        cosine = F.normalize(self.key(hidden), dim=1) @ F.normalize(memory, dim=1).T
        weights = (F.softplus(self.sharpness) * 10 * cosine).softmax(dim=1)
        return weights, weights @ memory
