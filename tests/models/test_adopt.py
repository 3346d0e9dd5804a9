"""Foreign modules as learners: right under vmap with second derivatives, or refused by the layer's name."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.oracles import assert_same, image_tasks, maml, norm_model, run_engine
from torch import nn
from torch.nn.utils import parametrizations

from metarun import seeds
from metarun.algos.averaging import with_new_weights
from metarun.algos.lstm_generator import LSTMGenerator
from metarun.algos.meta_lstm import MetaLSTM
from metarun.algos.protonet import ProtoNet
from metarun.engine.engine import Engine
from metarun.errors import SettingError
from metarun.models import MLP
from metarun.models.adopt import adopt, frozen_digest
from metarun.models.functional import call, weights_of
from metarun.tasks import Task

SHAPE = (1, 4, 4)


class Net(nn.Module):
    """A layer between two others, on images as sequences of four vectors, or with `images` as four channels."""

    def __init__(self, layer, images=False, take=lambda out: out):
        super().__init__()
        self.norm = nn.Conv2d(1, 4, 3, padding=1) if images else nn.Linear(4, 4)  # a name that means nothing
        self.layer, self.take, self.images = layer, take, images
        self.fc = nn.LazyLinear(3)

    def forward(self, x, temperature=None):
        x = self.norm(x if self.images else x[:, 0])
        x = torch.tanh(self.take(self.layer(x)).flatten(1))
        return self.fc(x if temperature is None else x / len(temperature))


class Attends(nn.Module):
    def __init__(self, need_weights):
        super().__init__()
        self.attention, self.need_weights = nn.MultiheadAttention(4, 2, batch_first=True), need_weights

    def forward(self, x):
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


class Steps(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return state[0] if isinstance(state, tuple) else state


class Embeds(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.table = nn.Embedding(8, 4, **settings)

    def forward(self, x):
        return self.table((3 * x).long().clamp(0, 7)).mean(1)


class Functional(nn.Module):
    """Norms that are called as functions, by parameters of the module's own."""

    def __init__(self, function, size=4):
        super().__init__()
        self.function = function
        self.weight, self.bias = nn.Parameter(torch.rand(size) + 0.5), nn.Parameter(torch.rand(size))

    def forward(self, x):
        return self.function(x, self.weight, self.bias)


def encoder(**settings):
    settings = {"dropout": 0.0, "batch_first": True, **settings}
    return nn.TransformerEncoderLayer(4, 2, 8, **settings)


def first(out):
    return out[0]


IMAGES = {
    "batch norm": lambda: nn.BatchNorm2d(4),
    "batch norm without statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "batch norm without weights": lambda: nn.BatchNorm2d(4, affine=False, eps=0.1),
    "batch norm of several processes": lambda: nn.SyncBatchNorm(4),
    "lazy batch norm": lambda: nn.LazyBatchNorm2d(),
    "batch norm in eval mode": lambda: nn.BatchNorm2d(4).eval(),
    "batch norm as a function": lambda: Functional(lambda x, w, b: F.batch_norm(x, None, None, w, b, True)),
    "instance norm": lambda: nn.InstanceNorm2d(4, affine=True),
    "instance norm with statistics": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "layer norm of images": lambda: nn.LayerNorm([4, 4, 4]),
    "local response norm": lambda: nn.LocalResponseNorm(2),
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv2d(4, 4, 3)),
    "old weight norm": lambda: nn.utils.weight_norm(nn.Conv2d(4, 4, 3)),
    "spectral norm in eval mode": lambda: parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)).eval(),
    "in place": lambda: nn.Sequential(nn.BatchNorm2d(4), nn.ELU(inplace=True)),
    "hard sigmoid": lambda: nn.Hardsigmoid(),
    "pooling": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.MaxPool2d(2)),
    "transposed convolution": lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 2, 2), nn.PReLU(4), nn.Upsample(scale_factor=2)),
    "dropout without p": lambda: nn.Sequential(nn.Dropout(0.0), nn.Dropout2d(0), nn.AlphaDropout(0.0)),
    "dropout in eval mode": lambda: nn.Dropout(0.5).eval(),
}  # fmt: skip
SEQUENCES = {
    "layer norm": lambda: nn.LayerNorm(4),
    "layer norm as a function": lambda: Functional(lambda x, w, b: F.layer_norm(x, (4,), w, b)),
    "layer norm of torch": lambda: Functional(lambda x, w, b: torch.layer_norm(x, (4,), w, b)),
    "rms norm": lambda: nn.RMSNorm(4),
    "batch norm of sequences": lambda: nn.BatchNorm1d(4),
    "attention": lambda: Attends(False),
    "attention with weights": lambda: Attends(True),
    "fused attention": lambda: Functional(lambda x, w, b: F.scaled_dot_product_attention(x * w, x + b, x)),
    "transformer": encoder,
    "transformer, norms first": lambda: encoder(norm_first=True, activation="gelu"),
    "transformer in eval mode": lambda: nn.TransformerEncoder(encoder(dropout=0.1), 2).eval(),
    "embedding": Embeds,
}
RECURRENT = {
    "lstm": lambda: nn.LSTM(4, 3, batch_first=True),
    "gru": lambda: nn.GRU(4, 3, batch_first=True, num_layers=2, bidirectional=True),
    "rnn": lambda: nn.RNN(4, 3, nonlinearity="relu"),
}
CELLS = {"lstm cell": nn.LSTMCell, "gru cell": nn.GRUCell, "rnn cell": nn.RNNCell}
NETS = {
    **{name: lambda make=make: Net(make(), images=True) for name, make in IMAGES.items()},
    **{name: lambda make=make: Net(make()) for name, make in SEQUENCES.items()},
    **{name: lambda make=make: Net(make(), take=first) for name, make in RECURRENT.items()},
    **{name: lambda cell=cell: Net(Steps(cell(4, 3))) for name, cell in CELLS.items()},
}


