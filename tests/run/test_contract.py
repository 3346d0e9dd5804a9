"""Each way in which a part of the user's can break its contract is refused in a line that names the class."""

import logging
import random
import re
import threading
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metarun import seeds
from metarun.algos.maml import MAML
from metarun.algos.protonet import ProtoNet
from metarun.config.compose import compose
from metarun.config.folders import OWN
from metarun.data.sinusoid import Sinusoid
from metarun.data.tabular import Tabular
from metarun.engine.engine import Engine
from metarun.engine.loop import Experiment
from metarun.errors import UsageError
from metarun.models import MLP
from metarun.models.adopt import adopt
from metarun.run import contract
from metarun.run.build import prepare_experiment
from metarun.run.contract import check_contract
from metarun.tasks import Task, example_losses

CPU = torch.device("cpu")


def _check(source=None, net=None, algo=MAML, mode="vmap"):
    source = source or Sinusoid()
    source.prepare(CPU)
    with seeds.forked("test", "contract"):
        net = net or MLP(source.input_shape, source.outputs or 1, hidden=[8])
        learner = net if isinstance(net, MLP) else adopt(net, source.input_shape)
        algorithm = algo(model=learner)
    return check_contract(Experiment(algorithm, source, Engine(mode), CPU, 0, learner=learner))


class IgnoresSplit(Sinusoid):
    def sample(self, seed, split, index):
        return super().sample(seed, "train", index)


class IgnoresIndex(Sinusoid):
    def sample(self, seed, split, index):
        task = super().sample(seed, split, torch.zeros_like(index))
        return task._replace(key=super().sample(seed, split, index).key)


class Changed(Sinusoid):
    """A sinusoid of which a function changes the tasks."""

    change = staticmethod(lambda task: task)

    def sample(self, seed, split, index):
        return self.change(super().sample(seed, split, index))


class ChangedClasses(Tabular):
    change = staticmethod(lambda task: task)

    def sample(self, seed, split, index):
        return self.change(super().sample(seed, split, index))


def _changed(base, change, **attributes):
    source = base(**({"shots": 3, "queries": 4} if base is ChangedClasses else {}))
    source.change = change
    for name, value in attributes.items():
        setattr(source, name, value)
    return source


def _depends_on_the_others(task):
    return task._replace(support_x=task.support_x - task.support_x.mean())


def _numpy_draws(task):
    return task._replace(query_x=task.query_x + 0 * np.random.rand())


def _clustered(find, name="tables"):
    return _changed(Changed, lambda t: t, clusters=lambda seed, split, index: find(index), clustered_by=name)


