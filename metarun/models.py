"""Learners: the networks that solve one task, as plain torch modules.

n examples, C channels, N outputs. A learner keeps no running statistics: what batch norm uses is part of the call.

Batch norm has two modes, and results must say which:
    transductive   the query is normalised by the statistics of the query itself (Finn et al. 2017)
    support        the query is normalised by the statistics of the support set, so each answer stands alone
In both, the support set is normalised by its own statistics.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.cells import LSTMCell
from metarun.compiled import compiling
from metarun.errors import SettingError, at_least, boolean, one_of, positive


class TaskNorm(nn.Module):
    """Batch norm by the statistics of the examples that are passed in.

    Args:
        channels: C.
        scale: whether to have a scale beside the shift.
        eps: added to the variance.
    """

    def __init__(self, channels: int, scale: bool, eps: float):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels))
        self.scale = nn.Parameter(torch.ones(channels)) if scale else None
        self.eps = eps

    def reset_parameters(self) -> None:
        """A shift of zero and a scale of one."""
        nn.init.zeros_(self.shift)
        if self.scale is not None:
            nn.init.ones_(self.scale)

    def forward(self, x: Tensor, statistics_from: int | None) -> Tensor:
        """Normalises [n, C, ...] by the first `statistics_from` examples, or by all of them if it is None."""
        # Written out: the second derivative of torch's own batch norm is wrong under vmap where tasks have different
        # scales, which the central differences in tests/test_maml.py notice. Sums rather than torch's mean and
        # variance: those take several times as long, and the slope of a mean writes its share to every element.
        shape, dims = [-1, *[1] * (x.dim() - 2)], [0, *range(2, x.dim())]
        some = x if statistics_from is None else x[:statistics_from]
        share = x.shape[1] / some.numel()
        centred = x - some.sum(dims, keepdim=True) * share
        some = centred if statistics_from is None else centred[:statistics_from]
        factor = torch.rsqrt((some * some).sum(dims, keepdim=True) * share + self.eps)
        if self.scale is not None:
            factor = factor * self.scale.view(shape)
        return torch.addcmul(self.shift.view(shape), centred, factor)


class Conv(nn.Conv2d):
    """A 3x3 convolution, padded by one pixel, without a bias: batch norm, which follows, would take it away."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__(channels, filters, 3, stride, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """[n, filters, h, w] of [n, channels, H, W]."""
        if not compiling():
            return super().forward(input)
        # One product for all positions. Compiled, what prepares it is fused, and it maps over tasks as a batch of
        # products; a convolution maps as a grouped one, whose second derivative takes the groups one by one.
        patches = _patches(input.permute(0, 2, 3, 1), self.stride[0])  # [n, h, w, 9 channels]
        weight = self.weight.permute(2, 3, 1, 0).reshape(-1, self.out_channels)
        return (patches.flatten(0, 2) @ weight).view(*patches.shape[:3], -1).permute(0, 3, 1, 2)


def _patches(x: Tensor, stride: int) -> Tensor:
    """[n, h, w, 9 C]: of [n, H, W, C] what each 3x3 window sees, in the order row, column, channel."""
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    h, w = (padded.shape[1] - 3) // stride + 1, (padded.shape[2] - 3) // stride + 1
    ends = (h - 1) * stride + 1, (w - 1) * stride + 1
    shifted = [padded[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i in range(3) for j in range(3)]
    return torch.cat(shifted, dim=-1)


class Learner(nn.Module):
    """What the learners share: features and a linear head, and how the support set's statistics reach the norms.

    Attributes:
        norm: transductive, support, or none.
        head: from F features to N outputs. Algorithms that want the features put nn.Identity() in its place.
    """

    norm: str
    head: nn.Module
    form = ""  # which of the published forms it is, for the summary

    @property
    def norm_parameters(self) -> set[str]:
        """Names of the parameters that belong to batch norm."""
        norms = [name for name, module in self.named_modules() if isinstance(module, TaskNorm)]
        return {f"{norm}.{name}" for norm in norms for name, _ in self.get_submodule(norm).named_parameters()}

    def forward(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """Outputs for examples.

        Args:
            x: [n, *input_shape].
            support: [S, *input_shape], the task's support set when x is its query. Used with norm=support only.

        Returns:
            [n, N].
        """
        if self.norm != "support" or support is None:
            return self.outputs(x, None)
        return self.outputs(torch.cat([support, x]), len(support))[len(support) :]

    def outputs(self, x: Tensor, statistics_from: int | None) -> Tensor:
        """[n, N] outputs; norms take their statistics from the first `statistics_from` examples (None: all)."""
        return self.head(self.features(x, statistics_from))

    def features(self, x: Tensor, statistics_from: int | None) -> Tensor:
        """[n, F] what the head sees."""
        raise NotImplementedError


class Conv4(Learner):
    """Four blocks of 3x3 convolution, batch norm and ReLU, then a linear layer (Vinyals et al. 2016; Finn et al. 2017).

    Convolutions are padded by one pixel on every side; Finn's TensorFlow code pads even sizes on the right only.

    Args:
        input_shape: (C, H, W).
        outputs: N.
        filters: of every block.
        downsampling: `stride`: stride 2, the Omniglot form of Finn et al.; `max_pool`: stride 1 and 2x2 max-pooling,
            the form of Vinyals et al. and of most ports.
        positions: what becomes of the positions that are left of an image: their `mean`, or with `flatten` the last
            layer sees each. None: the mean after strides, as Finn et al. have it, and flattened after pooling.
        norm: batch-norm mode, transductive or support (see the module's docstring).
        norm_scale: whether batch norm has a scale beside its shift. Finn's code has none.
        norm_eps: added to the variance. Finn's code has 1e-3.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        filters: int = 64,
        downsampling: str = "stride",
        positions: str | None = None,
        norm: str = "transductive",
        norm_scale: bool = False,
        norm_eps: float = 1e-3,
    ):
        super().__init__()
        at_least(1, filters=filters)
        boolean(norm_scale=norm_scale)
        one_of("downsampling", downsampling, ["stride", "max_pool"])
        one_of("positions", "mean" if positions is None else positions, ["mean", "flatten"])
        one_of("norm", norm, ["transductive", "support"])
        positive("norm_eps", norm_eps)
        if len(input_shape) != 3:
            raise SettingError(
                list(input_shape),
                "input_shape",
                "images: channels, height, width; for other inputs leave it to the task source, or take model=mlp",
            )
        channels, height, width = input_shape
        self.norm, self.pool = norm, downsampling == "max_pool"
        self.flat = positions == "flatten" or (positions is None and self.pool)
        chosen = {"mean": ", averaged over positions", "flatten": ", flattened"}.get(positions or "", "")
        self.form = (" with max-pooling" if self.pool else " with stride 2") + chosen
        self.blocks = nn.ModuleList()
        for _ in range(4):
            stride = 1 if self.pool else 2
            block = {"conv": Conv(channels, filters, stride), "norm": TaskNorm(filters, norm_scale, norm_eps)}
            self.blocks.append(nn.ModuleDict(block))
            channels = filters
            height, width = (height // 2, width // 2) if self.pool else (-(-height // 2), -(-width // 2))
        if min(height, width) < 1:
            raise SettingError(downsampling, "downsampling", f"stride, for inputs as small as {list(input_shape)}")
        self.head = nn.Linear(filters * height * width if self.flat else filters, outputs)

    def features(self, x: Tensor, statistics_from: int | None) -> Tensor:
        """See Learner."""
        for block in self.blocks:
            x = F.relu(block["norm"](block["conv"](x), statistics_from))  # pyright: ignore[reportIndexIssue]
            if self.pool:
                x = F.max_pool2d(x, 2)
        return x.flatten(1) if self.flat else x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3])