def tasks_of_scales(shape=SHAPE, shots=2):
    """Four 3-way tasks whose inputs have scales from 0.1 to 10: by these torch's second derivatives go wrong."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 0.1, 10.0, 3.0], dtype=torch.float64).view(4, *[1] * (len(shape) + 1))

    def part():
        x = torch.randn(4, 3 * shots, *shape, generator=generator, dtype=torch.float64) * scale + 1
        return x, torch.arange(3).repeat(shots).expand(4, -1)

    return Task(*part(), *part(), torch.arange(4) + 1000)


def build(make, shape=SHAPE, **settings):
    with seeds.forked("test", "adopt"):
        return adopt(make(), shape, **settings).double()


def error_of_the_gradient(algorithm, tasks):
    """The difference of the meta-gradient to the loss's central differences, along a direction, and the slope."""
    meta, generator = algorithm.init(), torch.Generator().manual_seed(1)
    direction = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in meta.items()}
    grads = Engine().meta_gradient(algorithm, meta, tasks).grads
    slope = float(sum((grads[n] * d).sum() for n, d in direction.items()))

    def loss(h):
        changed = {n: v + h * direction[n] for n, v in meta.items()}
        with torch.no_grad():
            return float(torch.func.vmap(algorithm.meta_loss, in_dims=(None, 0))(changed, tasks)[0].mean())

    differences = (
        (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h) for h in (1e-4, 1e-5, 1e-6, 1e-7)
    )
    return min(abs(difference - slope) for difference in differences), abs(slope)


@pytest.mark.parametrize("name", NETS)
def test_the_meta_gradient_is_the_loops_and_that_of_central_differences(name):
    algorithm, tasks = maml(build(NETS[name]), inner_lr=0.1, inner_parameters="all"), tasks_of_scales()
    loop, vmap = (run_engine(Engine(mode=mode), algorithm, tasks) for mode in ("loop", "vmap"))
    assert_same(vmap, loop, 1e-11)
    error, slope = error_of_the_gradient(algorithm, tasks)
    assert error < 1e-6 * max(slope, 0.01)


