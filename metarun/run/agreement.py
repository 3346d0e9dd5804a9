"""Whether the tasks of a meta-batch computed at once give what each gives alone: vmap against loop, on a few tasks."""

import torch
from torch import Tensor

from metarun.algos.base import Algorithm
from metarun.config.own_code import place_of
from metarun.engine.engine import Engine
from metarun.errors import MetarunError, UsageError
from metarun.models.functional import Params
from metarun.tasks import Task
from metarun.text import reason

# Relative differences between vmap and loop, which are to notice a gradient that is wrong by 3e-3. The largest of all
# algorithms, sources and published experiments of conf/ is 9e-14 in float64 and 2e-4 in float32.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}
ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-6}


def check_agreement(subject: str, algorithm: Algorithm, meta: Params, tasks: Task) -> str:
    """How far vmap and loop agree, in words. Raises UsageError: they do not, or vmap cannot map the algorithm."""
    for dtype in (torch.float64, torch.float32):
        some, points = {name: value.to(dtype) for name, value in meta.items()}, tasks.to(dtype)
        try:
            alone = _compute(Engine("loop"), algorithm, some, points)
        except Exception:
            if dtype == torch.float32:
                raise
            continue
        if any(part.dtype != dtype for part in (*alone[0].values(), alone[2])):
            continue  # something in it is float32 for good
        try:
            mapped = _compute(Engine("vmap"), algorithm, some, points)
        except MetarunError:
            raise
        except Exception as error:
            place = f" ({place})" if (place := place_of(error)) else ""
            remedy = "a function that torch.func.vmap can map: no item(), no `if` on a tensor; or take engine=loop"
            raise UsageError(
                f"{subject}: cannot be mapped over tasks: {reason(error)}{place}: expected {remedy}"
            ) from error
        differences = _differences(mapped, alone)
        if max(differences.values()) > TOLERANCE[dtype]:
            # At a kink, or where the inner loop diverges, a rounding makes as much of a difference.
            generator = torch.Generator().manual_seed(0)
            signs = {n: torch.randint(2, v.shape, generator=generator).to(v) * 2 - 1 for n, v in some.items()}
            nearby = {name: value * (1 + ROUNDING[dtype] * signs[name]) for name, value in some.items()}
            of_rounding = _differences(_compute(Engine("loop"), algorithm, nearby, points), alone)
            for name, difference in differences.items():
                if difference > TOLERANCE[dtype] and difference > 10 * of_rounding[name]:
                    rule = "the same of tasks together (vmap) and alone; mend what mixes tasks, or take engine=loop"
                    raise UsageError(f"{subject}: {name} of vmap and loop differs by {difference:.1e}: expected {rule}")
        return f"vmap and loop agree to {max(differences.values()):.0e} ({str(dtype).removeprefix('torch.')})"
    raise AssertionError("float32 returns or raises")


def _compute(engine: Engine, algorithm: Algorithm, meta: Params, tasks: Task) -> tuple[Params, Tensor, Tensor]:
    """The meta-gradient, the meta-losses and the predictions of some tasks."""
    gradient = engine.meta_gradient(algorithm, meta, tasks)
    with torch.no_grad():
        predicted = engine.map_tasks(algorithm.predictions, meta, tasks)
    return gradient.grads, gradient.losses, predicted


def _differences(a: tuple[Params, Tensor, Tensor], b: tuple[Params, Tensor, Tensor]) -> dict[str, float]:
    """Relative differences by name; 0 where numbers are not finite, which the run will say."""
    whole = float(torch.stack([grad.double().norm() for grad in b[0].values()]).norm())
    pairs = {f"the meta-gradient ({name})": (a[0][name], grad, 1e-3 * whole) for name, grad in b[0].items()}
    pairs |= {"the meta-loss": (a[1], b[1], 1e-3), "predictions()": (a[2], b[2], 1e-3)}
    found = {}
    for name, (x, y, least) in pairs.items():
        difference = float((x.double() - y.double()).norm() / (y.double().norm() + least + 1e-30))
        found[name] = difference if difference < float("inf") else 0.0
    return found
