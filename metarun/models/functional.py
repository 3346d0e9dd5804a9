"""Modules as pure functions of their parameters, which are {name: tensor}."""

import copy
import threading
import weakref
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

Params = dict[str, Tensor]


def call(model: nn.Module, params: Params, x: Tensor, support: Tensor | None = None) -> Tensor:
    """A learner's outputs under these parameters; see Algorithm.predict()."""
    takes_support = hasattr(model, "norm")  # one of metarun's learners; any other module is called with x
    return under_parameters(model, params, (x, support) if takes_support else (x,))


_copies = threading.local()


def under_parameters(module: nn.Module, params: Params, args: tuple) -> Any:
    """module(*args) as if its parameters were these; several threads may do so at once.

    torch's functional_call puts parameters into the module while it runs, so that every thread needs one of its own.
    """
    return functional_call(_own(module), params, args)


def _own(module: nn.Module) -> nn.Module:
    """The module itself, or outside the main thread a copy that is this thread's own."""
    if threading.current_thread() is threading.main_thread():
        return module
    mine = _copies.__dict__.setdefault("of", weakref.WeakKeyDictionary())
    if module not in mine:
        mine[module] = copy.deepcopy(module)
    return mine[module]