SOURCES = {
    "ignores split": (lambda: IgnoresSplit(), "the same tasks for train and val"),
    "ignores the number": (lambda: IgnoresIndex(), "are all the same"),
    "torch's generator": (
        lambda: _changed(Changed, lambda t: t._replace(support_x=torch.rand_like(t.support_x))), "sampled twice, differs",
    ),
    "seeds torch": (
        lambda: _changed(Changed, lambda t: (torch.manual_seed(0), t)[1]), "global generator of torch",
    ),
    "numpy's generator": (lambda: _changed(Changed, _numpy_draws), "global generator of numpy"),
    "Python's generator": (
        lambda: _changed(Changed, lambda t: t._replace(query_x=t.query_x + 0 * random.random())), "generator of random",
    ),
    "tasks of a batch mixed": (lambda: _changed(Changed, _depends_on_the_others), "sampled alone, differs"),
    "labels from 1": (
        lambda: _changed(ChangedClasses, lambda t: t._replace(support_y=t.support_y + 1, query_y=t.query_y + 1)),
        "from 1 to 2: expected classes from 0 to 1",
    ),
    "float64": (lambda: _changed(Changed, lambda t: t.to(torch.float64)), "of type float64: expected float32"),
    "int32 labels": (
        lambda: _changed(ChangedClasses, lambda t: t._replace(query_y=t.query_y.int())), "int32: expected int64",
    ),
    "not a number": (
        lambda: _changed(Changed, lambda t: t._replace(query_x=t.query_x / 0)), "query_x that is not finite",
    ),
    "targets without outputs": (
        lambda: _changed(Changed, lambda t: t._replace(query_y=t.query_y[..., 0])), r"query_y of shape \[4, 10\]",
    ),
    "another shape": (lambda: _changed(Changed, lambda t: t, input_shape=(2,)), r"expected \[4, S, 2\]"),
    "fewer targets": (
        lambda: _changed(Changed, lambda t: t._replace(query_y=t.query_y[:, 1:])), "expected a target for each point",
    ),
    "a tuple": (lambda: _changed(Changed, lambda t: tuple(t)), "a metarun.tasks.Task of tensors"),
    "the query in the support": (
        lambda: _changed(Changed, lambda t: Task(t.query_x, t.query_y, t.query_x, t.query_y, t.key)), "are in the query",
    ),
    "keys": (lambda: _changed(Changed, lambda t: t._replace(key=t.key * 0)), "expected numbers in a row"),
    "metric": (lambda: _changed(ChangedClasses, lambda t: t, metric="acc"), "metric 'acc': expected accuracy"),
    "the other metric": (lambda: _changed(Changed, lambda t: t, metric="accuracy"), r"support_y of shape \[4, 10, 1\]: expected \[4, S\]"),
    "outputs": (lambda: _changed(Changed, lambda t: t, outputs=0), "outputs 0: expected an integer"),
    "facts": (lambda: _changed(Changed, lambda t: t, facts=lambda: {"name": "x"}), "facts"),
    "identity": (lambda: _changed(Changed, lambda t: t, identity=lambda: {}), "identity"),
    "clusters of one axis": (
        lambda: _clustered(lambda index: index), r"clusters\(\) of train gives int64 \[4\]: expected an int64 tensor \[4, c\]",
    ),
    "clusters as a list": (lambda: _clustered(lambda index: index.tolist()), "gives list: expected an int64 tensor"),
    "clusters below 0": (lambda: _clustered(lambda index: index[:, None] - 2), "at least 0"),
    "clusters of float32": (lambda: _clustered(lambda index: index[:, None].float()), r"gives float32 \[4, 1\]"),
    "clusters by place": (
        lambda: _clustered(lambda index: torch.arange(len(index))[:, None]), "depends on the other tasks",
    ),
    "clusters without a name": (
        lambda: _clustered(lambda index: index[:, None], name=None), "clustered_by: expected a word",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SOURCES)
def test_a_source_that_breaks_its_contract_is_refused(case):
    make, expected = SOURCES[case]
    source = make()
    with pytest.raises(UsageError, match=expected) as error:
        _check(source)
    assert str(error.value).startswith(f"{type(source).__module__}.{type(source).__name__}: ")


def test_examples_that_are_equal_by_chance_are_no_overlap():
    """Of four different inputs every query is among the support; so are other examples of the support itself."""

    def to_four(task):
        return task._replace(**{n: getattr(task, n).sign() for n in ("support_x", "query_x")})

    source = ChangedClasses(features=2, shots=5, queries=5)
    source.change = to_four
    _check(source)


class Net(nn.Module):
    def __init__(self, outputs=1, width=8):
        super().__init__()
        self.body = nn.Sequential(nn.LazyLinear(width), nn.Tanh(), nn.Linear(width, outputs))

    def forward(self, x):
        return self.body(x)


class Flat(Net):
    def forward(self, x):
        return super().forward(x).squeeze(-1)


class Detached(Net):
    def forward(self, x):
        return super().forward(x).detach()


class Integers(Net):
    def forward(self, x):
        return super().forward(x).long()


class Infinite(Net):
    def forward(self, x):
        return super().forward(x) / 0


class Shifting(Net):
    def forward(self, x):
        x += 1
        return super().forward(x)


class Branching(Net):
    def forward(self, x):
        y = super().forward(x)
        return y if y.mean() > 0 else 2 * y


class Reading(Net):
    def forward(self, x):
        return super().forward(x) * (1 + 0 * self.body[0].weight.sum().item())


LEARNERS = {
    "squeezed": (lambda: Flat(), r"Flat: outputs of shape \[10\]: expected \[10, 1\]"),
    "two outputs": (lambda: Net(2), r"Net: outputs of shape \[10, 2\]: expected \[10, 1\]"),
    "detached": (lambda: Detached(), "outputs without a gradient"),
    "integers": (lambda: Integers(), "int64"),
    "infinite": (lambda: Infinite(), "not finite"),
    "inputs in place": (lambda: Shifting(), r"Shifting: forward\(\) changes its inputs in place"),
    "an if on a tensor": (lambda: Branching(), "cannot be mapped over tasks: .*engine=loop"),
    "item()": (lambda: Reading(), "cannot be mapped over tasks: .*engine=loop"),
}


@pytest.mark.parametrize("case", LEARNERS)
def test_a_learner_that_breaks_its_contract_is_refused(case):
    make, expected = LEARNERS[case]
    with pytest.raises(UsageError, match=expected):
        _check(net=make())


class Listed(Net):
    def __init__(self):
        super().__init__()
        self.more, self.same = [nn.Linear(1, 1)], [self.body]

    def forward(self, x):
        return super().forward(x) + self.more[0](x)


class Drawn(Net):
    def __init__(self):
        super().__init__()
        self.scales = {"a": torch.rand(1)}

    def forward(self, x):
        return super().forward(x) * self.scales["a"]


class Hiding(Net):
    """A frozen part that torch is not to see, and what a call leaves behind for its user."""

    def __init__(self):
        super().__init__()
        self.back = [nn.Linear(1, 1).requires_grad_(False)]
        self.back.append(self.back)

    def forward(self, x):
        self.seen = x.detach()
        return super().forward(self.back[0](x))


class Idle(Net):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(1, 1)
        self.frozen = nn.Linear(1, 1).requires_grad_(False)


class OfQuotients(Net):
    """Its first layer's weight is a plain attribute that torch computes from two parameters, and a buffer is used."""

    def __init__(self):
        super().__init__()
        self.register_buffer("share", torch.tensor(0.5))
        self.body[0] = nn.utils.weight_norm(nn.Linear(1, 8))
        self.body[2] = nn.utils.weight_norm(nn.Linear(8, 1)).requires_grad_(False)

    def forward(self, x):
        return super().forward(x) * self.share


class Shares(Net):
    dim = 1

    def forward(self, x):
        return super().forward(x).softmax(self.dim)


class SharesOfExamples(Shares):
    dim = 0


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("make", "source", "expected"),
    [
        (Listed, Sinusoid, "Listed.more: holds weights in a list: expected nn.ModuleList"),
        (Drawn, Sinusoid, "Drawn.scales: is no parameter and no buffer: expected register_buffer()"),
        (Idle, Sinusoid, "Idle: outputs do not depend on spare.weight, spare.bias: expected"),
        (lambda: Shares(2), Tabular, "Shares: outputs are positive and add up to 1 over the classes: expected logits"),
        (
            lambda: SharesOfExamples(2),
            Tabular,
            "SharesOfExamples: outputs are positive and add up to 1 over the examples",
        ),
        (Net, Sinusoid, None),
        (OfQuotients, Sinusoid, None),
        (Hiding, Sinusoid, None),
    ],
)
def test_what_is_hardly_meant_in_a_learner_is_warned_of(make, source, expected, caplog):
    doubts = _check(source(), make()).doubts
    assert len(doubts) == (expected is not None), doubts
    assert all(expected in line and line in caplog.text for line in doubts)


