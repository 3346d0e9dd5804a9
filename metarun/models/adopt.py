"""Foreign torch modules as learners: those that are no metarun Learner.

A learner is mapped over tasks and differentiated twice, and gives the same for the same examples. What of torch does
not do that right is written out while the module runs (models/written_out.py), or refused by the layer's name:
    batch norm            normalises by the statistics of the task (models/learner.py): running ones have no task
    layer, instance norm  scale and shift as steps of their own: fused, torch's second derivative is wrong under vmap
    weight norm           as a quotient: the second derivative of torch's own is wrong, even without vmap
    LSTM, GRU, RNN        step by step: torch's cannot be mapped, nor differentiated twice
    hard sigmoid          as a ReLU6: torch's has no second derivative
    attention             without torch's fused kernels, which have no second derivative
    dropout and the like  refused: an answer would depend on what was drawn before
    running statistics    refused, as is all else that a call changes
The errors of the first three are of 1e-4 to 1e-2 of the meta-gradient of MAML; tests/models/test_adopt.py has them.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from metarun.errors import SettingError, one_of
from metarun.models.learner import Learner
from metarun.models.written_out import Mended, Recurrent
from metarun.text import first_of, reason, spell_class

EXAMPLES, OF_SUPPORT = 5, 3  # that a module is tried with

NO_DRAWS = "no random numbers, by which equal examples would have other outputs; set that to 0, or leave it out"
RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)


def adopt(
    module: nn.Module,
    input_shape: Sequence[int],
    norm: str | None = None,
    again: Callable[[], nn.Module] | None = None,
) -> Learner:
    """The module as a learner; a Learner as it is, but for norm. Others are changed, and tried with a few examples.

    Args:
        module: takes examples, [n, *input_shape], and gives outputs.
        input_shape: of an example.
        norm: batch-norm mode, transductive or support (see models/learner.py); None: transductive, of a Learner as it
            is.
        again: builds the module once more, with weights of its own, for algorithms with several learners.

    Raises:
        SettingError: it draws random numbers, changes what it keeps, or cannot be called.
    """
    if norm is not None:
        one_of("norm", norm, ["transductive", "support"])
    if isinstance(module, Learner):
        _refuse_layers(module)
        if norm is not None and module.norm != "none":
            module.norm = norm
        return module
    if not isinstance(module, nn.Module):
        raise SettingError(spell_class(type(module)), "model", "a torch.nn.Module")
    return Adopted(module, input_shape, norm or "transductive", again)


def _refuse_layers(learner: Learner) -> None:
    """Raises SettingError for a Learner with layers that only a foreign module is helped with.

    A batch norm that every call changes would carry over from tasks; torch's weight norm has a wrong second derivative.
    """
    for name, layer in learner.named_modules():
        hooks = [*layer._forward_pre_hooks.values(), layer]
        if any(type(found).__name__ in ("WeightNorm", "_WeightNorm") for found in hooks):
            given = f"{learner.own_class}.{name} (weight norm)"
            raise SettingError(given, "model", "none in a Learner; derive the class from torch.nn.Module instead")
        if isinstance(layer, (_BatchNorm, _InstanceNorm)) and layer.training and layer.running_mean is not None:
            given = f"{learner.own_class}.{name} ({type(layer).__name__})"
            rule = "no running statistics in a Learner; take metarun.models.learner.TaskNorm, or derive the class from"
            raise SettingError(given, "model", f"{rule} torch.nn.Module, whose batch norm is made ready for tasks")


class Adopted(Learner):
    """A foreign module as a learner. Its parameters have the module's own names.

    Args: see adopt().
    """

    def __init__(self, module: nn.Module, input_shape: Sequence[int], norm: str, again: Callable[[], nn.Module] | None):
        super().__init__()
        self.module, self.norm = module, norm
        self.again = partial(_adopt_again, again, input_shape, norm) if again else None
        self.notes: list[str] = []
        # A number generator of its own: what a run draws does not depend on it.
        x = torch.randn(EXAMPLES, *input_shape, generator=torch.Generator().manual_seed(0))
        if any(isinstance(value, nn.parameter.UninitializedTensorMixin) for value in _tensors(module).values()):
            self._call(x)  # makes lazy layers what they are
        self._check_weights()
        self._mend()
        self._try(x)

    @property
    def own_class(self) -> str:
        """See Learner."""
        return spell_class(type(self.module))

    @property
    def network(self) -> nn.Module:
        """See Learner."""
        return self.module

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """As torch's, with the module's own names."""
        return self.module.named_parameters(*args, **kwargs)

    def with_new_weights(self) -> "Adopted | None":
        """See Learner."""
        if self.again is None:
            return None
        new = self.again()
        for (_, mine), (_, theirs) in zip(self.named_parameters(), new.named_parameters(), strict=True):
            if not mine.requires_grad:
                theirs.data = mine.data  # frozen weights are the same in all
        return new

    @property
    def norm_parameters(self) -> set[str]:
        """See Learner."""
        norms = [name for name, part in self.module.named_modules() if isinstance(part, _BatchNorm)]
        found = [f"{n}.{name}" for n in norms for name, _ in self.module.get_submodule(n).named_parameters()]
        return set(found) if self.norm != "none" else set()

    def call(self, params: dict[str, Tensor], x: Tensor, support: Tensor | None) -> Tensor:
        """See Learner."""
        return self.joined(lambda x, share: self._run(x, share, params), x, support)

    def outputs(self, x: Tensor, statistics_from: int | None) -> Tensor:
        """See Learner."""
        return self._run(x, statistics_from)

    def _run(self, x: Tensor, statistics_from: int | None = None, params: dict[str, Tensor] | None = None) -> Tensor:
        with Mended(len(x), statistics_from):
            return functional_call(self.module, params or {}, (x,))

    def _check_weights(self) -> None:
        trained = {name: value for name, value in self.module.named_parameters() if value.requires_grad}
        for name, value in trained.items():
            if value.dtype != torch.float32:
                given = f"{self.own_class}.{name} of type {str(value.dtype).removeprefix('torch.')}"
                raise SettingError(given, "model", "float32; freeze others by requires_grad=False")
        if not trained:
            raise SettingError(self.own_class, "model", "weights to train: all have requires_grad=False")

    def _mend(self) -> None:
        """Changes the layers whose state or class stands in the way."""
        # Of the whole process: attention in torch's fused kernels has no second derivative.
        for fused in ("flash", "mem_efficient", "cudnn"):
            getattr(torch.backends.cuda, f"enable_{fused}_sdp")(False)
        norms, cells = [], []
        for name, layer in self.module.named_modules():
            if isinstance(layer, (_BatchNorm, _InstanceNorm)) and (layer.training or layer.running_mean is None):
                if isinstance(layer, _BatchNorm):
                    norms.append(name or type(layer).__name__)
                # In eval mode without statistics, so that no form of it looks for other processes.
                layer.track_running_stats = False
                layer.running_mean = layer.running_var = layer.num_batches_tracked = None
                layer.train(False)
            elif isinstance(layer, nn.RNNBase):
                if type(layer) not in RECURRENT or layer.proj_size:
                    rule = "torch's own LSTM, GRU or RNN, without proj_size; write other cells out"
                    raise SettingError(self._spell(name), "model", rule)
                if layer.dropout and layer.training and layer.num_layers > 1:
                    given = f"{self._spell(name)} ({layer.mode} with dropout={layer.dropout})"
                    raise SettingError(given, "model", NO_DRAWS)
                layer.__class__ = Recurrent
                cells.append(name or layer.mode)
        if norms:
            why = f"{self.norm} statistics of each task, in place of running ones (model.norm)"
            self.notes.append(f"{self.own_class}: batch norm ({first_of(norms)}): {why}")
        if cells:
            why = "written out step by step, as torch's own cannot be differentiated twice"
            self.notes.append(f"{self.own_class}: recurrent layers ({first_of(cells)}): {why}")

    def _try(self, x: Tensor) -> None:
        """Calls the module with a few examples, and notes or refuses what it does."""
        before = {name: value.detach().clone() for name, value in _tensors(self.module).items()}
        out, seen, mended = self._call(x)
        self.norm = self.norm if mended.batch_norms else "none"
        if self.norm == "support":
            self._call(x, OF_SUPPORT)
        if seen.draws is not None:
            layer = self.module.get_submodule(seen.draws)
            shares = [f" with {key}={layer.__dict__[key]}" for key in ("p", "dropout") if key in layer.__dict__]
            raise SettingError(
                f"{self._spell(seen.draws)} ({type(layer).__name__}{''.join(shares)})", "model", NO_DRAWS
            )
        for name, value in _tensors(self.module).items():
            if name not in before or not torch.equal(value, before[name]):
                rule = "nothing that a call changes; put that layer into eval mode or leave it out"
                raise SettingError(f"{self.own_class}.{name}", "model", rule)
        if not isinstance(out, Tensor):
            raise SettingError(f"{self.own_class}: outputs of type {type(out).__name__}", "model", "a tensor")
        self.head_name = next((name for name, outputs in seen.linear if outputs is out and name), None)

    def _call(self, x: Tensor, statistics_from: int | None = None) -> "tuple[Any, _Watch, Mended]":
        """What the module gives for x, with what its layers did. Raises SettingError that names the layer."""
        with torch.no_grad(), _watched(self.module) as seen, Mended(len(x), statistics_from) as mended:
            try:
                return self.module(x), seen, mended
            except SettingError as error:
                if error.name == "model" and seen.stack:
                    error = SettingError(f"{self._spell(seen.stack[-1])}: {error.value}", "model", error.expected)
                raise error from None
            except Exception as error:
                where = self._spell(seen.stack[-1]) if seen.stack else self.own_class
                given = f"{where}: {type(error).__name__}: {reason(error)}"
                raise SettingError(given, "model", f"outputs for examples of shape {list(x.shape)}") from error

    def _spell(self, layer: str) -> str:
        return f"{self.own_class}.{layer}".rstrip(".")


def _adopt_again(build: Callable[[], nn.Module], input_shape: Sequence[int], norm: str) -> Adopted:
    return Adopted(build(), input_shape, norm, build)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


class _Watch:
    """What the layers of a module did."""

    def __init__(self):
        self.stack: list[str] = []  # layers that are running, the innermost last
        self.draws: str | None = None  # the first layer that drew random numbers
        self.linear: list[tuple[str, Tensor]] = []  # linear layers, and their outputs


@contextmanager
def _watched(module: nn.Module) -> Iterator[_Watch]:
    """Inside, what the module's layers do is noted."""
    watch, random = _Watch(), torch.random.get_rng_state()

    def enter(name: str, layer: nn.Module, inputs: Any) -> None:
        look(watch.stack[-1] if watch.stack else name)  # what was drawn since was by the layer around this one
        watch.stack.append(name)

    def look(name: str) -> None:
        if watch.draws is None and not torch.equal(random, torch.random.get_rng_state()):
            watch.draws = name

    def leave(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        watch.stack.pop()
        look(name)
        if isinstance(layer, nn.Linear):
            watch.linear.append((name, output))

    handles = []
    for name, layer in module.named_modules():
        handles.append(layer.register_forward_pre_hook(partial(enter, name)))
        handles.append(layer.register_forward_hook(partial(leave, name)))
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def frozen_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What of a learner is no meta-parameter: frozen weights and buffers, by name."""
    return {name: value for name, value in _tensors(model).items() if not value.requires_grad}


def frozen_digest(model: nn.Module) -> str:
    """SHA-256 of what is frozen; "" where nothing is."""
    frozen = frozen_tensors(model)
    digest = hashlib.sha256()
    for name, value in sorted(frozen.items()):
        digest.update(f"{name} {list(value.shape)} {value.dtype}".encode())
        flat = value.detach().cpu().reshape(-1)  # a scalar, such as BatchNorm's num_batches_tracked, has no bytes
        digest.update(flat.view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest() if frozen else ""
