"""Modules as pure functions of their parameters, which are {name: tensor}."""

from torch import Tensor, nn
from torch.func import functional_call

from metarun.models.learner import Learner

Params = dict[str, Tensor]


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a learner that are trained, by name: those that its class has not frozen (requires_grad)."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def call(model: nn.Module, params: Params, x: Tensor, support: Tensor | None = None) -> Tensor:
    """A learner's outputs under these parameters; see Algorithm.predict()."""
    if isinstance(model, Learner):
        return model.call(params, x, support)
    return functional_call(model, params, (x,))