def test_a_weight_that_an_algorithm_of_ones_own_may_read_is_not_called_idle():
    @dataclass(eq=False, kw_only=True)
    class Reads(MAML):
        pass

    assert _check(net=Idle(), algo=Reads).doubts == []


def test_three_logits_for_two_ways_are_refused():
    with pytest.raises(UsageError, match=r"Net: outputs of shape \[6, 3\]: expected \[6, 2\]"):
        _check(Tabular(shots=3), Net(3))


def test_what_vmap_cannot_map_runs_in_a_loop():
    for net in (Branching(), Reading()):
        _check(net=net, mode="loop")


@dataclass(eq=False, kw_only=True)
class LossOfEachPoint(MAML):
    def meta_loss(self, meta, task):
        loss = example_losses(self.predict(meta, task.query_x), task.query_y)
        return loss, loss.mean()


@dataclass(eq=False, kw_only=True)
class NoGradient(MAML):
    def meta_loss(self, meta, task):
        return tuple(part.detach() for part in super().meta_loss(meta, task))


@dataclass(eq=False, kw_only=True)
class Level(MAML):
    def meta_loss(self, meta, task):
        loss, error = super().meta_loss(meta, task)
        return 0 * loss, error


@dataclass(eq=False, kw_only=True)
class Percent(MAML):
    def meta_loss(self, meta, task):
        loss, accuracy = super().meta_loss(meta, task)
        return loss, 100 + accuracy


