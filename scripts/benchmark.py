"""How long an outer step takes, against other libraries and a loop written by hand.

    python scripts/benchmark.py [--quick] [--only WORDS] [--json FILE]

Every ratio is of two sides that take turns in the same process, so that a noisy machine disturbs both alike: the median
over rounds of one side's time by the other's, with the smallest and the largest. Both sides compute the meta-gradient
of the same tasks with the same learner; the outer optimiser is left out. `higher` and `torchopt` are in the extra
`test`. The loop is written by hand with torch.func.functional_call and torch.autograd.grad, task by task, with nothing
around it. The limit is what the products of the loop would take at the speed of one large product. Peers have glibc's
own way with memory, which metarun changes (engine.device.keep_memory). Compiling is left out of the times, and its own
time printed.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as cli.py does

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from metarun.config.compose import compose
from metarun.engine import loop as training
from metarun.engine.chunking import peak_bytes
from metarun.engine.device import keep_memory
from metarun.engine.engine import Engine
from metarun.engine.replay import TRIALS, WARM
from metarun.run.build import build_experiment, choose_chunks
from metarun.tasks import Task

Step = Callable[[], Any]
WORK = {  # name: (words, goal against higher, goal against the loop)
    "MAML conv4 5-way 1-shot, 1 step": (["data=omniglot"], 5.0, 4.0),
    "MAML conv4 5-way 1-shot, 5 steps": (["data=omniglot", "algo.inner_steps=5"], 5.0, 2.5),
    "MAML conv4 20-way 1-shot, 5 steps, 16 tasks": (
        ["data=omniglot", "data.ways=20", "algo.inner_steps=5", "meta_batch=16"], 2.5, None,
    ),
    "FOMAML conv4 5-way 1-shot, 1 step": (["data=omniglot", "algo=fomaml"], 4.0, 2.5),
    "MAML sinusoid, 25 tasks": (["data=sinusoid"], 20.0, None),
}  # fmt: skip

LIMIT, GOAL_LIMIT = "limit", 0.55  # convolutions' share
SIDE = 2048  # of the product whose speed is the limit


class Bench:
    """A config's learner, tasks and inner loop, to be computed in several ways."""

    def __init__(self, words: list[str]):
        config = compose(words)
        self.experiment = build_experiment(config)
        self.experiment.source.prepare(self.experiment.device)
        self.state = training.start(self.experiment)
        self.tasks: Task = self.experiment.source.sample(0, "train", torch.arange(config.meta_batch))
        algorithm: Any = self.experiment.algorithm
        self.lr, self.steps, self.first_order = algorithm.inner_lr, algorithm.inner_steps, algorithm.first_order
        self.model = algorithm.model
        self.chunks = choose_chunks(config, self.experiment, self.state)

    def run_metarun(self, engine: Engine | None = None) -> None:
        """An engine's way, by default engine=vmap."""
        engine = engine or self.experiment.engine
        engine.meta_gradient(self.experiment.algorithm, self.state.meta, self.tasks, self.chunks)

    def compiled(self) -> Step:
        """The way of engine=compile; compiles."""
        engine = Engine("compile")
        return lambda: self.run_metarun(engine)

    def single_tasks(self):
        """The tasks one by one."""
        return (self.tasks.select(t) for t in range(len(self.tasks.support_x)))

    def run_loop(self, tasks: int | None = None) -> None:
        """By hand; all tasks, or so many."""
        parameters = {name: value.detach().requires_grad_() for name, value in self.model.named_parameters()}
        for task in islice(self.single_tasks(), tasks):
            learner = parameters
            for _ in range(self.steps):
                value = loss(functional_call(self.model, learner, (task.support_x,)), task.support_y)
                grads = torch.autograd.grad(
                    value, list(learner.values()), create_graph=not self.first_order, allow_unused=True
                )
                learner = {n: p - self.lr * g for (n, p), g in zip(learner.items(), grads, strict=True)}
            loss(functional_call(self.model, learner, (task.query_x,)), task.query_y).backward()

    def count_products(self) -> float:
        """Floating-point operations of the products in the loop."""
        with FlopCounterMode(display=False) as count:
            self.run_loop()
        return float(count.get_total_flops())

    def run_higher(self) -> None:
        """With higher; first order as its users have it, by not tracking the inner gradients."""
        import higher

        self.model.zero_grad()
        inner = torch.optim.SGD(self.model.parameters(), lr=self.lr)
        for task in self.single_tasks():
            with higher.innerloop_ctx(
                self.model, inner, copy_initial_weights=False, track_higher_grads=not self.first_order
            ) as (net, optimizer):
                for _ in range(self.steps):
                    optimizer.step(loss(net(task.support_x), task.support_y))
                value = loss(net(task.query_x), task.query_y)
                if self.first_order:
                    torch.autograd.grad(value, list(net.parameters(time=-1)))
                else:
                    value.backward()

    def run_torchopt(self) -> None:
        """With torchopt; second order only."""
        import torchopt

        inner = torchopt.MetaSGD(self.model, lr=self.lr)
        start = torchopt.extract_state_dict(self.model, by="reference")
        start_inner = torchopt.extract_state_dict(inner, by="reference")
        for task in self.single_tasks():
            for _ in range(self.steps):
                inner.step(loss(self.model(task.support_x), task.support_y))
            loss(self.model(task.query_x), task.query_y).backward()
            torchopt.recover_state_dict(self.model, start)
            torchopt.recover_state_dict(inner, start_inner)


