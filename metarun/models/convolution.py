"""Convolutions without a bias, in the form that maps over tasks best, and the images that they take."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.errors import SettingError
from metarun.models.unit import compiling


class Conv(nn.Conv2d):
    """A convolution, padded so that stride 1 keeps the size, without a bias, which batch norm after it would cancel.

    Args:
        channels: of the input.
        filters: channels of the output.
        stride: in pixels.
        size: of the window, odd.
    """

    def __init__(self, channels: int, filters: int, stride: int = 1, size: int = 3):
        super().__init__(channels, filters, size, stride, padding=size // 2, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """[n, filters, h, w] of [n, channels, H, W]."""
        if not compiling():
            return super()._conv_forward(*rounded(input, self.weight), None)
        # A product for all positions at once. Compiled, its preparation is fused, and it maps over tasks as a batch of
        # products; a convolution maps as a grouped one, whose second derivative takes the groups one after the other.
        windows = _windows(input.permute(0, 2, 3, 1), self.stride[0], self.kernel_size[0])
        weight = self.weight.permute(2, 3, 1, 0).reshape(-1, self.out_channels)
        return (windows.flatten(0, 2) @ weight).view(*windows.shape[:3], -1).permute(0, 3, 1, 2)


def rounded(*tensors: Tensor) -> list[Tensor]:
    """The factors of a convolution, rounded where autocast would: mapped over tasks, it does not see convolutions."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    return [tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors]


def _windows(x: Tensor, stride: int, size: int) -> Tensor:
    """[n, h, w, size² C] the windows of [n, H, W, C], in the order row, column, channel."""
    around = size // 2
    padded = F.pad(x, (0, 0, around, around, around, around))
    h, w = (padded.shape[1] - size) // stride + 1, (padded.shape[2] - size) // stride + 1
    ends = (h - 1) * stride + 1, (w - 1) * stride + 1
    starts = [(i, j) for i in range(size) for j in range(size)]
    shifted = [padded[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i, j in starts]
    return torch.cat(shifted, dim=-1)


def image_shape(input_shape: Sequence[int], least: int = 1, remedy: str = "") -> tuple[int, int, int]:
    """(C, H, W) of images with at least `least` pixels on a side; `remedy` is for smaller ones.

    Raises:
        SettingError: they are no images, or smaller.
    """
    if len(input_shape) != 3:
        raise SettingError(
            list(input_shape),
            "input_shape",
            "images: channels, height, width; for other inputs leave it to the task source, or take model=mlp",
        )
    channels, height, width = input_shape
    if min(height, width) < least:
        rule = f"images of at least {least}x{least} pixels, of which four poolings leave one; {remedy}"
        raise SettingError(list(input_shape), "input_shape", rule)
    return channels, height, width


def mean_of_positions(x: Tensor) -> Tensor:
    """[n, C] the mean of [n, C, H, W]: as a sum, for the slope of torch's mean takes longer."""
    return x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3])