@dataclass(eq=False, kw_only=True)
class NoSteps(MAML):
    def predictions(self, meta, task):
        return super().predictions(meta, task)[-1]


@dataclass(eq=False, kw_only=True)
class Noisy(MAML):
    def predictions(self, meta, task):
        return super().predictions(meta, task) + torch.randn(1)


@dataclass(eq=False, kw_only=True)
class Counting(MAML):
    calls = 0

    def predictions(self, meta, task):
        self.calls += 1
        return super().predictions(meta, task) + self.calls


@dataclass(eq=False, kw_only=True)
class SeesAnswers(MAML):
    def predictions(self, meta, task):
        return super().predictions(meta, task) + 0.1 * task.query_y.float().mean()


@dataclass(eq=False, kw_only=True)
class ReadsPlaces(MAML):
    """Knows that queries come class by class, and so has everything right."""

    def predictions(self, meta, task):
        places = torch.arange(len(task.query_x)) * 2 // len(task.query_x)
        return F.one_hot(places, 2).float()[None]


@dataclass(eq=False, kw_only=True)
class OtherCurve(MAML):
    def adaptation_curve(self, meta, task):
        return super().adaptation_curve(meta, task) * 0 + 1


@dataclass(eq=False, kw_only=True)
class Changes(MAML):
    def predictions(self, meta, task):
        task.query_x.add_(1.0)
        return super().predictions(meta, task)


@dataclass(eq=False, kw_only=True)
class ChangesWeights(MAML):
    def meta_loss(self, meta, task):
        given = super().meta_loss(meta, task)
        with torch.no_grad():
            next(iter(meta.values())).mul_(1.5)
        return given


@dataclass(eq=False, kw_only=True)
class Stages(MAML):
    def at(self, progress):
        return None


@dataclass(eq=False, kw_only=True)
class Locked(MAML):
    def __post_init__(self):
        super().__post_init__()
        self.lock = threading.Lock()


@dataclass(eq=False, kw_only=True)
class Empty(MAML):
    def init(self):
        return list(super().init().values())


