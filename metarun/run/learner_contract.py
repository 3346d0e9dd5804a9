"""What a learner promises, checked on the support set of a task; see models.Learner.

n examples, N outputs.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from metarun.config.own_code import class_name
from metarun.engine.loop import Experiment
from metarun.models.functional import Params, call, weights_of
from metarun.models.learner import Learner
from metarun.run.source_contract import refuse
from metarun.tasks import Metric, Task
from metarun.text import first_of


def check_learner(experiment: Experiment, task: Task) -> str:
    """What a learner gives for support inputs, in words.

    Raises:
        UsageError: it is not what it has to be.
    """
    learner, x, outputs = experiment.learner, task.support_x, experiment.source.outputs
    assert learner is not None
    params = {name: value.to(x.device) for name, value in weights_of(learner).items()}
    given, again = call(learner, params, x.clone()), call(learner, params, copied := x.clone())
    if not torch.equal(copied, x):
        refuse(learner, "forward() changes its inputs in place", "them to stay as they are; copy first")
    if not isinstance(given, Tensor):
        refuse(learner, f"outputs of type {type(given).__name__}", f"a tensor [{len(x)}, {outputs}]")
    if list(given.shape) != [len(x), outputs]:
        per = "logits of the classes" if experiment.source.metric == "accuracy" else "the targets have it"
        rule = f"[{len(x)}, {outputs}], a row for each example as {per}; mend forward()"
        refuse(learner, f"outputs of shape {list(given.shape)}", rule)
    if not given.is_floating_point():
        refuse(learner, f"outputs of type {str(given.dtype).removeprefix('torch.')}", "floating numbers")
    if not given.isfinite().all():
        refuse(learner, "outputs that are not finite, before any training", "numbers; mend its first weights")
    if not torch.equal(given, again):
        refuse(learner, "other outputs for the same inputs", "a pure function of inputs and parameters")
    if any(value.requires_grad for value in params.values()) and not given.requires_grad:
        refuse(learner, "outputs without a gradient", "outputs that depend on the parameters; leave out detach()")
    return f"{class_name(learner)}: {sum(p.numel() for p in params.values()):,} parameters, outputs {list(given.shape)}"


def describe_doubts(learner: Learner, metric: Metric, x: Tensor, alone: bool = True) -> list[str]:
    """What a learner may not be meant to do, in lines: weights that are not learned, probabilities for logits.

    Args:
        learner: see check_learner(), which has found nothing to refuse.
        metric: of the task source.
        x: [n, *input_shape] examples.
        alone: whether nothing but the learner itself has a use for its weights: an algorithm of the user's might.
    """
    params = {name: value.to(x.device) for name, value in weights_of(learner).items()}
    before = [value for *_, value in _attributes(learner)]
    given = call(learner, params, x)
    lines = [*_find_what_is_not_kept(learner, before), *(_find_idle_weights(params, given) if alone else ())]
    lines += _find_probabilities(given) if metric == "accuracy" and given.shape[1] > 1 else []
    return [f"{class_name(learner)}{line}" for line in lines]


def _find_what_is_not_kept(learner: Learner, before: list[Any]) -> Iterator[str]:
    """Weights and tensors in plain attributes, which torch does not see; `before` are the attributes before a call.

    What a call sets anew is no state, and what is made of weights (weight norm) is kept with those.
    """
    kept = {id(tensor) for tensor in (*learner.parameters(), *learner.buffers())}
    stayed = set(map(id, before))
    for module, path, value in _attributes(learner):
        hidden = [tensor for tensor in _tensors_in(value) if id(tensor) not in kept]
        made_of = [f"{path.rpartition('.')[2]}{end}" for end in ("_g", "_orig")]
        if id(value) not in stayed or any(hasattr(module, name) for name in made_of):
            continue
        if any(isinstance(tensor, nn.Parameter) and tensor.requires_grad for tensor in hidden):
            rule = "nn.ModuleList, nn.ParameterList or the like, or they are never trained"
            yield f".{path}: holds weights in a {type(value).__name__}: expected {rule}"
        elif any(tensor.grad_fn is None and not isinstance(tensor, nn.Parameter) for tensor in hidden):
            yield f".{path}: is no parameter and no buffer: expected register_buffer(), or no checkpoint has it"


def _find_idle_weights(params: Params, given: Tensor) -> Iterator[str]:
    grads = torch.autograd.grad(given.sum(), list(params.values()), allow_unused=True) if params else ()
    if idle := [name for name, grad in zip(params, grads, strict=True) if grad is None]:
        rule = "all weights to be learned; use them, leave out detach() and no_grad(), or freeze them"
        yield f": outputs do not depend on {first_of(idle)}: expected {rule} by requires_grad=False"


def _attributes(learner: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """The plain attributes of a learner's modules that may hold tensors: the module, the name, the value."""
    network = learner.network if isinstance(learner, Learner) else learner
    for layer, module in network.named_modules():
        for name, value in vars(module).items():
            if not name.startswith("_") and isinstance(value, (Tensor, list, tuple, dict)):
                yield module, f"{layer}.{name}".lstrip("."), value


def _tensors_in(value: Any, depth: int = 3) -> Iterator[Tensor]:
    """The tensors that an attribute holds: itself, those in a collection, the weights of modules in one."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.parameters()
    elif isinstance(value, (list, tuple, dict)) and depth:
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(part, depth - 1)


def _find_probabilities(given: Tensor) -> Iterator[str]:
    """Outputs such as those of a softmax, over the classes or over the examples."""
    for over, dim in (("classes", 1), ("examples", 0)):
        sums = given.sum(dim)
        if given.min() >= 0 and given.shape[dim] > 1 and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            rule = "logits, of which the loss makes probabilities; leave out softmax()"
            yield f": outputs are positive and add up to 1 over the {over}: expected {rule}"
