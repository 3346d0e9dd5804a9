"""The MLP against torch's own layers."""

import pytest
import torch
from torch import nn

from metarun import seeds
from metarun.errors import SettingError
from metarun.models import MLP


@pytest.mark.parametrize("norm", ["none", "transductive"])
def test_an_mlp_is_torchs_layers(norm):
    with seeds.forked("test", norm):
        model = MLP((2, 3), 4, hidden=(7, 5), norm=norm, norm_scale=norm != "none", norm_eps=1e-2).double()
        x = torch.randn(9, 2, 3, dtype=torch.float64)
        layers = [nn.Flatten()]
        for number, layer in enumerate(model.layers):
            layers.append(layer)
            if norm != "none":
                ours, theirs = model.norms[number], nn.BatchNorm1d(layer.out_features, eps=1e-2)
                nn.init.normal_(ours.shift)
                nn.init.normal_(ours.scale)
                theirs.bias.data, theirs.weight.data = ours.shift.data, ours.scale.data
                layers.append(theirs)
            layers.append(nn.ReLU())
    twin = nn.Sequential(*layers, model.head).double().train()
    torch.testing.assert_close(model(x), twin(x), rtol=1e-10, atol=1e-12)


def test_without_hidden_layers_it_is_linear():
    model = MLP((1, 2), 3, hidden=())
    x = torch.ones(4, 1, 2)
    torch.testing.assert_close(model(x), model.head(x.flatten(1)))


@pytest.mark.parametrize("bad", [{"hidden": [0]}, {"norm": "batch"}, {"norm_eps": 0.0}, {"norm_scale": 1}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(SettingError):
        MLP((1,), 1, **bad)
