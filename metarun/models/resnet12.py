"""ResNet-12: the residual learner of the few-shot papers.

    block(x) = pool(act(norm(conv(act(norm(conv(act(norm(conv(x)))))))) + norm(conv1x1(x))))

Reference: Oreshkin, Rodriguez & Lacoste 2018 (TADAM), in the form of Lee, Maji, Ravichandran & Soatto 2019
(MetaOptNet), whose widths are the defaults. We differ: no dropout and no DropBlock, since an answer must not depend on
what was drawn before; batch norm by the statistics of the task; torch's own initial weights. The features are averaged
over positions, as by Oreshkin et al.; Lee et al. flatten them for their support vector machine.
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from metarun.errors import SettingError, at_least, boolean, one_of, positive
from metarun.models.convolution import Conv, image_shape, mean_of_positions
from metarun.models.learner import Learner, TaskNorm

SLOPE = 0.1  # of the leaky ReLUs, below zero


class ResNet12(Learner):
    """Four residual blocks of three 3x3 convolutions with batch norm and leaky ReLU, then a linear layer.

    Args:
        input_shape: (C, H, W), at least 16x16 pixels.
        outputs: N.
        widths: filters of each of the four blocks. Lee et al.: 64, 160, 320, 640, with 12,424,320 weights before the
            last layer for three channels. Oreshkin et al.: 64, 128, 256, 512.
        norm: batch-norm mode, transductive or support (see models/learner.py).
        norm_scale: whether batch norm has a scale beside its shift.
        norm_eps: added to the variance.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        widths: Sequence[int] = (64, 160, 320, 640),
        norm: str = "transductive",
        norm_scale: bool = True,
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        if len(widths) != 4:
            raise SettingError(list(widths), "widths", "four numbers of filters, as in [64,128,256,512]")
        for width in widths:
            at_least(1, widths=width)
        boolean(norm_scale=norm_scale)
        one_of("norm", norm, ["transductive", "support"])
        positive("norm_eps", norm_eps)
        channels, _, _ = image_shape(input_shape, 16, "make them larger, or take model=conv4")
        self.norm, self.form = norm, f"widths {'-'.join(map(str, widths))}"
        self.blocks = nn.ModuleList()
        for width in widths:
            self.blocks.append(Block(channels, width, norm_scale, norm_eps))
            channels = width
        self.head = nn.Linear(channels, outputs)

    def stages(self) -> list[Callable[[Tensor, int | None], Tensor]]:
        """See Learner."""
        return [*self.blocks[:-1], lambda x, statistics_from: mean_of_positions(self.blocks[-1](x, statistics_from))]


class Block(nn.Module):
    """Three convolutions with a shortcut past them, and 2x2 max-pooling."""

    def __init__(self, channels: int, filters: int, norm_scale: bool, norm_eps: float):
        super().__init__()
        self.convs = nn.ModuleList(Conv(into, filters) for into in (channels, filters, filters))
        self.norms = nn.ModuleList(TaskNorm(filters, norm_scale, norm_eps) for _ in range(3))
        self.shortcut = Conv(channels, filters, size=1)
        self.shortcut_norm = TaskNorm(filters, norm_scale, norm_eps)

    def forward(self, x: Tensor, statistics_from: int | None) -> Tensor:
        """[n, filters, H // 2, W // 2] of [n, channels, H, W]; norms as in Learner.outputs."""
        past = self.shortcut_norm(self.shortcut(x), statistics_from)
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x), statistics_from)
            x = F.leaky_relu(x if number < 2 else x + past, SLOPE)
        return F.max_pool2d(x, 2)
