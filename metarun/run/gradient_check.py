"""A meta-gradient on a tiny task, computed in three ways that share as little as possible; for metarun doctor."""

import torch
from torch import Tensor

from metarun import seeds
from metarun.algos.maml import MAML
from metarun.data.sinusoid import Sinusoid
from metarun.engine.engine import Engine
from metarun.models import MLP

STEP = 1e-6  # of the central differences
MOST = 1e-10, 1e-5  # by how much vmap and the central differences may differ from the loop, relative to the largest


def compare_gradients() -> str:
    """By how much MAML's meta-gradients of two inner steps differ, in float64: vmap, the loop, central differences.

    On the CPU, and on the first GPU if there is one. Raises ArithmeticError: by more than rounding.
    """
    return "; ".join(_compare(device) for device in ("cpu", *(("cuda",) if torch.cuda.is_available() else ())))


def _compare(device: str) -> str:
    with seeds.forked("doctor"):
        model = MLP((1,), 1, hidden=[8]).double().to(device)
    algorithm = MAML(model, inner_lr=0.05, inner_steps=2)
    source = Sinusoid(shots=5, queries=5)
    source.prepare(torch.device(device))
    tasks, meta = source.sample(0, "train", torch.arange(3)).to(torch.float64), algorithm.init()

    def mean_loss(moved: dict[str, Tensor]) -> float:
        return Engine("vmap").meta_gradient(algorithm, moved, tasks).losses.mean().item()

    loop = Engine("loop").meta_gradient(algorithm, meta, tasks).grads
    vmap = Engine("vmap").meta_gradient(algorithm, meta, tasks).grads
    apart = [(loop[name] - vmap[name]).abs().max().item() for name in meta]
    off = []
    for name, value in meta.items():
        for place in range(value.numel()):
            step = torch.zeros_like(value)
            step.view(-1)[place] = STEP
            rise = mean_loss(meta | {name: value + step}) - mean_loss(meta | {name: value - step})
            off.append(abs(rise / (2 * STEP) - loop[name].view(-1)[place].item()))
    largest = max(grad.abs().max().item() for grad in loop.values())
    differences = max(apart) / largest, max(off) / largest
    says = f"{device}: vmap and loop differ by {differences[0]:.0e}, central differences by {differences[1]:.0e}"
    if not all(difference < most for difference, most in zip(differences, MOST, strict=True)):
        raise ArithmeticError(f"{says}; expected {MOST[0]:.0e} and {MOST[1]:.0e} at most")
    return says
