"""ResNet-12 against the same network, written with torch's own layers."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from helpers.oracles import assert_central_differences, image_tasks, maml
from torch import nn

from metarun import seeds
from metarun.errors import SettingError
from metarun.models import ResNet12
from metarun.models.unit import tracing


class Twin(nn.Module):
    """A block of torch's layers, which has the very parameters of one of ours."""

    def __init__(self, block):
        super().__init__()
        pairs = [*zip(block.convs, block.norms, strict=True), (block.shortcut, block.shortcut_norm)]
        self.layers = nn.ModuleList(self._pair(conv.weight, norm) for conv, norm in pairs)

    def _pair(self, weight, norm):
        filters, channels, size, _ = weight.shape
        conv = nn.Conv2d(channels, filters, size, padding={3: 1, 1: 0}[size], bias=False)
        twin = nn.BatchNorm2d(filters)
        conv.weight, twin.weight, twin.bias = weight, norm.scale, norm.shift
        return nn.Sequential(conv, twin)

    def forward(self, x):
        one, two, three, past = self.layers
        out = three(F.leaky_relu(two(F.leaky_relu(one(x), 0.1)), 0.1))
        return nn.MaxPool2d(2)(F.leaky_relu(out + past(x), 0.1))


def _model(shape, **settings):
    with seeds.forked("test", "resnet12"):
        model = ResNet12(shape, 3, (3, 4, 2, 5), **settings).double()
        for name in model.norm_parameters:
            nn.init.uniform_(model.get_parameter(name), 0.5, 1.5)
    return model


def test_resnet12_is_torch_s_layers():
    model = _model((3, 21, 17))
    twin = nn.Sequential(*map(Twin, model.blocks), nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.head).double().train()
    x = torch.rand(6, 3, 21, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with tracing():  # convolutions then have the form that compiles best
        compiled = model(x)
    weights, out = list(model.parameters()), twin(x)
    expected = [out, *torch.autograd.grad(out.square().sum(), weights)]
    for ours in (model(x), compiled):
        found = [ours, *torch.autograd.grad(ours.square().sum(), weights)]
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_its_size_is_the_published_one():
    """Weights of a block: 9 C W + 18 W² of the convolutions, C W of the shortcut, 8 W of the norms."""
    with torch.device("meta"):
        model = ResNet12((3, 84, 84), 5)
    widths = [3, 64, 160, 320, 640]
    blocks = sum(9 * c * w + 18 * w * w + c * w + 8 * w for c, w in itertools.pairwise(widths))
    assert blocks == 12_424_320
    assert sum(p.numel() for p in model.parameters()) == blocks + 640 * 5 + 5


def test_a_query_stands_alone_with_the_support_sets_statistics():
    """In the norm of the shortcut too."""
    model = _model((1, 16, 16), norm="support")
    task = image_tasks(torch.Generator().manual_seed(0)).select(0)
    alone = torch.cat([model(x[None], task.support_x) for x in task.query_x])
    torch.testing.assert_close(alone, model(task.query_x, task.support_x), rtol=1e-10, atol=1e-12)


def test_its_meta_gradient_agrees_with_central_differences():
    algorithm = maml(_model((1, 16, 16)), inner_lr=0.02, inner_steps=1, eval_inner_steps=1)
    assert_central_differences(algorithm, image_tasks(torch.Generator().manual_seed(5), 1), algorithm.init())


@pytest.mark.parametrize(
    ("shape", "settings", "said"),
    [
        ((3, 84, 15), {}, r"\[3, 84, 15\] \(input_shape\): expected images of at least 16x16 pixels.*model=conv4"),
        ((10,), {}, r"\[10\] \(input_shape\): expected images"),
        ((1, 16, 16), {"widths": [64, 64]}, r"\[64, 64\] \(widths\): expected four"),
        ((1, 16, 16), {"widths": [4, 4, 0, 4]}, r"0 \(widths\): expected an integer of at least 1"),
    ],
)
def test_it_refuses_what_it_cannot_take(shape, settings, said):
    with pytest.raises(SettingError, match=said):
        ResNet12(shape, 5, **settings)
