"""Slow and fast weights: two copies of a learner, whose layers' outputs are added, layer by layer.

    x_{l+1} = slow_l(x_l) + fast_l(x_l)     as in ReLU(W x) + ReLU(W* x)

Reference: Munkhdalai & Yu 2017, "Meta networks", arXiv 1703.00837 (layer augmentation).
"""

import copy
from collections.abc import Callable

from torch import Tensor

from metarun.errors import SettingError
from metarun.models.learner import Learner


class SlowAndFast(Learner):
    """A learner twice: its parameters are `slow.*` and `fast.*`.

    Args:
        learner: whose layers its stages() are; both parts begin with its weights.

    Raises:
        SettingError: it is a network of another package, whose layers nobody knows.
    """

    head_name = "slow.head"

    def __init__(self, learner: Learner):
        super().__init__()
        if learner.network is not learner:
            rule = "one whose layers are known, as model=mlp; or algo.fast_layers=false"
            raise SettingError(learner.own_class, "model", rule)
        self.slow, self.fast = learner, copy.deepcopy(learner)
        self.norm, self.form = learner.norm, learner.form

    def outputs(self, x: Tensor, statistics_from: int | None) -> Tensor:
        """See Learner."""
        x = self.features(x, statistics_from)
        return self.slow.head(x) + self.fast.head(x)

    def features(self, x: Tensor, statistics_from: int | None) -> Tensor:
        """See Learner: what stands before the head without a layer is not doubled."""
        if not _stages_of(self.slow):
            return self.slow.features(x, statistics_from)
        for slow, fast in zip(_stages_of(self.slow), _stages_of(self.fast), strict=True):
            x = slow(x, statistics_from) + fast(x, statistics_from)
        return x


def _stages_of(learner: Learner) -> list[Callable[[Tensor, int | None], Tensor]]:
    """A learner's layers; of one that does not name them all that is before the head is one."""
    return [learner.features] if type(learner).stages is Learner.stages else learner.stages()
