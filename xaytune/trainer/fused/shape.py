"""The shape of a run: runs of one shape can be trained by one program. What stands in the way is said."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import optimizer as torch_optimizer
from torch.utils.data import BatchSampler, SequentialSampler

from xaytune.trainer.fused.held import loader_reads_model
from xaytune.trainer.fused.keys import HOOKS, INTERNAL, NotFusedError, is_found, key_of, key_of_type
from xaytune.trainer.fused.update import COLUMNS, shared_options
from xaytune.trainer.indexed import is_over_tensors
from xaytune.trainer.run import Run
from xaytune.trainer.step import Stepper

# What a shape consists of, in its order.
_PARTS: Final = ("device", "precision", "accumulation", "clipping", "model", "loss", "evaluation", "optimizer")
_REFUSED_OPTIONS: Final = ("amsgrad", "maximize", "capturable", "differentiable", "dampening")


def shape_of(run: Run, beginning: Hashable = None) -> tuple[Hashable, Hashable]:
    """Returns the shape of a run whose gradients are those of a step: what must be the same for runs to be fused.

    Args:
        run: The run.
        beginning: What :func:`beginning_of` gave, where that is known to be the same now.

    Raises:
        NotFusedError: It cannot be fused with any run.
    """
    return beginning or beginning_of(run), _optimizer(run.stepper)


def beginning_of(run: Run) -> Hashable:
    """Returns what is known of a shape before there are gradients.

    Raises:
        NotFusedError: It cannot be fused with any run.
    """
    stepper, evaluator, parts = run.stepper, run.evaluator, run.parts
    if stepper.precision.name == "fp16":
        raise NotFusedError("its precision is fp16, which scales the loss of each run by itself: use bf16")
    if hasattr(stepper.model, "_orig_mod"):
        raise NotFusedError("its model is compiled: give the model itself, and compile=True")
    if loader_reads_model(run):
        raise NotFusedError("its loader holds its model: it may look at it between steps")
    if stepper.window > 1 and parts.data.draws:
        raise NotFusedError("it accumulates batches of a loader that may draw random numbers with each")
    try:
        return (
            str(stepper.device),
            stepper.precision.name,
            stepper.window,
            stepper.clip_grad_norm is None,
            _model(stepper.model),
            criterion_key(run),
            None if evaluator is None else (evaluator.eval_fn is None, len(evaluator.eval_metrics)),
        )
    except RecursionError:
        raise NotFusedError("its model or loss refers to itself") from None


def difference(one: Any, other: Any) -> str:
    """Names what differs between two shapes."""
    parts = zip(_PARTS, (*one[0], one[1]), (*other[0], other[1]), strict=True)
    name, mine, theirs = next(part for part in parts if part[1] != part[2])
    return f"model{_attributes_that_differ(mine, theirs)}" if name == "model" else name


def _attributes_that_differ(one: Any, other: Any) -> str:
    """Names the attributes of modules in which alone models differ, as ``'s drop and scale``."""
    names: set[str] = set()
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            if len(mine) < 4 or mine[:-1] != theirs[:-1]:
                return ""
            (_, attributes), (_, others) = mine[-1], theirs[-1]
            names |= {str(key[1]) for key, value in attributes if (key, value) not in others}
    return f"'s {' and '.join(sorted(names))}" if names and len(one) == len(other) else ""


def batches_key(run: Run) -> Hashable:
    """Returns a key of the batches that a run is evaluated on; None where they may not be those of another one."""
    evaluator = run.evaluator
    assert evaluator is not None
    loader: Any = evaluator.loader
    if evaluator.eval_fn is not None or evaluator.eval_metrics or not is_over_tensors(loader):
        return None
    dataset: Any = loader.dataset
    sampler: Any = loader.sampler
    batches: Any = loader.batch_sampler
    in_order = type(sampler) is SequentialSampler and type(batches) is BatchSampler and batches.sampler is sampler
    if not in_order or loader.generator is not None:
        return None
    tensors = tuple((t.data_ptr(), t.shape, t.dtype, t.stride()) for t in dataset.tensors)
    return tensors, len(sampler), loader.batch_size, loader.drop_last


