"""Conv4 against the same network, written with torch's own layers."""

import pytest
import torch
from torch import nn

from metarun.errors import SettingError
from metarun.models import Conv4


class Mean(nn.Module):
    """Over positions."""

    def forward(self, x):
        return x.mean(dim=(2, 3))


def _twin(model: Conv4, pool: bool, flat: bool) -> nn.Sequential:
    """nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d and nn.Linear with the learner's weights."""
    layers = []
    for block in model.blocks:
        weight, shift, scale = block["conv"].weight, block["norm"].shift, block["norm"].scale
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, 1 if pool else 2, padding=1, bias=False)
        norm = nn.BatchNorm2d(len(weight), eps=1e-3)
        for ours, theirs in ((weight, conv.weight), (shift, norm.bias), (scale, norm.weight)):
            theirs.data = ours.data.clone()
        layers += [conv, norm, nn.ReLU(), *([nn.MaxPool2d(2)] if pool else [])]
    return nn.Sequential(*layers, nn.Flatten() if flat else Mean(), model.head).double().train()


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("positions", [None, "mean", "flatten"])
def test_conv4_is_torch_s_layers(pool, positions):
    torch.manual_seed(0)
    model = Conv4((1, 28, 28), 5, 6, "max_pool" if pool else "stride", positions, norm_scale=True).double()
    for block in model.blocks:
        nn.init.normal_(block["norm"].shift)
        nn.init.normal_(block["norm"].scale)
    x = torch.rand(9, 1, 28, 28, dtype=torch.float64)
    twin = _twin(model, pool, positions == "flatten" or (positions is None and pool))
    torch.testing.assert_close(model(x), twin(x), rtol=1e-10, atol=1e-12)
    sizes = {(False, "flatten"): 4 * 6}  # 28 -> 14 -> 7 -> 4 -> 2; with pooling one position is left
    assert model.head.in_features == sizes.get((pool, positions), 6)


def test_positions_of_another_name_are_refused():
    with pytest.raises(SettingError, match="mean, flatten"):
        Conv4((1, 28, 28), 5, positions="max")


def test_published_forms_for_miniimagenet():
    """84 -> 42 -> 21 -> 10 -> 5 pixels: 800 features of 32 filters (Finn et al.), 1600 of 64 (Snell et al.)."""
    for filters, features in ((32, 800), (64, 1600)):
        model = Conv4((3, 84, 84), 5, filters, "max_pool")
        assert model.head.in_features == features
        assert model(torch.rand(2, 3, 84, 84)).shape == (2, 5)


def test_images_that_pooling_would_use_up_are_refused():
    assert Conv4((1, 1, 15), 5, filters=2)(torch.rand(2, 1, 1, 15)).shape == (2, 5)
    with pytest.raises(SettingError, match=r"\[1, 16, 15\] \(input_shape\): .*16x16 .*model.downsampling=stride"):
        Conv4((1, 16, 15), 5, downsampling="max_pool")
