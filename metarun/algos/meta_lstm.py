"""Meta-LSTM: an LSTM that reads losses and gradients updates the learner's weights, which are its cell state.

    c_t = σ(f_t) ∘ c_{t-1} - σ(i_t) ∘ g_t,     g_t = ∇ L_minibatch(c_{t-1})
    f_t = w_f · [h_t, c_{t-1}, f_{t-1}] + b_f,   i_t = w_i · [h_t, c_{t-1}, i_{t-1}] + b_i,   h_t = LSTM(p(L), p(g_t))

One set of weights serves all P coordinates of the learner, whose states differ. c_0, the initialisation, is
meta-learned with them. p makes two numbers of one: (log|x| / 10, sign x) if |x| > e^-10, else (-1, e^10 x).

Reference: Ravi & Larochelle 2017, "Optimization as a model for few-shot learning". The graph of the meta-gradient
runs through c, h, f and i, and through the final loss; gradients, losses and the weights they are taken at are
constants, unless `second_order`. As in the authors' code, the gates fed back are the values before the sigmoid, from
0; in training the query set is normalised by its own statistics, and in validation and test, with model.norm=support,
by the support set's. All parameters of the learner are coordinates, batch norm's too.

We differ: the authors' code divides a minibatch's mean gradient by its size once more, which is a setting here
(`divide_gradient`), and the support statistics of batch norm are those under the adapted weights, not running ones.
Their schedule is 12 steps of 5 points (5 shots: 8 of 25), one task an outer step, 15 queries of a class, and
meta_clip=0.25; our choice of steps and tasks is in the YAML file.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from metarun.algos.base import Algorithm
from metarun.algos.inner import nan_if_loss_is_not_finite, with_prefix, without_prefix
from metarun.errors import at_least, boolean, one_of
from metarun.models.functional import Params, weights_of
from metarun.models.lstm import LSTMCell, State
from metarun.models.unit import unit
from metarun.tasks import Task, TaskSource, example_losses, minibatches, score

P = 10.0  # of the preprocessing


@dataclass(eq=False, kw_only=True)
class MetaLSTM(Algorithm):
    """Ravi and Larochelle's Meta-LSTM.

    Its meta-parameters are `learner.*`, c_0; `lstm.*`, the first LSTM; and of the second cell `forget.weight`
    [hidden + 2], `forget.bias` [], and the same for `input`.

    Args:
        inner_steps: in training; at least 1.
        eval_inner_steps: in validation and test; at least 0. None: as in training.
        inner_batch: support points of a minibatch; None, or more than there are: all.
        hidden: size of h.
        feedback: the form in which the second cell gets its gates back: `logits`, before the sigmoid, as in the
            authors' code; or `gates`, after it, as the paper writes it. Both start at 0.
        divide_gradient: whether to divide each gradient by the size of its minibatch once more.
        second_order: let the meta-gradient also run through the gradients and losses.
    """

    training_only: ClassVar = (*Algorithm.training_only, "inner_steps", "second_order")

    inner_steps: int = 5
    eval_inner_steps: int | None = None
    inner_batch: int | None = None
    hidden: int = 20
    feedback: str = "logits"
    divide_gradient: bool = False
    second_order: bool = False

    def __post_init__(self):
        super().__post_init__()
        at_least(1, inner_steps=self.inner_steps, hidden=self.hidden)
        at_least(0, eval_inner_steps=self.test_steps)
        if self.inner_batch is not None:
            at_least(1, inner_batch=self.inner_batch)
        one_of("feedback", self.feedback, ["logits", "gates"])
        boolean(divide_gradient=self.divide_gradient, second_order=self.second_order)
        self.lstm = LSTMCell(4, self.hidden)
        like = next(iter(weights_of(self.model).values()))
        forget, input_ = (torch.empty(self.hidden + 2) for _ in range(2))
        for weight in (*self.lstm.parameters(), forget, input_):
            nn.init.uniform_(weight, -0.01, 0.01)
        biases = nn.init.uniform_(torch.empty(2))  # gradient descent at a rate of about 0.011, to begin with
        cell = {
            "forget.weight": forget,
            "forget.bias": 4 + biases[0],
            "input.weight": input_,
            "input.bias": biases[1] - 5,
        }
        self.optimizer_weights = {
            name: value.detach().to(like)
            for name, value in {**with_prefix("lstm", dict(self.lstm.named_parameters())), **cell}.items()
        }

    @property
    def test_steps(self) -> int:
        """K in validation and test."""
        return self.inner_steps if self.eval_inner_steps is None else self.eval_inner_steps

    @property
    def name(self) -> str:
        """See Algorithm."""
        return "Meta-LSTM"

    def init(self) -> Params:
        """{name: tensor}: the learner's own weights, and those of the two cells."""
        return {**with_prefix("learner", super().init()), **{k: v.clone() for k, v in self.optimizer_weights.items()}}

    def adapt(self, meta: Params, task: Task, steps: int) -> Iterator[Params]:
        """Yields the learner's parameters after 0, 1, ..., `steps` inner steps on the support set."""
        start = without_prefix("learner", meta)
        c = torch.cat([value.flatten() for value in start.values()])  # [P]
        state = self.lstm.start(len(c), c)
        f, i = torch.zeros_like(c), torch.zeros_like(c)
        yield start
        for places in minibatches(task.key, len(task.support_x), self.inner_batch, steps):
            x, y = (t if places is None else t[places] for t in (task.support_x, task.support_y))
            c, state, f, i = unit(self.step, meta, x, y, c, state, f, i)
            yield _unflatten(c, start)

    def step(
        self, meta: Params, x: Tensor, y: Tensor, c: Tensor, state: State, f: Tensor, i: Tensor
    ) -> tuple[Tensor, State, Tensor, Tensor]:
        """The coordinates c, the LSTM's state, and the gates that are fed back, after one inner step. A unit."""
        g, loss = self._gradient(c, without_prefix("learner", meta), x, y)
        seen = torch.cat([preprocess(loss)[:, None].expand(2, len(c)), preprocess(g)])  # [4, P]
        state = functional_call(self.lstm, without_prefix("lstm", meta), (seen, state))
        f = _gate_logits(meta, "forget", state[0], c, f)
        i = _gate_logits(meta, "input", state[0], c, i)
        c = torch.sigmoid(f) * c - torch.sigmoid(i) * g
        return c, state, *((torch.sigmoid(f), torch.sigmoid(i)) if self.feedback == "gates" else (f, i))

    def inner_loop(self, meta: Params, task: Task) -> Iterator[Params]:
        """See Algorithm."""
        return self.adapt(meta, task, self.inner_steps)

    def _gradient(self, c: Tensor, like: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """[P] gradient and [] loss of a minibatch, at the coordinates c."""

        def loss(c: Tensor) -> Tensor:
            return example_losses(self.predict(_unflatten(c, like), x), y).mean()

        with torch.set_grad_enabled(torch.is_grad_enabled() and self.second_order):
            g, value = grad_and_value(loss)(c)
        g = nan_if_loss_is_not_finite({"c": g}, value)["c"]
        return g / len(x) if self.divide_gradient else g, value

    def meta_loss(self, meta: Params, task: Task) -> tuple[Tensor, Tensor]:
        """The mean query loss and metric after the inner steps, both [], with the query's own norm statistics."""
        *_, params = self.adapt(meta, task, self.inner_steps)
        return unit(self._judge, params, task.query_x, task.query_y)

    def _judge(self, params: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss and the metric of these points, both []. A unit."""
        outputs = self.predict(params, x)
        return example_losses(outputs, y).mean(), score(outputs, y)

    def predictions(self, meta: Params, task: Task) -> Tensor:
        """[K+1, Q, N] outputs on the query set after each inner step."""
        learners = self.adapt(meta, task, self.test_steps)
        return torch.stack([self.predict(params, task.query_x, task.support_x) for params in learners])

    def inner(self, source: TaskSource) -> dict[str, Any]:
        """See Algorithm."""
        return {"rule": "LSTM", "steps": self.inner_steps, "eval_steps": self.test_steps}

    def details(self, source: TaskSource) -> dict[str, str]:
        """See Algorithm: the gates that are fed back, the minibatches, and the order of the meta-gradient."""
        division = "divided by the size of the minibatch once more"
        return {
            "feedback": self.feedback,
            **({} if self.inner_batch is None else {"minibatch": f"at most {self.inner_batch}"}),
            **({"inner_gradient": division} if self.divide_gradient else {}),
            "meta_gradient": "second order" if self.second_order else "first order",
        }


def preprocess(x: Tensor) -> Tensor:
    """[2, ...] the size and the sign of the numbers x, on scales that a network can read: p of the paper."""
    size = x.abs()
    large = size > math.exp(-P)
    logarithm = torch.where(large, size, 1.0).log() / P  # of 1 where it is not used: log 0 has an infinite slope
    return torch.stack([torch.where(large, logarithm, -1.0), torch.where(large, x.sign(), math.exp(P) * x)])


def _gate_logits(meta: Params, name: str, h: Tensor, c: Tensor, before: Tensor) -> Tensor:
    """[P] w · [h, c, before] + b of the named gate, for each coordinate."""
    weight = meta[f"{name}.weight"]
    return weight[:-2] @ h + weight[-2] * c + weight[-1] * before + meta[f"{name}.bias"]


def _unflatten(c: Tensor, like: Params) -> Params:
    """{name: tensor}: the coordinates as the learner's parameters, shaped like `like`."""
    pieces = c.split([value.numel() for value in like.values()])
    return {name: piece.view(value.shape) for (name, value), piece in zip(like.items(), pieces, strict=True)}
