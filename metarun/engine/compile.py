"""The meta-gradient of a chunk as one compiled program.

A recording (engine/recording.py) has its derivatives in it, of whatever order, and nothing of Python, vmap or autograd.
So Inductor can translate all of it at once, and fuse what lies between the products. Convolutions are written as
products (models/convolution.py): one with weights of each task's own would be a call of its own that nothing is fused
with.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metarun.algos.base import Algorithm
from metarun.engine.recording import Function, Work, flatten, form, trace, unflatten
from metarun.errors import MetarunError
from metarun.models.functional import Params
from metarun.models.unit import tracing
from metarun.tasks import Task
from metarun.text import reason

OPTIONS = {
    "cpp_wrapper": True,  # it runs without Python, and so leaves that to the other thread
    "cpp_wrapper_build_separate": True,  # what calls the kernels is long, and gains nothing from the compiler's best
}


class Programs:
    """The compiled meta-gradients of a run, one for each form of a chunk."""

    def __init__(self):
        self.made: dict[Any, Function] = {}
        self.algorithms: dict[int, Algorithm] = {}

    def choose(self, work: Work, algorithm: Algorithm, meta: Params, pieces: list[Task], total: int) -> Work:
        """The same work, which divides by `total`, compiled; called by one thread while no other computes."""
        self.algorithms[id(algorithm)] = algorithm  # so that no other gets its number
        for piece in pieces:
            if (key := (total, form(algorithm, meta, piece))) not in self.made:
                self.made[key] = compile_function(flatten(work, algorithm, meta), [*meta.values(), *piece])
        return lambda algorithm, meta, tasks: unflatten(self.made[total, form(algorithm, meta, tasks)], meta, tasks)


def compile_function(function: Function, inputs: Sequence[Tensor]) -> Function:
    """The function for other inputs of the same shapes, strides and types, as one program.

    Raises:
        MetarunError: there is no compiler that works, or no place for what it makes.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses CUDA where there is none
    with tracing():
        module = trace(function, inputs)
    try:
        program = torch._inductor.compile(module, list(inputs), options=OPTIONS)
        with torch.no_grad():
            program(*inputs)  # what it does once, it does here
    except Exception as error:
        of_torch = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
        if not of_torch and not isinstance(error, OSError):
            raise
        why = reason(error).partition(" Set TORCHDYNAMO_VERBOSE")[0]
        raise MetarunError(
            f"{why} (torch.compile): expected a compiler that works (CXX), and a folder for what it makes "
            f"(TORCHINDUCTOR_CACHE_DIR); mend that, or use engine=vmap"
        ) from error
    return program
