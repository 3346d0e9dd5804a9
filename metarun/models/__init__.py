"""Learners: the networks that solve a task, as plain torch modules."""

from metarun.models.conv4 import Conv4
from metarun.models.lstm import LSTM
from metarun.models.mlp import MLP
from metarun.models.resnet12 import ResNet12

__all__ = ["LSTM", "MLP", "Conv4", "ResNet12"]