def _model(model: nn.Module) -> Hashable:
    names = {id(module): name for name, module in model.named_modules()}
    its_tensors = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    first: dict[int, str] = {}
    described: list[Hashable] = []
    if nn.modules.module._has_any_global_hook():
        raise NotFusedError("there are global hooks of modules")
    for name, module in model.named_modules(remove_duplicate=False):
        where = f"the model's {name or type(module).__name__!s}"
        if isinstance(module, torch.jit.ScriptModule):
            raise NotFusedError(f"{where} is compiled by TorchScript")
        if isinstance(module, nn.RNNBase):
            raise NotFusedError(f"{where} is a recurrent module, {type(module).__name__}, which cannot be fused")
        if any(vars(module).get(hooks) for hooks in HOOKS):
            raise NotFusedError(f"{where} has hooks")
        own = {key: value for key, value in vars(module).items() if key not in INTERNAL}
        if any(isinstance(value, Tensor) and id(value) in its_tensors for value in own.values()):
            raise NotFusedError(f"{where} has an attribute that is one of the model's tensors")
        if type(module) is nn.Dropout:
            del own["p"]
        attributes = key_of(own, where, lambda part: names.get(id(part)))
        described.append((name, key_of_type(type(module)), module.training, attributes))
        for kind, tensors in (("parameter", module._parameters), ("buffer", module._buffers)):
            for key, tensor in tensors.items():
                described.append((kind, key, _tensor(tensor, first, f"{name}.{key}", where)))
    if len(set(_memory(model))) < len(_memory(model)):
        raise NotFusedError("tensors of its model share their memory")
    return tuple(described)


def _tensor(tensor: Tensor | None, first: dict[int, str], name: str, where: str) -> Hashable:
    if tensor is None:
        return None
    if type(tensor) not in (nn.Parameter, Tensor, nn.Buffer):
        raise NotFusedError(f"{where} has a {type(tensor).__name__}")
    if tensor.layout is not torch.strided or tensor.is_complex():
        raise NotFusedError(f"{where} has a {tensor.dtype} tensor of layout {tensor.layout}")
    if tensor.requires_grad and tensor.dtype not in (torch.float32, torch.float64):
        raise NotFusedError(f"{where} trains {tensor.dtype}: float32 and float64 are fused")
    if _has_hooks(tensor):
        raise NotFusedError(f"{where} has a parameter with hooks")
    tied = first.setdefault(id(tensor), name)  # to the one of this name, where that is another
    return tied, tuple(tensor.shape), str(tensor.dtype), tensor.requires_grad


def _has_hooks(tensor: Tensor) -> bool:
    return bool(getattr(tensor, "_backward_hooks", None) or getattr(tensor, "_post_accumulate_grad_hooks", None))


def _memory(model: nn.Module) -> list[int]:
    """Where the tensors of a model begin, each tensor once."""
    return [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers()) if tensor.numel()]


