"""Sinusoid regression: from a few points of a sine wave, draw the rest of it.

    y = A sin(x - φ),     A ~ U[0.1, 5],  φ ~ U[0, π],  x ~ U[-5, 5]

Reference: Finn, Abbeel & Levine 2017, section 5.1. They train with 10 shots and as many queries, and test with 5.
"""

import math

import torch
from torch import Tensor

from metarun import seeds
from metarun.errors import at_least
from metarun.tasks import Metric, Split, Task

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, math.pi)
INPUT = (-5.0, 5.0)


class Sinusoid:
    """Sine waves of random amplitude and phase. The splits are different waves, since each has its own address.

    Args:
        shots: support points, S.
        queries: query points, Q.
    """

    input_shape = (1,)
    outputs = 1
    metric: Metric = "mse"

    def __init__(self, shots: int = 10, queries: int = 10):
        at_least(1, shots=shots, queries=queries)
        self.shots, self.queries = shots, queries
        self.device = torch.device("cpu")

    def prepare(self, device: torch.device) -> None:
        """See TaskSource."""
        self.device = device

    def sample(self, seed: int, split: Split, index: Tensor) -> Task:
        """See TaskSource."""
        draws = seeds.uniform((seed, split, "sinusoid"), index.to(self.device), 2 + self.shots + self.queries)
        amplitude, phase, x = draws[:, :1], draws[:, 1:2], draws[:, 2:]
        amplitude = AMPLITUDE[0] + (AMPLITUDE[1] - AMPLITUDE[0]) * amplitude
        phase = PHASE[0] + (PHASE[1] - PHASE[0]) * phase
        x = INPUT[0] + (INPUT[1] - INPUT[0]) * x
        # In float64 until here: the last bits of a sine depend on the device, those of its rounding do not.
        y = (amplitude * torch.sin(x - phase)).float()[..., None]
        x = x.float()[..., None]
        return Task(x[:, : self.shots], y[:, : self.shots], x[:, self.shots :], y[:, self.shots :])

    def identity(self) -> dict[str, str]:
        """See TaskSource."""
        return {"split_hash": "none: tasks are generated"}

    def describe(self) -> str:
        """See TaskSource."""
        return f"sinusoid {self.shots}-shot regression (queries: {self.queries})"