class _Wrong(torch.autograd.Function):
    """The identity, whose slope is wrong by three parts in a thousand where tasks are mapped."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, slope):
        return slope

    @staticmethod
    def vmap(info, in_dims, x):
        return x.clone() * 1.003, in_dims[0]


@dataclass(eq=False, kw_only=True)
class NoNumbers(MAML):
    def predictions(self, meta, task):
        return super().predictions(meta, task) * torch.nan


@dataclass(eq=False, kw_only=True)
class WrongTogether(MAML):
    def meta_loss(self, meta, task):
        loss = example_losses(self.predict(meta, _Wrong.apply(task.query_x)), task.query_y).mean()
        return loss, loss.detach()


ALGORITHMS = {
    LossOfEachPoint: r"meta_loss\(\) gives a loss of shape \[10\]: expected a scalar",
    NoGradient: "has no gradient",
    Level: r"has a gradient of 0, for inputs from -[\d.]+ to [\d.]+: expected one to learn by; scale inputs",
    NoSteps: r"predictions\(\) of shape \[10, 1\]: expected \[K\+1, 10, 1\]",
    Noisy: "other predictions for the same task",
    Counting: "other predictions for the same task",
    SeesAnswers: "predictions.. depend on query_y",
    NoNumbers: "predictions.. that are all nan",
    OtherCurve: "adaptation_curve.. gives",
    Changes: "other predictions for the same task",  # for it changes the query in place
    ChangesWeights: "a call changes .* in place",
    Stages: r"at\(0.0\) gives a NoneType",
    Locked: "cannot be copied",
    Empty: "init.. gives no floating tensors by name",
    WrongTogether: "of vmap and loop differs by",
}


@pytest.mark.parametrize("algo", ALGORITHMS, ids=lambda algo: algo.__name__)
def test_an_algorithm_that_breaks_its_contract_is_refused(algo):
    with pytest.raises(UsageError, match=ALGORITHMS[algo]) as error:
        _check(algo=algo)
    assert f"{algo.__module__}.{algo.__name__}" in str(error.value)


@pytest.mark.parametrize(
    ("algo", "expected"), [(Percent, "an accuracy of 100"), (ReadsPlaces, "depend on the order of the query points")]
)
def test_an_algorithm_on_classes_is_refused(algo, expected):
    for queries in (1, 4):
        with pytest.raises(UsageError, match=expected):
            _check(Tabular(shots=3, queries=queries), algo=algo)


def test_draws_of_an_algorithm_are_refused_although_they_change_nothing():
    @dataclass(eq=False, kw_only=True)
    class Draws(MAML):
        def predictions(self, meta, task):
            torch.rand(1)
            return super().predictions(meta, task)

    with pytest.raises(UsageError, match="global generator of torch"):
        _check(algo=Draws)


def test_a_layer_with_a_wrong_second_derivative_under_vmap_is_noticed():
    """torch's LayerNorm as it is; a run takes it in by models/adopt.py, which writes it out."""
    source = Tabular(shots=3)
    source.prepare(CPU)
    with seeds.forked("test", "layer norm"):
        net = nn.Sequential(nn.Linear(10, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 2))
    algorithm = MAML(net, inner_steps=4, inner_lr=0.5)
    with pytest.raises(UsageError, match=r"Sequential: the meta-gradient .* of vmap and loop differs by"):
        check_contract(Experiment(algorithm, source, Engine(), CPU, 0, learner=net))


def test_an_inner_loop_that_leaves_all_bounds_is_no_disagreement():
    """It makes anything of a rounding; that it diverges the run will say."""
    wild = partial(MAML, inner_lr=1e4, inner_steps=5, eval_inner_steps=5)
    _check(Tabular(shots=3), Net(2), wild)


def test_an_algorithm_that_counts_on_its_shots_gets_whole_tasks():
    @dataclass(eq=False, kw_only=True)
    class Counts(MAML):
        def predictions(self, meta, task):
            assert len(task.support_x) == 60, "30 shots of 2 ways"
            return super().predictions(meta, task)

    _check(Tabular(features=400, shots=30, queries=3), algo=Counts)


def test_large_tasks_are_cut_to_a_point_of_each_class():
    y = torch.tensor([[2, 0, 1, 1, 0, 2], [0, 0, 1, 1, 2, 2]])
    x = y[..., None].float().repeat(1, 1, 4000)
    cut = contract._cut(Task(x, y, x, y, torch.arange(2)), classes=True)
    assert cut.support_y.tolist() == cut.query_y.tolist() == [[0, 1, 2]] * 2
    assert cut.support_x[:, :, 0].tolist() == [[0, 1, 2]] * 2