def _has_a_step_of_its_own(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer takes other steps than its class; schedulers only wrap them."""
    step: Any = vars(optimizer).get("step")
    while hasattr(step, "_wrapped_by_lr_sched"):
        step = step.__wrapped__
    return step is not None and step is not type(optimizer).step


def _optimizer(stepper: Stepper) -> Hashable:
    optimizer = stepper.optimizer
    kind = type(optimizer)
    if kind not in COLUMNS:
        fused = ", ".join(known.__name__ for known in COLUMNS)
        raise NotFusedError(f"its optimizer is {kind.__name__}: {fused} are fused")
    hooked = (
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or torch_optimizer._global_optimizer_pre_hooks
        or torch_optimizer._global_optimizer_post_hooks
    )
    if hooked or _has_a_step_of_its_own(optimizer):
        raise NotFusedError("its optimizer has hooks, or a step of its own")
    names = {id(p): name for name, p in stepper.model.named_parameters()}
    groups: list[Hashable] = []
    known: set[int] = set()
    kinds: set[torch.dtype] = set()
    for group in optimizer.param_groups:
        for option in _REFUSED_OPTIONS:
            if group.get(option):
                raise NotFusedError(f"its optimizer has {option}={group[option]}")
        if any(isinstance(group[name], Tensor) for name in COLUMNS[kind]):
            raise NotFusedError("its optimizer has hyperparameters that are tensors")
        if any(id(p) not in names for p in group["params"]):
            raise NotFusedError("its optimizer trains parameters that are not the model's")
        trained = [p for p in group["params"] if p.grad is not None]
        if any(p.grad.is_sparse for p in trained):
            raise NotFusedError("it has sparse gradients")
        if len({float(optimizer.state[p]["step"]) for p in trained if "step" in optimizer.state.get(p, {})}) > 1:
            raise NotFusedError("parameters of it were stepped more often than others")
        known |= {id(p) for p in group["params"]}
        kinds |= {p.dtype for p in trained}
        options = shared_options(group)
        everyone = tuple(names[id(p)] for p in group["params"])
        groups.append((everyone, tuple(names[id(p)] for p in trained), tuple(sorted(options.items()))))
    if len(kinds) != 1:
        raise NotFusedError(f"it trains parameters of {len(kinds)} kinds of numbers")
    if any(p.requires_grad and id(p) not in known for p in stepper.model.parameters()):
        raise NotFusedError("its model has parameters that require a gradient and are not the optimizer's")
    return kind, tuple(groups)


def criterion_key(run: Run) -> Hashable:
    """Returns a key of the loss of a run: the same for one that computes the same.

    Raises:
        NotFusedError: It cannot be compared.
    """
    criterion = run.stepper.criterion
    given = {"loss_fn": criterion.loss_fn, "training_step": criterion.training_step, "batch_size": criterion.size}
    return tuple(
        None if value is None else key_of(value, f"its {name}", lambda part: None) for name, value in given.items()
    )


class Watch:
    """Tells whether the model or the optimizer of a run were changed, in what makes its shape.

    Args:
        run: The run, whose shape is known.
    """

    def __init__(self, run: Run) -> None:
        stepper = run.stepper
        self._model = stepper.model
        self._modules = dict(self._model.named_modules())
        self._names = {id(module): name for name, module in self._modules.items()}
        self._optimizer = stepper.optimizer
        self._tensors = [*self._model.parameters(), *self._model.buffers()]
        # A class that each run makes for itself may capture what changes.
        self._own_classes = {kind for kind in map(type, self._modules.values()) if not is_found(kind)}
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether it was changed since it was made."""
        try:
            return bool(self._look() != self._seen)
        except Exception:  # also of what refers to itself now, or a tensor that cannot be read
            return True

    def _look(self) -> list[Any]:
        modules = [(type(module), self._look_at(module)) for module in self._modules.values()]
        classes = [key_of_type(kind) for kind in self._own_classes]
        tensors = [(id(t), t.requires_grad, t.dtype, t.device, t.shape, _has_hooks(t)) for t in self._tensors]
        memory = _memory(self._model)
        optimizer = self._optimizer
        hooks = len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)
        groups = [
            {
                name: [id(p) for p in value] if name == "params" else value
                for name, value in group.items()
                if name in ("params", *_REFUSED_OPTIONS) or isinstance(value, Tensor)
            }
            | shared_options(group)
            for group in optimizer.param_groups
        ]
        shared = len(memory) - len(set(memory))
        return [modules, classes, tensors, shared, hooks, _has_a_step_of_its_own(optimizer), groups]

    def _look_at(self, module: nn.Module) -> dict[str, Hashable]:
        return {
            name: _identity(value) if name in INTERNAL else key_of(value, name, self._name_of)
            for name, value in vars(module).items()
        }

    def _name_of(self, module: nn.Module) -> str | None:
        return self._names.get(id(module))


def _identity(value: Any) -> Hashable:
    """Which objects are in a container of a module's own; a buffer may be equal to another one by chance."""
    if isinstance(value, dict):
        return tuple(value), tuple(map(id, value.values()))
    return frozenset(value) if isinstance(value, set) else value
