"""Modules as pure functions of their parameters, which are {name: tensor}."""

from torch import Tensor, nn
from torch.func import functional_call

Params = dict[str, Tensor]


def call(model: nn.Module, params: Params, x: Tensor, support: Tensor | None = None) -> Tensor:
    """A learner's outputs under these parameters; see Algorithm.predict()."""
    takes_support = hasattr(model, "norm")  # one of metarun's learners; any other module is called with x
    return functional_call(model, params, (x, support) if takes_support else (x,))
