"""The LSTM learner and its cell against torch's."""

import pytest
import torch
import torch.nn.functional as F

from metarun import seeds
from metarun.errors import SettingError
from metarun.models import LSTM
from metarun.models.lstm import LSTMCell

CPU = torch.device("cpu")


def test_the_cell_is_torchs():
    cell, theirs = LSTMCell(4, 20).double(), torch.nn.LSTMCell(4, 20).double()
    with torch.no_grad():
        i, f, g, o = torch.cat([theirs.weight_ih, theirs.weight_hh], dim=1).chunk(4)
        cell.weight.copy_(torch.cat([i, f, o, g]))
        i, f, g, o = (theirs.bias_ih + theirs.bias_hh).chunk(4)
        cell.bias.copy_(torch.cat([i, f, o, g]))
    state, expected = cell.start(7, cell.weight), None
    for x in torch.randn(3, 7, 4, dtype=torch.float64):
        state, expected = cell(x.T, state), theirs(x, expected)
    for ours, h in zip(state, expected, strict=True):
        torch.testing.assert_close(ours.T, h, rtol=1e-12, atol=1e-12)


def test_an_lstm_learner_is_torchs_lstm_and_the_mean_of_its_states():
    with seeds.forked("test", "lstm"):
        model, theirs = LSTM((9, 4), 3, hidden=6).double(), torch.nn.LSTM(4, 6, batch_first=True).double()
    x = torch.randn(5, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        i, f, o, g = model.cell.weight.chunk(4)
        weight = torch.cat([i, f, g, o])
        theirs.weight_ih_l0.copy_(weight[:, :4])
        theirs.weight_hh_l0.copy_(weight[:, 4:])
        i, f, o, g = model.cell.bias.chunk(4)
        theirs.bias_ih_l0.copy_(torch.cat([i, f, g, o]))
        theirs.bias_hh_l0.zero_()
    expected = F.linear(theirs(x)[0].mean(dim=1), model.head.weight, model.head.bias)
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-12)
    with pytest.raises(SettingError, match="sequences: length, symbols"):
        LSTM((1, 28, 28), 5)
