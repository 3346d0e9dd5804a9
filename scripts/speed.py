"""How long an outer step takes, task by task and all at once, and what share of it goes into making the tasks.

    python scripts/speed.py [data=omniglot ...]

Times are medians of rounds that alternate between the engines, so that a noisy machine disturbs both alike: look at the
ratios.
"""

import statistics
import sys
import time

import torch

from metarun import loop
from metarun.compose import compose
from metarun.engine import Engine
from metarun.experiment import assemble

ROUNDS = 7


def seconds(work) -> float:
    """One call, with the GPU's queue emptied before and after."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main(words: list[str]) -> None:
    """Prints a line for each engine, and one for the sampler."""
    config = compose(words)
    experiment = assemble(config)
    experiment.source.prepare(experiment.device)
    state = loop.start(experiment)
    index = torch.arange(config.meta_batch)

    def sample():
        return experiment.source.sample(config.seed, "train", index)

    tasks = sample()
    engines = {mode: Engine(mode) for mode in ("loop", "vmap")}
    work = {m: lambda e=e: e.meta_gradient(experiment.algorithm, state.meta, tasks) for m, e in engines.items()}
    work["sampling"] = sample
    for one in work.values():
        one()
    times = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, one in work.items():
            times[name].append(seconds(one))
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, value in median.items():
        print(f"{name:<9}{1000 * value:9.2f} ms")
    print(f"vmap is {median['loop'] / median['vmap']:.1f} times as fast as loop")
    print(f"sampling is {100 * median['sampling'] / (median['vmap'] + median['sampling']):.1f} % of an outer step")


if __name__ == "__main__":
    main(sys.argv[1:])
