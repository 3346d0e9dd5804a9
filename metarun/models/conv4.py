"""Conv4: the convolutional learner of the few-shot papers."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.errors import SettingError, at_least, boolean, one_of, positive
from metarun.models.learner import Learner, TaskNorm
from metarun.models.unit import compiling


class Conv4(Learner):
    """Four blocks of 3x3 convolution, batch norm and ReLU, then a linear layer (Vinyals et al. 2016; Finn et al. 2017).

    Convolutions are padded by one pixel on every side; Finn's TensorFlow code pads even sizes on the right only.

    Args:
        input_shape: (C, H, W).
        outputs: N.
        filters: of every block.
        downsampling: `stride`: stride 2, the Omniglot form of Finn et al.; `max_pool`: stride 1 and 2x2 max-pooling,
            the form of Vinyals et al. and of most ports.
        positions: of the last feature map, as the last layer sees them: their `mean`, or all of them with `flatten`.
            None: the mean after strides, as Finn et al. have it, and flattened after pooling.
        norm: batch-norm mode, transductive or support (see models/learner.py).
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
        last = {"mean": ", averaged over positions", "flatten": ", flattened"}.get(positions or "", "")
        self.form = ("max-pooling" if self.pool else "stride 2") + last
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


class Conv(nn.Conv2d):
    """A 3x3 convolution, padded by one pixel, without a bias, which the batch norm after it would cancel."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__(channels, filters, 3, stride, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """[n, filters, h, w] of [n, channels, H, W]."""
        if not compiling():
            return super().forward(input)
        # A product for all positions at once. Compiled, its preparation is fused, and it maps over tasks as a batch of
        # products; a convolution maps as a grouped one, whose second derivative takes the groups one after the other.
        patches = _patches(input.permute(0, 2, 3, 1), self.stride[0])  # [n, h, w, 9 channels]
        weight = self.weight.permute(2, 3, 1, 0).reshape(-1, self.out_channels)
        return (patches.flatten(0, 2) @ weight).view(*patches.shape[:3], -1).permute(0, 3, 1, 2)


def _patches(x: Tensor, stride: int) -> Tensor:
    """[n, h, w, 9 C] the 3x3 windows of [n, H, W, C], in the order row, column, channel."""
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    h, w = (padded.shape[1] - 3) // stride + 1, (padded.shape[2] - 3) // stride + 1
    ends = (h - 1) * stride + 1, (w - 1) * stride + 1
    shifted = [padded[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i in range(3) for j in range(3)]
    return torch.cat(shifted, dim=-1)
