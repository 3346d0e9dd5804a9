"""Meta-training in float64, on as many ranks as torchrun starts; run as a script it saves the result of each rank."""

import os
import sys

import torch

from metarun import seeds
from metarun.algos.maml import MAML
from metarun.data.sinusoid import Sinusoid
from metarun.engine import loop
from metarun.engine.engine import Engine
from metarun.engine.processes import Processes, joined
from metarun.models import MLP


class Double:
    """A source in float64."""

    def __init__(self, source):
        self.source = source

    def __getattr__(self, name):
        return getattr(self.source, name)

    def sample(self, *address):
        return self.source.sample(*address).to(torch.float64)


def train_and_test():
    """Meta-parameters, losses, scores and adaptation curve in one vector: 11 tasks a step, so in shares that differ."""
    with seeds.forked(0, "init"):
        model = MLP((1,), 1, hidden=[16, 16]).double()
    source = Double(Sinusoid(shots=5, queries=5))
    source.prepare(torch.device("cpu"))
    engine = Engine(chunk=3, eval_chunk=4)
    experiment = loop.Experiment(MAML(model, inner_lr=0.05, inner_steps=2), source, engine, torch.device("cpu"), 3)
    state = loop.start(experiment)
    reports = [(float(r.loss), float(r.score)) for r in loop.meta_train(experiment, state, 5, 11)]
    curve = loop.meta_test(experiment, state.meta, "test", 13, batch=5)
    meta = torch.cat([value.detach().flatten() for value in state.meta.values()])
    return torch.cat([meta, *map(torch.tensor, (*reports, curve.mean, curve.ci95))])


if __name__ == "__main__":
    with joined(torch.device("cpu")):
        torch.save(train_and_test(), f"{sys.argv[1]}-{Processes().rank}.pt")
    os._exit(0)  # torch's threads have now and then aborted a script at the interpreter's end; this is about numbers