@pytest.mark.parametrize("norm", ["transductive", "support"])
def test_a_copy_of_conv4_of_torchs_own_layers_has_its_gradients(norm):
    theirs, blocks = norm_model(norm=norm, norm_scale=True).float(), []  # rounded, as its copy is
    for block in (twin := copy.deepcopy(theirs)).blocks:
        batch_norm = nn.BatchNorm2d(4, eps=block["norm"].eps)
        batch_norm.weight, batch_norm.bias = block["norm"].scale, block["norm"].shift
        conv = nn.Conv2d(block["conv"].in_channels, 4, 3, 2, 1, bias=False)
        conv.weight = block["conv"].weight
        blocks += [conv, batch_norm, nn.ReLU()]
    net = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), twin.head)
    mine, theirs = adopt(net, (1, 16, 16), norm).double(), theirs.double()
    assert (mine.norm, mine.head_name, len(mine.norm_parameters)) == (norm, "14", 8)
    tasks = image_tasks(torch.Generator().manual_seed(0))
    for settings in ({}, {"inner_parameters": "head"}, {"inner_parameters": "all"}):
        results = [run_engine(Engine(), maml(model, **settings), tasks)[1:] for model in (mine, theirs)]
        assert_same(*results, 1e-10)
        grads = [Engine().meta_gradient(maml(m, **settings), maml(m).init(), tasks).grads for m in (mine, theirs)]
        sums = [sorted(float(grad.square().sum()) for grad in part.values()) for part in grads]
        assert sums[0] == pytest.approx(sums[1], rel=1e-6)
    assert_same(
        run_engine(Engine(), ProtoNet(mine), tasks)[1:], run_engine(Engine(), ProtoNet(theirs), tasks)[1:], 1e-10
    )


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("settings", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False}])
def test_recurrent_layers_are_torchs(kind, settings):
    with seeds.forked("test", "recurrent"):
        theirs = kind(4, 3, **settings)
        mine = adopt(Net(copy.deepcopy(theirs), take=first), SHAPE).module.layer
        x, layers = torch.randn(6, 5, 4), theirs.num_layers * (1 + theirs.bidirectional)
        n = 6 if theirs.batch_first else 5
        h = torch.randn(layers, n, 3)
    for inputs, state in ((x, None), (x, h), (x[0], None), (x[0], h[:, 0])):
        hx = (state, -state) if kind is nn.LSTM and state is not None else state
        for a, b in zip(_leaves(mine(inputs, hx)), _leaves(theirs(inputs, hx)), strict=True):
            torch.testing.assert_close(a, b)


def _leaves(value):
    return [value] if isinstance(value, torch.Tensor) else [leaf for part in value for leaf in _leaves(part)]