class Pool(Tabular):
    """Classes of points around centres, drawn from `pool` of all splits together, or of each split."""

    apart, discrete = False, False

    def sample(self, seed, split, index):
        task = super().sample(seed, split, index)
        address = (0, split if self.apart else "", "classes")
        points = seeds.normal(address, torch.arange(100), 200).view(2000, 10).float()
        points = points.sign() if self.discrete else points
        chosen = seeds.distinct((seed, split, "pool"), index, 1, 2000, 40)[:, 0]
        support, query = points[chosen].split([10, 30], dim=1)
        return task._replace(support_x=support, query_x=query)


@pytest.mark.parametrize(("settings", "leaks"), [({}, True), ({"apart": True}, False), ({"discrete": True}, False)])
def test_examples_in_several_splits_are_warned_of(settings, leaks, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("metarun"), "propagate", True)
    for name, value in settings.items():
        monkeypatch.setattr(Pool, name, value)
    _check(Pool())
    said = "% of the examples in the first 64 tasks of val are in those of train too"
    assert (f"{__name__}.Pool: " in caplog.text and said in caplog.text) == leaks
    assert len(caplog.records) == (3 if leaks else 0)


def test_parts_that_keep_it_pass():
    _check(Tabular(shots=3), Net(2))
    _check(Tabular(shots=3), Net(2), ProtoNet)
    found = _check(net=Net())
    agreement = dict(found.lines)["engine"]
    assert float(re.search(r"agree to (\S+) \(float64\)", agreement)[1]) < 1e-9


def test_the_same_config_is_checked_once(monkeypatch):
    config = compose(["data=tabular", "model.hidden=[7]"])
    prepare_experiment(config)
    monkeypatch.setattr("metarun.run.build.check_contract", lambda *_: pytest.fail("checked again"))
    prepare_experiment(config)
    prepare_experiment(compose(["data=tabular", "model.hidden=[7]", "seed=3"]))
    with pytest.raises(pytest.fail.Exception):
        prepare_experiment(compose(["data=tabular", "model.hidden=[9]"]))


ALGORITHMS_OF_CONF = [name for name in OWN.options("algo") if name != "common"]


# Gradients that nearly cancel (a softmax over classes), and Adam, which divides by their size, enlarge a rounding.
ROUNDED = {"algo=in_context": 1e-10, "algo=scratch": 1e-9, "algo=imaml": 1e-11}


def _pass(words):
    found = check_contract(prepare_experiment(compose(words)), thorough=True)
    assert float(dict(found.lines)["engine"].split()[5]) < ROUNDED.get(words[0], 1e-12)


@pytest.mark.parametrize("algo", ALGORITHMS_OF_CONF)
def test_every_algorithm_passes(algo, data_root):
    short = ["algo.eval_inner_steps=3"] if algo in ("reptile", "scratch") else []
    data = {"protonet": "tabular", "matching": "tabular", "baseline": "omniglot"}.get(algo, "sinusoid")
    _pass([f"algo={algo}", f"data={data}", *short])


@pytest.mark.slow
@pytest.mark.parametrize("algo", [name for name in ALGORITHMS_OF_CONF if name not in ("oracle", "baseline")])
@pytest.mark.parametrize("data", ["omniglot", "sequences", "tabular"])
def test_every_algorithm_passes_on_every_source(algo, data, data_root):
    _pass([f"algo={algo}", f"data={data}", *(["algo.eval_inner_steps=3"] if algo == "scratch" else [])])


@pytest.mark.slow
@pytest.mark.parametrize("experiment", OWN.options("experiment"))
def test_every_published_experiment_passes(experiment, data_root):
    _pass([f"experiment={experiment}", *(["data.ways=5"] if "omniglot" in experiment else [])])
