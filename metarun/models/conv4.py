"""Conv4: the convolutional learner of the few-shot papers."""

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from metarun.errors import at_least, boolean, one_of, positive
from metarun.models.convolution import Conv, image_shape, mean_of_positions
from metarun.models.learner import Learner, TaskNorm


class Conv4(Learner):
    """Four blocks of 3x3 convolution, batch norm and ReLU, then a linear layer (Vinyals et al. 2016; Finn et al. 2017).

    Convolutions are padded by one pixel on every side; Finn's TensorFlow code pads even sizes on the right only.

    Images of 84x84 pixels, as of miniImageNet, have 800 features in the form of Finn et al. (filters=32,
    downsampling=max_pool) and 1600 in that of Snell et al. (filters=64, downsampling=max_pool).

    Args:
        input_shape: (C, H, W); with max_pool at least 16x16 pixels.
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
        self.norm, self.pool = norm, downsampling == "max_pool"
        remedy = "make them larger, or set model.downsampling=stride"
        channels, height, width = image_shape(input_shape, 16 if self.pool else 1, remedy)
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
        self.head = nn.Linear(filters * height * width if self.flat else filters, outputs)

    def stages(self) -> list[Callable[[Tensor, int | None], Tensor]]:
        """See Learner."""
        return [partial(self.stage, number) for number in range(len(self.blocks))]

    def stage(self, number: int, x: Tensor, statistics_from: int | None) -> Tensor:
        """What block `number` makes of x; the last one makes [n, F] of it."""
        block = self.blocks[number]
        x = F.relu(block["norm"](block["conv"](x), statistics_from))  # pyright: ignore[reportIndexIssue]
        if self.pool:
            x = F.max_pool2d(x, 2)
        if number < len(self.blocks) - 1:
            return x
        return x.flatten(1) if self.flat else mean_of_positions(x)
