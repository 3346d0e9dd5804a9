"""Matching networks against the formula, point by point."""

import math

import torch

from metarun.algos.matching import Matching
from metarun.models import MLP
from metarun.tasks import Task


def test_a_class_has_the_attention_of_its_support_points():
    draw = torch.Generator().manual_seed(0)
    support, query = (torch.randn(n, 4, generator=draw, dtype=torch.float64) for n in (5, 3))
    labels = torch.tensor([0, 2, 2, 0, 1])
    algorithm = Matching(MLP((4,), 4, hidden=[]).double(), sharpness=7.0)
    found = algorithm.answers(algorithm.init(), Task(support, labels, query, torch.zeros(3), torch.tensor(0)))
    for q in range(3):
        likeness = [math.exp(7 * float(torch.cosine_similarity(query[q], s, dim=0))) for s in support]
        for n in range(3):
            share = sum(a for a, y in zip(likeness, labels, strict=True) if y == n) / sum(likeness)
            assert abs(float(found[q, n]) - math.log(share)) < 1e-6
    assert found.isfinite().all()
    assert (found[:, 3] < -1e30).all(), "a class without support"
