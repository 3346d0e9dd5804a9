"""The base class of learners, and their batch norm.

n examples, C channels, N outputs. A learner keeps no running statistics: those that batch norm uses come from the call.

Batch norm has two modes, which results have to name:
    transductive   the query is normalised by the statistics of the query itself (Finn et al. 2017)
    support        the query is normalised by the statistics of the support set, so that every answer stands alone
In both, the support set is normalised by its own statistics.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metarun.text import spell_class


class TaskNorm(nn.Module):
    """Batch norm by the statistics of the examples that are passed in.

    Args:
        channels: C.
        scale: whether to have a scale beside the shift.
        eps: added to the variance.
    """

    def __init__(self, channels: int, scale: bool, eps: float):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels))
        self.scale = nn.Parameter(torch.ones(channels)) if scale else None
        self.eps = eps

    def reset_parameters(self) -> None:
        """Sets the shift to zero and the scale to one."""
        nn.init.zeros_(self.shift)
        if self.scale is not None:
            nn.init.ones_(self.scale)

    def forward(self, x: Tensor, statistics_from: int | None) -> Tensor:
        """[n, C, ...] x, normalised by its first `statistics_from` examples, or by all of them if that is None."""
        return normalise(x, self.scale, self.shift, self.eps, statistics_from)


def normalise(x: Tensor, scale: Tensor | None, shift: Tensor | None, eps: float, statistics_from: int | None) -> Tensor:
    """[n, C, ...] x, normalised as TaskNorm has it; scale and shift are [C], or None."""
    # Written out: the second derivative of torch's own batch norm is wrong under vmap where tasks have different
    # scales, which the central differences in tests/algos/test_maml.py notice. Sums rather than torch's mean and
    # variance: those take several times as long, and the slope of a mean writes its share to every element.
    shape, dims = [-1, *[1] * (x.dim() - 2)], [0, *range(2, x.dim())]
    sample = x if statistics_from is None else x[:statistics_from]
    share = x.shape[1] / sample.numel()
    centred = x - sample.sum(dims, keepdim=True) * share
    sample = centred if statistics_from is None else centred[:statistics_from]
    factor = torch.rsqrt((sample * sample).sum(dims, keepdim=True) * share + eps)
    if scale is not None:
        factor = factor * scale.view(shape)
    return centred * factor if shift is None else torch.addcmul(shift.view(shape), centred, factor)


class Learner(nn.Module):
    """Features and a linear head; hands the support set's statistics to the norms.

    Attributes:
        norm: transductive, support, or none.
        head_name: of the linear layer from F features to N outputs, or None. Algorithms that want the features put
            nn.Identity() in its place.
        form: the published form, in words, such as "stride 2, averaged over positions"; "" where there is only one.
        notes: lines for the log, on what was done to make the learner one.
    """

    norm: str = "none"
    head: nn.Module
    head_name: str | None = "head"
    form = ""
    notes: Sequence[str] = ()

    @property
    def own_class(self) -> str:
        """The class of the network, for messages, such as net.Flat."""
        return spell_class(type(self))

    @property
    def network(self) -> nn.Module:
        """The module whose names the parameters have."""
        return self

    def call(self, params: dict[str, Tensor], x: Tensor, support: Tensor | None) -> Tensor:
        """[n, N] outputs under these parameters; see forward()."""
        return functional_call(self, params, (x, support))

    def with_new_weights(self) -> "Learner | None":
        """The learner built again, with weights that its constructor draws; None where that is not known."""
        return None

    @property
    def norm_parameters(self) -> set[str]:
        """Names of the parameters that belong to batch norm."""
        norms = [name for name, module in self.named_modules() if isinstance(module, TaskNorm)]
        return {f"{norm}.{name}" for norm in norms for name, _ in self.get_submodule(norm).named_parameters()}

    def forward(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """[n, N] outputs for examples.

        Args:
            x: [n, *input_shape].
            support: [S, *input_shape], the task's support set when x is its query set; used with norm=support only.
        """
        return self.joined(self.outputs, x, support)

    def joined(self, outputs: Callable[[Tensor, int | None], Tensor], x: Tensor, support: Tensor | None) -> Tensor:
        """[n, N] outputs(examples, statistics_from), with the support set beside x where its statistics are wanted."""
        if self.norm != "support" or support is None:
            return outputs(x, None)
        return outputs(torch.cat([support, x]), len(support))[len(support) :]

    def outputs(self, x: Tensor, statistics_from: int | None) -> Tensor:
        """[n, N] outputs; norms take their statistics from the first `statistics_from` examples (None: all)."""
        return self.head(self.features(x, statistics_from))

    def features(self, x: Tensor, statistics_from: int | None) -> Tensor:
        """[n, F] the inputs of the head; norms as in outputs. By default what the stages make, one after the other."""
        for stage in self.stages():
            x = stage(x, statistics_from)
        return x

    def stages(self) -> list[Callable[[Tensor, int | None], Tensor]]:
        """The layers before the head, as functions of x and statistics_from. A subclass has these or features()."""
        raise NotImplementedError