class Flat(nn.Module):
    """Wrong in the way that the test says."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.wrong = forward
        for name, part in parts.items():
            setattr(self, name, part)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        return self.wrong(self, self.fc(x.flatten(1)))


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x


REFUSED = {
    "dropout": (lambda: Net(nn.Dropout(0.5)), r"Net\.layer \(Dropout with p=0\.5\).*set that to 0"),
    "dropout in a transformer": (lambda: Net(encoder(dropout=0.1)), r"Net\.layer\.self_attn \(MultiheadAttention with dropout=0\.1\)"),
    "dropout of an lstm": (lambda: Net(nn.LSTM(4, 3, 2, dropout=0.2), take=first), r"Net\.layer \(LSTM with dropout=0\.2\)"),
    "dropout as a function": (lambda: Flat(lambda net, x: F.dropout(x)), r"Flat.*no random numbers"),
    "dropout before a layer": (lambda: Flat(lambda net, x: net.last(F.dropout(x)), last=nn.Linear(3, 3)), r"Flat \(Flat\)"),
    "a norm of torch's inner ones": (lambda: Flat(lambda net, x: torch.native_layer_norm(x, (3,), None, None, 1e-5)[0]), r"Flat: torch\.native_layer_norm.*F\.layer_norm"),
    "rrelu": (lambda: Net(nn.RReLU()), r"Net\.layer \(RReLU\)"),
    "noise": (lambda: Flat(lambda net, x: x + torch.randn(3)), r"Flat.*no random numbers"),
    "spectral norm": (lambda: Net(parametrizations.spectral_norm(nn.Linear(4, 4))), r"layer\.param.*eval mode"),
    "a counter": (lambda: Flat(lambda net, x: net.count(x), count=Counts()), r"Flat\.count\.calls.*a call changes"),
    "embedding of a norm": (lambda: Net(Embeds(max_norm=0.1)), r"Net\.layer\.table\.weight.*a call changes"),
    "a projection": (lambda: Net(nn.LSTM(4, 3, proj_size=2), take=first), r"Net\.layer.*without proj_size"),
    "an embedding bag": (lambda: Flat(lambda net, x: net.bag(x.long()), bag=nn.EmbeddingBag(9, 3)), r"Flat.bag: EmbeddingBag.*Embedding and a mean"),
    "half": (lambda: Flat(lambda net, x: x).half(), r"Flat\.fc\.weight of type float16.*float32"),
    "double": (lambda: Flat(lambda net, x: x).double(), r"type float64"),
    "complex": (lambda: Flat(lambda net, x: x, z=nn.Linear(2, 2, dtype=torch.complex64)), r"\.z\.weight of type complex64"),
    "all frozen": (lambda: Flat(lambda net, x: x).requires_grad_(False), r"Flat.*weights to train"),
    "several outputs": (lambda: Flat(lambda net, x: (x, x)), r"Flat: outputs of type tuple.*a tensor"),
    "an error of its own": (lambda: Flat(lambda net, x: net.nothing), r"Flat: AttributeError.*nothing"),
    "an error in a layer": (lambda: Net(nn.Linear(7, 2)), r"Net\.layer: RuntimeError"),
    "no module": (lambda: 3, r"int.*torch\.nn\.Module"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_learner_is_refused_by_the_name_of_the_layer(name):
    make, words = REFUSED[name]
    with seeds.forked("test", "adopt"), pytest.raises(SettingError, match=words):
        adopt(make(), SHAPE)


def test_names_of_attributes_mean_nothing():
    """A layer called norm, head or form, and a second argument of forward, make no module a Learner."""
    model = build(lambda: Net(nn.Linear(4, 4)))
    x = torch.ones(2, *SHAPE, dtype=torch.float64)
    for learner in (model, model.module):
        torch.testing.assert_close(call(learner, weights_of(learner), x, support=x), model.module(x))
    assert (model.norm, model.form, model.head_name) == ("none", "", "fc")
    assert model.own_class.endswith("Net")
    assert adopt(mine := MLP((4,), 3), (4,)) is mine


def test_the_support_sets_statistics_let_every_answer_stand_alone():
    tasks = tasks_of_scales()
    for norm in ("transductive", "support"):
        algorithm = ProtoNet(build(NETS["batch norm"], norm=norm))
        meta, task = algorithm.init(), tasks.select(0)
        alone = torch.cat([algorithm.answers(meta, task._replace(query_x=x[None])) for x in task.query_x])
        assert torch.allclose(alone, algorithm.answers(meta, task)) == (norm == "support")


def test_frozen_weights_are_no_meta_parameters_and_stay():
    with seeds.forked("test", "adopt"):
        net = Net(nn.BatchNorm2d(4), images=True)
        net.norm.requires_grad_(False)
        net.register_buffer("mean", torch.ones(3))
        model = adopt(net, SHAPE, again=lambda: Net(nn.BatchNorm2d(4), images=True))
    before = {name: value.clone() for name, value in model.module.norm.named_parameters()}
    for algorithm in (maml(model), MetaLSTM(model), LSTMGenerator(model)):
        meta = algorithm.init()
        assert not [name for name in meta if "norm." in name.removeprefix("learner.")]
        assert sum(v.numel() for n, v in meta.items() if n.startswith(("fc", "learner.fc"))) == 3 * 64 + 3
        tasks = tasks_of_scales().to(torch.float32)
        Engine().meta_gradient(algorithm, meta, tasks)
    assert all(torch.equal(value, before[name]) for name, value in model.module.norm.named_parameters())
    digest = frozen_digest(model)
    assert digest == frozen_digest(ProtoNet(model).model) == frozen_digest(copy.deepcopy(model))
    net.norm.weight.data[0] += 1
    assert frozen_digest(model) != digest
    assert frozen_digest(MLP((4,), 3)) == ""


def test_batch_norm_in_eval_mode_has_a_scalar_in_its_digest():
    net = Net(nn.BatchNorm2d(4), images=True)
    net.layer.eval()  # num_batches_tracked has no dimensions
    model = adopt(net, SHAPE)
    digest = frozen_digest(model)
    net.layer.num_batches_tracked += 1
    assert frozen_digest(model) != digest


def test_a_learner_may_not_keep_running_statistics():
    class Mine(MLP):
        def __init__(self):
            super().__init__((4,), 3)
            self.body = nn.BatchNorm1d(4)

    with pytest.raises(SettingError, match=r"Mine\.body \(BatchNorm1d\).*TaskNorm, or derive the class from torch"):
        adopt(Mine(), (4,))


@pytest.mark.parametrize("layer", ["weight norm", "old weight norm"])
def test_a_learner_may_not_have_weight_norm_whose_second_derivative_is_wrong_in_torch(layer):
    class Mine(MLP):
        def __init__(self):
            super().__init__((4,), 3)
            self.body = IMAGES[layer]()

    with pytest.raises(SettingError, match=r"Mine\.body.* \(weight norm\).*derive the class from torch"):
        adopt(Mine(), (4,))


def test_a_learner_that_takes_no_mode_of_batch_norm_has_the_one_that_is_set():
    class Mine(MLP):
        def __init__(self):
            super().__init__((4,), 3, hidden=[5], norm="transductive")

    assert [adopt(Mine(), (4,), norm).norm for norm in (None, "support")] == ["transductive", "support"]
    assert adopt(MLP((4,), 3), (4,), "support").norm == "none"
    with pytest.raises(SettingError, match="bananas"):
        adopt(Mine(), (4,), "bananas")
    x, support = torch.randn(3, 4), torch.randn(5, 4)
    model = adopt(Mine(), (4,), "support")
    torch.testing.assert_close(model(x, support)[:1], model(x[:1], support))


def test_new_weights_are_drawn_by_the_constructor():
    """Every learner of averaging begins as the class begins, and not as torch's layers do."""

    def make():
        net = Net(nn.Linear(4, 4))
        nn.init.normal_(net.norm.weight, mean=100)
        return net

    with seeds.forked("test", "adopt"):
        model = adopt(make(), SHAPE, again=make)
        new = with_new_weights(model)
    assert new.module.norm.weight.min() > 90
    assert not torch.equal(new.module.norm.weight, model.module.norm.weight)
    assert new.head_name == "fc"


