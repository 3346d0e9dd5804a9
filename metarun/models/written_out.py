"""Operations of torch that do not map over tasks or differentiate twice right, written out; see models/adopt.py."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from metarun.errors import SettingError
from metarun.models.convolution import rounded
from metarun.models.learner import normalise


class Mended(TorchFunctionMode):
    """Inside, what torch does not map or differentiate right is written out, whoever calls it.

    While a mode is on, torch's attention layers leave their fused path for eval mode alone, too.
    Of this thread and call alone, so that chunks of tasks in several threads do not meet.

    Args:
        examples: n.
        statistics_from: the first examples, by whose statistics batch norm normalises; None: all.
    """

    def __init__(self, examples: int, statistics_from: int | None):
        super().__init__()
        self.examples, self.statistics_from, self.batch_norms = examples, statistics_from, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        if func in (torch.batch_norm, torch.native_layer_norm, torch.instance_norm):
            raise SettingError(f"torch.{func.__name__}", "model", f"F.{func.__name__.removeprefix('native_')}")
        return _WRITTEN_OUT.get(func, func)(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        self.batch_norms += 1
        if self.statistics_from is not None and len(input) != self.examples:
            given = f"{len(input)} rows in batch norm for {self.examples} examples"
            raise SettingError(given, "model", "a row for each example with model.norm=support; take transductive")
        return normalise(input, weight, bias, eps, self.statistics_from)


def _layer_norm(
    input: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    out = F.layer_norm(input, shape, None, None, eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    stats = (None, None) if use_input_stats else (running_mean, running_var)
    out = F.instance_norm(input, *stats, None, None, use_input_stats, momentum, eps)
    shape = [-1, *[1] * (input.dim() - 2)]
    out = out if weight is None else out * weight.view(shape)
    return out if bias is None else out + bias.view(shape)


def _convolve(convolve: Callable[..., Tensor], input: Tensor, weight: Tensor, *more: Any, **settings: Any) -> Tensor:
    bias = more[0] if more else settings.pop("bias", None)
    input, weight, *added = rounded(input, weight, *([] if bias is None else [bias]))
    return convolve(input, weight, *(added or [None]), *more[1:], **settings)


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    dims = [d for d in range(v.dim()) if d != dim % v.dim()] if dim != -1 else list(range(v.dim()))
    return v * (g / v.square().sum(dims, keepdim=True).sqrt())


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    return F.relu6(input + 3) / 6


def _embedding_bag(*_: Any, **__: Any) -> Tensor:
    raise SettingError("EmbeddingBag", "model", "Embedding and a mean or sum of it: torch's has no second derivative")


def _step(mode: str, x: Tensor, state: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    """The state after a step: (h, c) of an LSTM, else (h,). x: [n, gates] the inputs' part of the gates."""
    h, recurrent = state[0], F.linear(state[0], weight, bias)
    if mode == "LSTM":
        i, f, g, o = (x + recurrent).chunk(4, dim=-1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    if mode == "GRU":
        (r, z, n), (hr, hz, hn) = x.chunk(3, dim=-1), recurrent.chunk(3, dim=-1)
        z = torch.sigmoid(z + hz)
        return ((1 - z) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + z * h,)
    return ((torch.tanh if mode == "RNN_TANH" else torch.relu)(x + recurrent),)


def _cell(
    mode: str,
    input: Tensor,
    hx: Any,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Any:
    state = hx if mode == "LSTM" else (hx,)
    new = _step(mode, F.linear(input, w_ih, b_ih), tuple(state), w_hh, b_hh)
    return new if mode == "LSTM" else new[0]


_WRITTEN_OUT: dict[Any, Callable[..., Any]] = {
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.instance_norm: _instance_norm,
    **{convolve: partial(_convolve, convolve) for convolve in (F.conv1d, F.conv2d, F.conv3d)},
    torch._weight_norm: _weight_norm,
    F.hardsigmoid: _hardsigmoid,
    F.embedding_bag: _embedding_bag,
    torch.lstm_cell: partial(_cell, "LSTM"),
    torch.gru_cell: partial(_cell, "GRU"),
    torch.rnn_tanh_cell: partial(_cell, "RNN_TANH"),
    torch.rnn_relu_cell: partial(_cell, "RNN_RELU"),
}


class Recurrent(nn.RNNBase):
    """torch's LSTM, GRU and RNN, with the same parameters and results."""

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """See torch.nn.LSTM, GRU and RNN."""
        if not isinstance(input, Tensor):
            raise SettingError(f"{self.mode} with {type(input).__name__}", "model", "padded sequences, as a tensor")
        lstm, batched = self.mode == "LSTM", input.dim() == 3
        x = input if batched else input.unsqueeze(1)
        x = x.transpose(0, 1) if batched and self.batch_first else x  # [length, n, inputs]
        if hx is None:
            zeros = x.new_zeros(1, x.shape[1], self.hidden_size).expand(self._layers, -1, -1)
            states = (zeros, zeros) if lstm else (zeros,)
        else:
            states = tuple(s if batched else s.unsqueeze(1) for s in (hx if lstm else (hx,)))
        last = []
        for layer in range(self.num_layers):
            sides = []
            for side in range(1 + self.bidirectional):
                number = layer * (1 + self.bidirectional) + side
                out, state = self._direction(x, layer, side, tuple(s[number] for s in states))
                sides.append(out)
                last.append(state)
            x = torch.cat(sides, dim=-1)
        x = x.transpose(0, 1) if batched and self.batch_first else x
        ends = tuple(torch.stack(parts) for parts in zip(*last, strict=True))
        if not batched:
            x, ends = x.squeeze(1), tuple(s.squeeze(1) for s in ends)
        return x, ends if lstm else ends[0]

    @property
    def _layers(self) -> int:
        return self.num_layers * (1 + self.bidirectional)

    def _direction(self, x: Tensor, layer: int, side: int, state: tuple[Tensor, ...]) -> tuple[Tensor, Any]:
        """[length, n, hidden] outputs of a layer in one direction, and its last state."""
        end = f"_l{layer}{'_reverse' if side else ''}"
        w_ih, w_hh, b_ih, b_hh = (
            getattr(self, f"{name}{end}", None) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        gates, outputs = F.linear(x, w_ih, b_ih).unbind(), []
        for step in reversed(gates) if side else gates:
            state = _step(self.mode, step, state, w_hh, b_hh)
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if side else outputs), state
