"""An in-context learner: a transformer reads the support set and answers the queries in one pass.

    g_l = h_l + attend(h_l; support's h_l),     h_{l+1} = g_l + mlp(g_l),     a_n(x) = readout(h_L(x))
    p(n | x) ∝ exp a_n(x)

A support point is a token of its features and its target, a query one of its features. All tokens attend to the support
tokens alone and there are no positions: a query is answered as if it were the only one, and the order of the support
set plays no part. Of a task of classes the transformer is asked once for each class, with 1 as the target of its own
points and 0 as that of the others. So classes are alike by construction, a task may have any number of them, and none
of their numbers is learned. In regression it is asked once for each number of the target, with that number as the
target. The features are the learner's, without its last layer, and are meta-learned too.

References: Garnelo et al. 2018, "Conditional neural processes", arXiv 1807.01613; Müller et al. 2022, "Transformers can
do Bayesian inference", arXiv 2112.10510 (prior-fitted networks); Hollmann et al. 2023, "TabPFN", arXiv 2207.01848. We
differ from all in asking for one class at a time; from the latter in that classes need not be permuted in training, and
in that a regression's answer is its mean alone.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from metarun import seeds
from metarun.algos.base import without_head
from metarun.algos.feedforward import Feedforward, mask_absent
from metarun.algos.inner import with_prefix, without_prefix
from metarun.errors import SettingError, at_least, boolean
from metarun.models.functional import Params
from metarun.tasks import Task, TaskSource


@dataclass(eq=False, kw_only=True)
class InContext(Feedforward):
    """The in-context learner. Its meta-parameters are `learner.*` and `reader.*`, those of the transformer.

    Args:
        width: of the tokens; a multiple of heads.
        layers: of the transformer, at least 1.
        heads: of its attention.
        permute_columns: whether training tasks see the columns of their vectors in an order of their own, so that none
            means the same in two tasks: for a test on other columns. What columns mean cannot be learned then.
        standardise: whether each column of vectors has mean 0 and variance 1 over the support set: for tests on columns
            of other scales. What their size means cannot be learned then.
    """

    any_ways = True
    training_only: ClassVar = (*Feedforward.training_only, "permute_columns")

    width: int = 32
    layers: int = 3
    heads: int = 4
    permute_columns: bool = False
    standardise: bool = False

    def __post_init__(self):
        super().__post_init__()
        at_least(1, width=self.width, layers=self.layers, heads=self.heads)
        boolean(permute_columns=self.permute_columns, standardise=self.standardise)
        if self.width % self.heads:
            raise SettingError(self.width, "width", f"a multiple of heads, which are {self.heads}")
        self.model, head = without_head(self.model)
        self.outputs = head.out_features
        self.reader = _Reader(head.in_features, self.width, self.layers, self.heads)

    @property
    def name(self) -> str:
        """See Algorithm."""
        return "In-context learner"

    def check(self, source: TaskSource, meta_batch: int) -> None:
        """See Algorithm."""
        for name in ("permute_columns", "standardise"):
            if getattr(self, name) and len(source.input_shape) != 1:
                raise SettingError(True, f"algo.{name}", "false where examples are no vectors")

    def init(self) -> Params:
        """{name: tensor}: the learner's own weights, and the transformer's."""
        learner = super().init()
        like = next(iter(learner.values()), torch.zeros(()))
        reader = {name: value.detach().to(like, copy=True) for name, value in self.reader.named_parameters()}
        return {**with_prefix("learner", learner), **with_prefix("reader", reader)}

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean loss of the query set, and its metric, both []."""
        if self.permute_columns:
            columns = task.support_x.shape[1]
            order = seeds.distinct(("columns",), task.key[None], 1, columns, columns)[0, 0]
            task = task._replace(support_x=task.support_x[:, order], query_x=task.query_x[:, order])
        return super().meta_loss(meta, task)

    def answers(self, meta: Params, task: Task) -> Tensor:
        """[Q, N] logits, least for a class without support; or values."""
        if self.standardise:
            support_x, query_x = standardise_columns(task.support_x, task.query_x)
            task = task._replace(support_x=support_x, query_x=query_x)
        x = self.predict_points(without_prefix("learner", meta), task)
        classes = not task.support_y.is_floating_point()
        y = (F.one_hot(task.support_y, self.outputs) if classes else task.support_y).T[..., None]  # [questions, S, 1]
        outputs = functional_call(self.reader, without_prefix("reader", meta), (x, y.to(x.dtype), classes))
        return mask_absent(outputs.T, y.sum(dim=(1, 2))) if classes else outputs.T


def standardise_columns(support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Support and query vectors, [n, F], with mean 0 and variance 1 over the support set.

    A column that is the same in the whole support set is 0 there, and in a query at most 10 in size, as all are.
    """
    mean = support.mean(dim=0)
    deviation = (support - mean).square().mean(dim=0).add(1e-6).sqrt()
    return (support - mean) / deviation, ((query - mean) / deviation).clamp(-10, 10)


class _Reader(nn.Module):
    """The transformer: [S + Q, F] features and [n, S, 1] targets of n questions to [n, Q] answers."""

    def __init__(self, features: int, width: int, layers: int, heads: int):
        super().__init__()
        self.features = nn.Linear(features, width)
        self.member = nn.Parameter(torch.randn(1, width))  # times the target 0 or 1 of a class
        self.target = nn.Linear(1, width)  # times a value
        self.unknown = nn.Parameter(torch.randn(width))
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.logit = nn.Linear(width, 1, bias=False)  # which softmax would not see
        self.value = nn.Linear(width, 1)

    def forward(self, x: Tensor, y: Tensor, classes: bool) -> Tensor:
        points = y.shape[1]
        tokens = self.features(x)
        known = y * self.member if classes else self.target(y)
        unknown = self.unknown.expand(len(y), len(x) - points, -1)
        tokens = tokens + torch.cat([known, unknown], dim=1)
        for layer in self.layers:
            tokens = layer(tokens, points)
        tokens = F.layer_norm(tokens[:, points:], tokens.shape[-1:])
        return (self.logit if classes else self.value)(tokens)[..., 0]


class _Layer(nn.Module):
    """Attention to the first `points` tokens, and a network of one hidden layer; both add to the tokens."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.rise, self.fall = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor, points: int) -> Tensor:
        normed = F.layer_norm(tokens, tokens.shape[-1:])
        support = normed[:, :points]
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [n, heads, tokens, width / heads]
            for part in (self.query(normed), self.key(support), self.value(support))
        )
        weights = (query @ key.mT * query.shape[-1] ** -0.5).softmax(dim=-1)
        tokens = tokens + self.out((weights @ value).transpose(1, 2).flatten(2))
        return tokens + self.fall(F.gelu(self.rise(F.layer_norm(tokens, tokens.shape[-1:]))))