def test_tied_weights_are_a_single_meta_parameter():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(torch.tanh(self.a(x.flatten(1))))[:, :3]

    algorithm = maml(build(Tied), inner_parameters="all")
    assert list(algorithm.init()) == ["a.weight", "a.bias", "b.bias"]
    error, slope = error_of_the_gradient(algorithm, tasks_of_scales())
    assert error < 1e-6 * max(slope, 0.01)


def test_algorithms_that_need_a_last_layer_find_it_or_say_so():
    tasks = tasks_of_scales()
    model = build(NETS["layer norm"])
    anil = maml(model, inner_parameters="head")
    assert set(anil.init()) - anil.fixed == {"fc.weight", "fc.bias"}
    body = ProtoNet(model)
    assert "fc.weight" not in body.init()
    assert body.answers(body.init(), tasks.select(0)).shape == (6, 3)
    for generate in ("all", "head"):
        writer = LSTMGenerator(model, generate=generate)
        results = [run_engine(Engine(mode=mode), writer, tasks) for mode in ("loop", "vmap")]
        assert_same(*results, 1e-10)
    scaled = build(lambda: Flat(lambda net, x: 2 * x))
    assert scaled.head_name is None
    maml(scaled).init()
    for make in (ProtoNet, LSTMGenerator, lambda model: maml(model, inner_parameters="head")):
        with pytest.raises(SettingError, match=r"Flat.*a learner whose outputs are those of a linear layer"):
            make(scaled)
    model.module.fc.requires_grad_(False)
    with pytest.raises(SettingError, match=r"Net\.fc.*a last layer whose weights are trained"):
        maml(model, inner_parameters="head")


def test_adopting_draws_nothing_from_the_runs_generator():
    with seeds.forked("test", "adopt"):
        net = nn.Linear(4, 3)
        state = torch.random.get_rng_state()
        adopt(net, (4,))
        assert torch.equal(state, torch.random.get_rng_state())


def test_the_log_says_which_layers_were_changed():
    notes = build(lambda: Net(nn.BatchNorm2d(4), images=True), norm="support").notes
    assert len(notes) == 1
    assert "Net: batch norm (layer): support statistics of each task" in notes[0]
    assert "recurrent layers (layer)" in build(lambda: Net(nn.GRU(4, 4), take=first)).notes[0]
