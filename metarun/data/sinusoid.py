"""Sinusoid regression: predict a sine wave from a few of its points.

    y = A sin(x - φ),     A ~ U[0.1, 5],  φ ~ U[0, π],  x ~ U[-5, 5]

Reference: Finn, Abbeel & Levine 2017, section 5.1. They train with 10 shots and as many queries, and test with 5
(experiment=finn2017/sinusoid_5shot).
"""

import math
from typing import Any

import torch
from torch import Tensor

from metarun import seeds
from metarun.errors import boolean
from metarun.tasks import Metric, Split, Task, keys, sizes

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, math.pi)
INPUT = (-5.0, 5.0)


class Sinusoid:
    """Sine waves of random amplitude and phase. The waves of the splits differ, as their random addresses do.

    Args:
        shots: support points, S.
        queries: query points, Q.
        eval_shots: S in validation and test; None: as in training.
        eval_queries: Q in validation and test; None: as in training.
        tell: whether inputs come with the wave's amplitude and phase: (x, A, φ) instead of x.
    """

    outputs = 1
    metric: Metric = "mse"

    def __init__(
        self,
        shots: int = 10,
        queries: int = 10,
        eval_shots: int | None = None,
        eval_queries: int | None = None,
        tell: bool = False,
    ):
        self.sizes = sizes(shots, queries, eval_shots, eval_queries)
        boolean(tell=tell)
        self.tell = tell
        self.input_shape = (3,) if tell else (1,)
        self.device = torch.device("cpu")

    def prepare(self, device: torch.device) -> None:
        """See TaskSource."""
        self.device = device

    def sample(self, seed: int, split: Split, index: Tensor) -> Task:
        """See TaskSource."""
        amplitude, phase, x = self._waves(seed, split, index)
        return self._tasks(amplitude, phase, x, self.sizes.of(split)[0], keys(seed, split, index.to(self.device)))

    def on_grid(self, seed: int, split: Split, index: Tensor, points: int) -> Task:
        """The tasks of these numbers, with `points` queries spread evenly over the inputs, for a picture."""
        amplitude, phase, x = self._waves(seed, split, index)
        shots = self.sizes.of(split)[0]
        grid = torch.linspace(*INPUT, points, dtype=x.dtype, device=x.device).expand(len(x), -1)
        x = torch.cat([x[:, :shots], grid], dim=1)
        return self._tasks(amplitude, phase, x, shots, keys(seed, split, index.to(self.device)))

    def _waves(self, seed: int, split: Split, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[T, 1] amplitude and phase, and [T, S + Q] inputs, float64."""
        draws = seeds.uniform((seed, split, "sinusoid"), index.to(self.device), 2 + sum(self.sizes.of(split)))
        amplitude, phase, x = draws[:, :1], draws[:, 1:2], draws[:, 2:]
        amplitude = AMPLITUDE[0] + (AMPLITUDE[1] - AMPLITUDE[0]) * amplitude
        phase = PHASE[0] + (PHASE[1] - PHASE[0]) * phase
        return amplitude, phase, INPUT[0] + (INPUT[1] - INPUT[0]) * x

    def _tasks(self, amplitude: Tensor, phase: Tensor, x: Tensor, shots: int, key: Tensor) -> Task:
        """The tasks of these waves; the first `shots` points are the support set, the others the query set."""
        # Computed in float64 and then rounded: the last bits of a sine depend on the device, those of float32 do not.
        y = (amplitude * torch.sin(x - phase)).float()[..., None]
        x = x.float()[..., None]
        if self.tell:
            x = torch.cat([x, torch.cat([amplitude, phase], dim=1).float()[:, None].expand(-1, x.shape[1], -1)], dim=-1)
        return Task(x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:], key)

    def identity(self) -> dict[str, str]:
        """See TaskSource."""
        return {"split_hash": "none: tasks are generated"}

    def facts(self) -> dict[str, Any]:
        """See TaskSource."""
        more = {"inputs": "with amplitude and phase"} if self.tell else {}
        return {"name": "sinusoid", **self.sizes.facts(), "more": more}
