"""Model-agnostic meta-learning: learn an initialisation from which a few gradient steps solve a task.

    θ <- θ - β ∇_θ mean over tasks of L_query(θ_K),     θ_0 = θ,  θ_{k+1} = θ_k - α ∇ L_support(θ_k)

Reference: Finn, Abbeel & Levine 2017, "Model-agnostic meta-learning for fast adaptation of deep networks",
arXiv 1703.03400. `first_order=True` is their first-order variant: ∂θ_{k+1}/∂θ_k is taken as the identity.

As in the authors' code, the inner loop leaves batch norm's shift alone (`adapt_norm`). We differ in the initial weights
(PyTorch's own) and in the default support loss (the mean; `inner_loss_reduction=per_shot` is the authors').
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from metarun.algos.base import Algorithm
from metarun.errors import SettingError, at_least, boolean, one_of, positive
from metarun.inner import SGD, Adam, Params, trajectory
from metarun.tasks import Task, TaskSource, example_losses, score


class MAML(Algorithm):
    """MAML and first-order MAML.

    Args:
        model: the learner; its parameters are the first initialisation.
        inner_lr: α.
        inner_steps: K in training; at least 1.
        eval_inner_steps: K in validation and test; at least 1.
        inner_optimizer: `sgd`, or `adam` with fresh moments in every task.
        inner_betas: Adam's (β1, β2) in the inner loop, by default (0.9, 0.999). None with sgd.
        inner_loss_reduction: what the support loss is. `mean`: over all S support examples. `per_shot`: their sum
            divided by the shots, that is N times the mean, as the authors' code has it. Regression has one way, so
            both are the same there.
        adapt_norm: whether the inner loop also adapts batch norm's shift and scale.
        first_order: leave out the second derivatives.
        meta_lr: β.
        meta_optimizer: see Algorithm.
    """

    training_only = (*Algorithm.training_only, "inner_steps", "first_order")

    def __init__(
        self,
        model: nn.Module,
        *,
        inner_lr: float = 0.01,
        inner_steps: int = 1,
        eval_inner_steps: int = 10,
        inner_optimizer: str = "sgd",
        inner_betas: tuple[float, float] | None = None,
        inner_loss_reduction: str = "mean",
        adapt_norm: bool = False,
        first_order: bool = False,
        meta_lr: float = 1e-3,
        meta_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    ):
        super().__init__(model, meta_lr=meta_lr, meta_optimizer=meta_optimizer)
        positive("inner_lr", inner_lr)
        at_least(1, inner_steps=inner_steps, eval_inner_steps=eval_inner_steps)
        boolean(adapt_norm=adapt_norm, first_order=first_order)
        one_of("inner_optimizer", inner_optimizer, ["sgd", "adam"])
        one_of("inner_loss_reduction", inner_loss_reduction, ["mean", "per_shot"])
        self.inner_steps, self.eval_inner_steps = inner_steps, eval_inner_steps
        self.per_shot = inner_loss_reduction == "per_shot"
        self.first_order = first_order
        self.inner_lr = inner_lr
        if inner_optimizer == "adam":
            self.rule = Adam(inner_lr, _betas(inner_betas))
        elif inner_betas is not None:
            raise SettingError(inner_betas, "inner_betas", "null with inner_optimizer=sgd, which has no betas")
        else:
            self.rule = SGD(inner_lr)
        self.fixed = set() if adapt_norm else getattr(model, "norm_parameters", set())

    @property
    def name(self) -> str:
        """MAML or FOMAML."""
        return "FOMAML" if self.first_order else "MAML"

    def adapt(self, meta: Params, task: Task, steps: int) -> Iterator[Params]:
        """The learner's parameters after 0, 1, ..., `steps` inner steps on the support set."""
        fixed = {name: value for name, value in meta.items() if name in self.fixed}
        adapted = {name: value for name, value in meta.items() if name not in self.fixed}

        def support_loss(params: Params) -> Tensor:
            outputs = self.predict({**fixed, **params}, task.support_x)
            return example_losses(outputs, task.support_y).mean() * self.ways(task.support_y, outputs)

        for params in trajectory(support_loss, adapted, self.rule, steps, first_order=self.first_order):
            yield {**fixed, **params}

    def ways(self, targets: Tensor, outputs: Tensor) -> int:
        """What the mean support loss is multiplied by: N with per_shot on classes, else 1."""
        return outputs.shape[-1] if self.per_shot and not targets.is_floating_point() else 1

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean query loss after the training number of inner steps, and the query metric there."""
        *_, params = self.adapt(meta, task, self.inner_steps)
        outputs = self.predict(params, task.query_x, task.support_x)
        return example_losses(outputs, task.query_y).mean(), score(outputs, task.query_y)

    def adaptation_curve(self, meta: Params, task: Task) -> Tensor:
        """[eval_inner_steps + 1] query metric after each inner step."""
        learners = self.adapt(meta, task, self.eval_inner_steps)
        return torch.stack([score(self.predict(p, task.query_x, task.support_x), task.query_y) for p in learners])

    def describe(self, source: TaskSource) -> dict[str, str]:
        """The inner loop as it acts on the mean support loss, and the kind of meta-gradient."""
        rate = f"{self.inner_lr:g}"
        if self.per_shot and source.metric == "accuracy" and isinstance(self.rule, SGD):
            rate = f"{self.inner_lr:g} per shot, that is {self.inner_lr * source.outputs:g} on the mean support loss"
        steps = f"steps: {self.inner_steps} in training, {self.eval_inner_steps} in test"
        return {
            "inner loop": f"{type(self.rule).__name__}, rate {rate}, {steps}",
            "meta-gradient": "first order" if self.first_order else "second order",
        }


def _betas(betas: tuple[float, float] | None) -> tuple[float, float]:
    if betas is None:
        return 0.9, 0.999
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise SettingError(list(betas), "inner_betas", "two numbers in [0, 1), such as [0.9,0.999]")
    return betas[0], betas[1]
