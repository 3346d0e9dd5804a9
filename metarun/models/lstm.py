"""The LSTM learner and its cell, written out: torch's fused cell has no second derivative and no vmap.

    [i, f, o] = σ(W [x, h] + b),  g = tanh(W [x, h] + b),     c <- f c + i g,  h <- o tanh(c)

Sequences are columns: a single product serves all of them, and the gates are contiguous rows of it, which is twice as
fast on a CPU as the usual layout.

Reference: Hochreiter & Schmidhuber 1997; Gers, Schmidhuber & Cummins 2000 (the forget gate).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metarun.errors import SettingError, at_least
from metarun.models.learner import Learner

State = tuple[Tensor, Tensor]  # h and c, each [hidden, n]


class LSTMCell(nn.Module):
    """An LSTM cell, which takes n sequences one step on.

    Args:
        inputs: size of x.
        hidden: size of h and c.
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.weight = nn.Parameter(torch.empty(4 * hidden, inputs + hidden))
        self.bias = nn.Parameter(torch.empty(4 * hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters uniformly within 1/√hidden, as torch does."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(self.hidden**-0.5), self.hidden**-0.5)

    def start(self, n: int, like: Tensor) -> State:
        """The state before the first step, zero, on the device and in the precision of `like`."""
        zeros = like.new_zeros(self.hidden, n)
        return zeros, zeros

    def forward(self, x: Tensor, state: State) -> State:
        """The state after the input x, [inputs, n]."""
        h, c = state
        gates = self.weight @ torch.cat([x, h]) + self.bias[:, None]
        i, f, o = torch.sigmoid(gates[: 3 * self.hidden]).chunk(3)
        c = f * c + i * torch.tanh(gates[3 * self.hidden :])
        return o * torch.tanh(c), c


class LSTM(Learner):
    """An LSTM layer over a sequence, the mean of its states, then a linear layer.

    By the mean over positions, rather than the last state, all parts of a sequence count alike.

    Args:
        input_shape: (length, symbols), one-hot.
        outputs: N.
        hidden: size of the state.
    """

    norm = "none"

    def __init__(self, input_shape: Sequence[int], outputs: int, hidden: int = 32):
        super().__init__()
        at_least(1, hidden=hidden)
        if len(input_shape) != 2:
            raise SettingError(
                list(input_shape),
                "input_shape",
                "sequences: length, symbols; for other inputs leave it to the task source, or take model=mlp",
            )
        self.cell = LSTMCell(input_shape[1], hidden)
        self.head = nn.Linear(hidden, outputs)

    def features(self, x: Tensor, statistics_from: int | None) -> Tensor:
        """See Learner."""
        state = self.cell.start(len(x), x)
        states = [(state := self.cell(symbols, state))[0] for symbols in x.permute(1, 2, 0)]
        return torch.stack(states).mean(dim=0).T
