"""The baseline that reviewers ask for: a classifier of all training classes, frozen, and a simple head on its features.

    θ, W <- (θ, W) - β ∇ mean over points of -log softmax(W f(x))_c,     c = the number of x's class in training

A new task is answered from f alone, which stays as it is. `classify` says how:

    centroid   the class mean that is nearest, once the features' training mean is taken off and their length is 1
    cosine     the class mean of the greatest cosine; W is then trained by cosines too
    logistic   one-vs-rest logistic regression on the support set

References: Wang, Chao, Weinberger & van der Maaten 2019, "SimpleShot", arXiv 1911.04623 (centroid); Chen et al. 2019,
"A closer look at few-shot classification", arXiv 1904.04232 (logistic is their Baseline, cosine their Baseline++).

We differ in that the classifier sees the points of a meta-batch of tasks, so that all algorithms learn from the same
examples; in the mean of the features, which is that of the last outer steps, moved towards each task's by the outer
optimiser; and in cosine and logistic, which have a closed form here and are fine-tuned there.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.algos.base import need_classes, without_head
from metarun.algos.closed_form import solve_head
from metarun.algos.feedforward import Feedforward, mask_absent
from metarun.errors import SettingError, one_of, positive
from metarun.models.functional import Params
from metarun.tasks import Task, TaskSource, score

WEIGHT, BIAS, MEAN = "class weights", "class biases", "mean feature"  # beside the learner's parameters


@dataclass(eq=False, kw_only=True)
class Baseline(Feedforward):
    """A classifier of the training classes, whose features serve new ones.

    Args:
        classify: how a new task is answered: `centroid`, `cosine` or `logistic`.
        scale: of cosines and of minus squared distances before softmax; above 0.
        penalty: λ of logistic, as in closed_form.py; above 0.
    """

    any_ways = True
    training_weights: ClassVar = (WEIGHT, BIAS)
    acts_with: ClassVar = {"scale": ("classify", ("centroid", "cosine")), "penalty": ("classify", ("logistic",))}

    classify: str = "centroid"
    scale: float = 10.0
    penalty: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        one_of("classify", self.classify, ["centroid", "cosine", "logistic"])
        positive("scale", self.scale)
        positive("penalty", self.penalty)
        self.model, head = without_head(self.model)
        self.ways, self.features, self.train_classes = head.out_features, head.in_features, 0

    def check(self, source: TaskSource, meta_batch: int) -> None:
        """See Algorithm. Learns the number of training classes; a learner that is taken out of its run has none."""
        need_classes(self, source)
        self.train_classes = getattr(source, "train_classes", 0)  # 0 also of data that is only for a test
        if hasattr(source, "sample") and not hasattr(source, "train_classes"):
            why = "Baseline learns to tell all training classes apart, and these tasks have none in common"
            raise SettingError(source.facts()["name"], "data", f"a source of classes, such as data=omniglot: {why}")

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: how new classes are told apart."""
        number = f"penalty {self.penalty:g}" if self.classify == "logistic" else f"scale {self.scale:g}"
        return {"classify": f"{self.classify}, {number}"}

    def init(self) -> Params:
        """{name: tensor}: the learner's own weights, those of an output for each training class, and the mean."""
        learner = super().init()
        like = next(iter(learner.values()), torch.zeros(()))  # of a learner that is only a head nothing is left
        weight = like.new_empty(self.train_classes, self.features)
        if self.train_classes:
            nn.init.uniform_(weight, -1 / math.sqrt(self.features), 1 / math.sqrt(self.features))
        return {**learner, WEIGHT: weight, BIAS: weight.new_zeros(len(weight)), MEAN: weight.new_zeros(self.features)}

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean loss of all the task's points among all training classes, and the query metric, both []."""
        _, y = task.points()
        features = self.embed(meta, task)
        if self.classify == "cosine":
            outputs = self.scale * (F.normalize(features, dim=1) @ F.normalize(meta[WEIGHT], dim=1).T)
        else:
            outputs = features @ meta[WEIGHT].T + meta[BIAS]
        towards = (meta[MEAN] - features.detach().mean(dim=0)).square().sum() / 2
        loss = F.cross_entropy(outputs, task.classes[y]) + towards - towards.detach()
        return loss, score(self.answer(meta, features.detach(), task.support_y), task.query_y)

    def embed(self, meta: Params, task: Task) -> Tensor:
        """[S + Q, F] the features of the task's points."""
        learner = {name: value for name, value in meta.items() if name not in (WEIGHT, BIAS, MEAN)}
        return self.predict_points(learner, task)

    def answers(self, meta: Params, task: Task) -> Tensor:
        """[Q, N] logits; least for a class without support."""
        return self.answer(meta, self.embed(meta, task), task.support_y)

    def answer(self, meta: Params, features: Tensor, labels: Tensor) -> Tensor:
        """[Q, N] logits from the features, [S + Q, F], and the labels of the support set, [S]."""
        members = F.one_hot(labels, self.ways).T.to(features.dtype)  # [N, S]
        if self.classify == "logistic":
            support, query = F.pad(features, (0, 1), value=1.0).tensor_split([len(labels)])
            outputs = query @ solve_head("logistic", support, members, features.new_tensor(self.penalty), 10).T
        else:
            if self.classify == "centroid":
                features = features - meta[MEAN]
            support, query = F.normalize(features, dim=1).tensor_split([len(labels)])
            centroids = members @ support / members.sum(dim=1, keepdim=True).clamp(min=1)
            if self.classify == "cosine":
                outputs = self.scale * (query @ F.normalize(centroids, dim=1).T)
            else:
                outputs = -self.scale * (query[:, None] - centroids).square().sum(dim=-1)
        return mask_absent(outputs, members.sum(dim=1))
