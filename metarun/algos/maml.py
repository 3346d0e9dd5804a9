"""Model-agnostic meta-learning: learn an initialisation from which a few gradient steps solve a task.

    θ <- θ - β ∇_θ mean over tasks of L_query(θ_K),     θ_0 = θ,  θ_{k+1} = θ_k - α ∇ L_support(θ_k)

Reference: Finn, Abbeel & Levine 2017, "Model-agnostic meta-learning for fast adaptation of deep networks", arXiv
1703.03400. `first_order=True` is their first-order variant: ∂θ_{k+1}/∂θ_k is taken as the identity.
`inner_parameters=head` is ANIL: Raghu et al. 2020, "Rapid learning or feature reuse?", arXiv 1909.09157, where the
inner loop leaves all but the last layer alone. `inner_parameters=body` is BOIL: Oh et al. 2021, "BOIL: towards
representation change for few-shot learning", arXiv 2008.08882, where it leaves the last layer alone.

As in the authors' code, the inner loop does not touch batch norm's shift by default. We differ in the initial weights
(PyTorch's own) and in the default support loss (the mean; `inner_loss_reduction=per_shot` is the authors'). With
`head=shared` all are UNICORN-MAML: see algos/head.py.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metarun.algos.base import find_head
from metarun.algos.gradient import make_rule
from metarun.algos.head import WithHead
from metarun.algos.inner import Rule
from metarun.errors import SettingError, at_least, boolean, one_of
from metarun.models.functional import Params, weights_of
from metarun.tasks import Task, TaskSource


@dataclass(eq=False, kw_only=True)
class MAML(WithHead):
    """MAML, first-order MAML, ANIL and BOIL. For the settings that are not here see WithHead and GradientBased.

    Args:
        inner_steps: K in training; at least 1.
        inner_optimizer: `sgd`, or `adam` with fresh moments in every task.
        inner_betas: Adam's (β1, β2) in the inner loop, by default (0.9, 0.999). None with sgd.
        inner_parameters: the parameters that the inner loop changes: `weights` (all but batch norm's shift and scale),
            `head` (the last layer), `body` (all but the last layer; not with a shared head), or `all`.
        first_order: leave out the second derivatives.
    """

    training_only: ClassVar = (*WithHead.training_only, "inner_steps", "first_order")

    inner_steps: int = 1
    inner_optimizer: str = "sgd"
    inner_betas: tuple[float, float] | None = None
    inner_parameters: str = "weights"
    first_order: bool = False

    def __post_init__(self):
        super().__post_init__()
        at_least(1, inner_steps=self.inner_steps, eval_inner_steps=self.test_steps)
        boolean(first_order=self.first_order)
        one_of("inner_parameters", self.inner_parameters, ["weights", "head", "body", "all"])
        self.inner_rule = make_rule(self.inner_optimizer, self.inner_lr, self.inner_betas)
        if self.inner_parameters == "all":
            self.fixed = set()
        elif self.inner_parameters == "head":
            head, _ = find_head(self.model, trained=True)
            self.fixed = {name for name in weights_of(self.model) if not name.startswith(f"{head}.")}
        elif self.inner_parameters == "body":
            self._fix_the_head()

    def _fix_the_head(self) -> None:
        if self.head == "shared":
            raise SettingError("body", "inner_parameters", "weights, head or all with algo.head=shared, whose classes "
                               "only an inner step of the head tells apart")  # fmt: skip
        head, _ = find_head(self.model)
        self.fixed = {name for name in weights_of(self.model) if name.startswith(f"{head}.")}
        if self.fixed == set(weights_of(self.model)):
            raise SettingError("body", "inner_parameters", "weights where nothing but the last layer is trained")

    @property
    def name(self) -> str:
        """MAML, FOMAML, ANIL, BOIL, first-order ANIL or first-order BOIL."""
        if part := {"head": "ANIL", "body": "BOIL"}.get(self.inner_parameters):
            return f"first-order {part}" if self.first_order else part
        return "FOMAML" if self.first_order else "MAML"

    def rule(self, meta: Params) -> Rule:
        """The update rule: SGD or Adam."""
        return self.inner_rule

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean query loss after `inner_steps` inner steps, and the query metric, both []."""
        *_, params = self.adapt(meta, task, self.inner_steps, first_order=self.first_order)
        return self.judge(params, task)

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: the order of the meta-gradient, and whether the head is shared."""
        return {"meta_gradient": "first order" if self.first_order else "second order", **super().details(source)}