def loss(outputs: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy or mean squared error."""
    return F.mse_loss(outputs, y) if y.is_floating_point() else F.cross_entropy(outputs, y)


def measure(work: Step) -> float:
    """Seconds of one call, with the GPU's queue emptied before and after."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def take_turns(sides: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round, the second of two calls: the first one finds the machine as another left it.

    metarun's own sides are named metarun, or by their engine.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, work in sides.items():
            keep_memory(name in ("metarun", "vmap", "compile"))
            work()
            took = measure(work)
            if number:
                times[name].append(took)
    keep_memory()
    return times


def ratio(a: list[float], b: list[float]) -> dict[str, float]:
    """How much longer a takes than b: median, smallest and largest over rounds."""
    each = [x / y for x, y in zip(a, b, strict=True)]
    return {"median": statistics.median(each), "low": min(each), "high": max(each)}


def compare_with_peers(rounds: int, quick: bool, only: str) -> list[dict[str, Any]]:
    """A row for each work whose name has the words, engine and peer."""
    rows = []
    square = torch.randn(SIDE, SIDE)
    for name, (words, goal_higher, goal_loop) in WORK.items():
        if only not in name:
            continue
        bench = Bench(words)
        if quick:
            bench.tasks = bench.tasks.select(slice(0, 2))
        sides = {"vmap": bench.run_metarun, "higher": bench.run_higher, "loop": bench.run_loop}
        if not bench.first_order:
            sides["torchopt"] = bench.run_torchopt
        if convolutions := "conv" in name:
            sides["product"] = lambda: square @ square
            products = bench.count_products() / (2 * SIDE**3)
        if not quick:
            sides["compile"] = bench.compiled()
            compiling = measure(sides["compile"])
        for _ in range(WARM + TRIALS + 2):
            bench.run_metarun()  # by then a run has decided whether to replay
        times = take_turns(sides, rounds)
        if convolutions:
            times[LIMIT] = [products * seconds for seconds in times["product"]]
        for engine in ("vmap", "compile")[: 1 if quick else 2]:
            mine = 1000 * statistics.median(times[engine])
            took = f", compiled in {compiling:.0f} s" if engine == "compile" else ""
            show(f"{name}, engine={engine}: {mine:.1f} ms{took}")
            for peer, goal in (
                ("higher", goal_higher), ("loop", goal_loop), ("torchopt", None), (LIMIT, GOAL_LIMIT),
            ):  # fmt: skip
                if peer in times:
                    found = ratio(times[peer], times[engine])
                    row = {"work": name, "engine": engine, "against": peer, "goal": goal, "metarun_ms": mine, **found}
                    rows.append({**row, "compiling_s": compiling if took else None})
                    spread = f"{found['median']:5.2f} times ({found['low']:.2f} to {found['high']:.2f})"
                    show(f"    {peer:<10}{spread}" + (f"  goal {goal:g}" if goal else ""))
    return rows


def measure_memory() -> list[dict[str, Any]]:
    """Peak of new tensors: of a chunk of tasks, and of the loop times the tasks in that chunk."""
    rows = []
    for steps in (5, 10):
        bench = Bench(["data=omniglot", f"algo.inner_steps={steps}"])
        chunk = bench.chunks.train
        bench.tasks = bench.tasks.select(slice(0, chunk))
        chunked, one = peak_bytes(bench.run_metarun), peak_bytes(lambda b=bench: b.run_loop(1))
        mib, share = chunked / 2**20, chunked / one / chunk
        rows.append({"inner_steps": steps, "chunk": chunk, "mib": mib, "of_the_loop": share})
        show(f"memory, {steps} inner steps: {mib:.0f} MiB for {chunk} tasks, a task {share:.2f} times that of the loop")
    return rows


def measure_start(rounds: int) -> dict[str, Any]:
    """Seconds of `metarun --help`, and of an empty Hydra application's."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "app.py")
        empty.write_text("import hydra\n@hydra.main(version_base='1.3', config_path=None)\ndef app(c): pass\napp()\n")
        sides = {
            "metarun": lambda: subprocess.run([sys.executable, "-m", "metarun", "--help"], stdout=subprocess.DEVNULL),
            "hydra": lambda: subprocess.run([sys.executable, empty, "--help"], stdout=subprocess.DEVNULL),
        }
        times = take_turns(sides, rounds)
    found = {name: statistics.median(values) for name, values in times.items()}
    show(f"metarun --help: {found['metarun']:.2f} s (an empty Hydra application: {found['hydra']:.2f} s), goal 0.6 s")
    return found


def show(line: str) -> None:
    """Prints at once: a benchmark takes minutes."""
    print(line, flush=True)


def describe_machine() -> dict[str, Any]:
    """Where the numbers come from."""
    info = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    model = re.search("model name\\s*: (.*)", info)
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "system": platform.platform(),
    }


def main() -> None:
    """Prints the tables, and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of two tasks without compiling, to see it run")
    parser.add_argument("--only", default="", metavar="WORDS", help="work with this in its name, such as sinusoid")
    parser.add_argument("--json", type=Path, help="where to write the results")
    args = parser.parse_args()
    rounds = 1 if args.quick else 9
    found: dict[str, Any] = {"machine": describe_machine()}
    show(", ".join(f"{name} {value}" for name, value in found["machine"].items()))
    found["peers"] = compare_with_peers(rounds, args.quick, args.only)
    found["memory"] = measure_memory()
    found["start"] = measure_start(rounds)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