class MLP(Learner):
    """Fully connected layers with ReLU between them (Finn et al. 2017).

    Args:
        input_shape: any shape; it is flattened.
        outputs: N.
        hidden: sizes of the hidden layers. Sinusoid: 40, 40. Omniglot: 256, 128, 64, 64 with batch norm.
        norm: none, or batch norm before each ReLU: transductive or support (see the module's docstring).
        norm_scale: whether batch norm has a scale beside its shift.
        norm_eps: added to the variance.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        hidden: Sequence[int] = (40, 40),
        norm: str = "none",
        norm_scale: bool = False,
        norm_eps: float = 1e-3,
    ):
        super().__init__()
        boolean(norm_scale=norm_scale)
        for size in hidden:
            at_least(1, hidden=size)
        one_of("norm", norm, ["none", "transductive", "support"])
        positive("norm_eps", norm_eps)
        self.norm = norm
        sizes = [int(torch.Size(input_shape).numel()), *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(TaskNorm(size, norm_scale, norm_eps) for size in hidden if norm != "none")
        self.head = nn.Linear(sizes[-1], outputs)

    def features(self, x: Tensor, statistics_from: int | None) -> Tensor:
        """See Learner."""
        x = x.flatten(1)
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if self.norms:
                x = self.norms[number](x, statistics_from)
            x = F.relu(x)
        return x


class LSTM(Learner):
    """One LSTM layer over a sequence, the mean of its states, then a linear layer.

    The mean over positions, rather than the last state, lets every part of a sequence count alike.

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
