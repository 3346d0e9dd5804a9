"""A memory-augmented network: it reads the support set, writes what it saw to a memory, and looks queries up there.

    k_t = W_k [f(x_t), h_t],   w = softmax_i β cos(k_t, K_i),   r_t = Σ_i w_i V_i,
    (K_u, V_u) <- (k_t, W_v [h_t, y_t])   in the row u that was used least

h_t are the states of an LSTM that reads the support points (f(x_t), y_t) and r_{t-1}, one after the other in an order
that is the task's own. A query (f(x), 0) is one more step from the last state, so that none knows of the others, and
its answer is W_o [h, r]. f is the learner without its last layer, and is meta-learned with all W and β.

Reference: Santoro, Bartunov, Botvinick, Wierstra & Lillicrap 2016, "Meta-learning with memory-augmented neural
networks", ICML 2016. We differ in that a label comes with its point and not one step later, so that a task is a support
set and queries as for all others; in rows of a key and a value (as Kaiser, Nachum, Roy & Bengio 2017, "Learning to
remember rare events", arXiv 1703.03129): with rows of one vector, addressed by all of it, the answers to Omniglot were
still at chance after 800 outer steps; in one head that reads and one that writes; in that empty rows are not read; and
in that a row is replaced outright, where they also write to the rows that were read last.
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
from metarun.tasks import Task, TaskSource


@dataclass(eq=False, kw_only=True)
class MANN(Feedforward):
    """The memory-augmented network. Its meta-parameters are `learner.*` and `memory.*`.

    Args:
        hidden: size of the LSTM's state.
        slots: rows of the memory.
        width: of a row's key, and of its value.
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

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: what its memory holds and forgets."""
        return {"memory": f"{self.slots} rows, forgetting {self.forgetting:g}"}

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
        self.features, self.slots, self.forgetting = features, slots, forgetting
        self.controller = LSTMCell(features + outputs + width, hidden)
        self.key = nn.Linear(features + hidden, width)
        self.value = nn.Linear(hidden + outputs, width)
        self.sharpness = nn.Parameter(torch.tensor(1.0))
        self.answer = nn.Linear(hidden + width, outputs)

    def forward(self, pairs: Tensor, query: Tensor) -> Tensor:
        x, y = pairs[:, : self.features], pairs[:, self.features :]
        keys, values = (pairs.new_zeros(self.slots, part.out_features) for part in (self.key, self.value))
        read, usage = pairs.new_zeros(1, values.shape[1]), pairs.new_zeros(self.slots)
        state = self.controller.start(1, pairs)
        for point, label in zip(x, y, strict=True):
            state = self.controller(torch.cat([point[None], label[None], read], dim=1).T, state)
            key = self.make_key(point[None], state[0].T)
            weights = self.look_up(key, keys)
            read = weights @ values
            row = F.one_hot(usage.argmin(), self.slots).to(usage.dtype)[:, None]
            keys = keys + row * (key - keys)
            values = values + row * (self.value(torch.cat([state[0].T, label[None]], dim=1)) - values)
            usage = self.forgetting * usage + weights[0].detach() + row[:, 0]
        unknown = query.new_zeros(len(query), y.shape[1])
        inputs = torch.cat([query, unknown, read.expand(len(query), -1)], dim=1)
        hidden, _ = self.controller(inputs.T, tuple(part.expand(-1, len(query)) for part in state))
        found = self.look_up(self.make_key(query, hidden.T), keys) @ values
        return self.answer(torch.cat([hidden.T, found], dim=1))

    def make_key(self, x: Tensor, hidden: Tensor) -> Tensor:
        """[n, width] unit vectors, of n points and the states in which they are read."""
        return F.normalize(self.key(torch.cat([x, hidden], dim=1)), dim=1)

    def look_up(self, key: Tensor, keys: Tensor) -> Tensor:
        """[n, slots] how much each row is read for each of n keys; rows without one not at all."""
        empty = keys.square().sum(dim=1) == 0
        scores = F.softplus(self.sharpness) * 10 * (key @ keys.T)
        return scores.masked_fill(empty, torch.finfo(scores.dtype).min).softmax(dim=1)
