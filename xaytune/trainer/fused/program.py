"""One program for the forward and backward passes of all members of a shape."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from xaytune.trainer.criterion import Criterion
from xaytune.trainer.evaluation import Evaluator
from xaytune.trainer.fused.dropout import Mask, Masks
from xaytune.trainer.fused.keys import INTERNAL, NotFusedError, key_of
from xaytune.trainer.fused.rows import Layout, WorkingRows
from xaytune.trainer.indexed import IndexedBatch, read_stacked
from xaytune.trainer.random_state import drawn_on_the_host
from xaytune.trainer.run import Run

# Where numbers tie, these have other gradients if many are computed at once.
_OF_ALL_NUMBERS = {getattr(of, name) for of in (torch, Tensor) for name in ("max", "min", "median", "nanmedian")}


def _embed(weight: Tensor, input: Tensor, padding_idx: int = -1, *others: bool) -> None:
    """Has the parameters of ``torch.embedding``, which says nothing of them itself."""


_EMBEDDINGS = {F.embedding: inspect.signature(F.embedding), torch.embedding: inspect.signature(_embed)}


class Passed(NamedTuple):
    """What a forward pass over one batch of each member gave.

    Attributes:
        values: ``loss`` and other numbers of each member (members,), by name.
        plain: What is the same for all members, and no tensor.
        buffers: As the pass left them (members, *shape), by name.
    """

    values: dict[str, Tensor]
    plain: dict[str, Any]
    buffers: dict[str, Tensor]

    def value(self, name: str) -> Any:
        """Returns a number of each member, or the one for all."""
        return self.values[name] if name in self.values else self.plain[name]


class _Pass(nn.Module):
    """A pass over a batch as a module, so that ``functional_call`` can exchange the tensors of the model.

    Args:
        model: The model.
        criterion: The loss.
        evaluator: Counts hits, in evaluation.
        weigh: Whether the weight of a batch is needed.
    """

    def __init__(
        self, model: nn.Module, criterion: Criterion, evaluator: Evaluator | None, *, weigh: bool
    ) -> None:
        super().__init__()
        self.model = model
        self.criterion, self.evaluator, self.weigh = criterion, evaluator, weigh

    def forward(self, batch: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
        result = self.criterion.loss(self.model, batch)
        given: dict[str, Any] = {"loss": result.loss, **{f"metric {n}": v for n, v in result.metrics.items()}}
        if self.weigh:
            given["weight"] = self.criterion.weight(batch, result)
        if self.evaluator is not None:
            given["hits"], given["judged"] = self.evaluator.hits(result)
        return given, dict(self.model.named_buffers())


class Program:
    """The passes of a shape.

    Args:
        run: One of its members; its model is copied.
        layout: Of the shape.

    Raises:
        NotFusedError: The model cannot be copied.
    """

    def __init__(self, run: Run, layout: Layout) -> None:
        stepper = run.stepper
        try:
            model = copy.deepcopy(stepper.model)
        except Exception as error:
            raise NotFusedError(f"its model cannot be copied ({type(error).__name__}: {error})") from error
        model.requires_grad_(False)
        for parameter in model.parameters():
            parameter.grad = None
        self._layout, self._precision = layout, stepper.precision
        self.masks = Masks(model)
        self._pads = False  # whether it has embeddings with padding
        self._ties = _ties(model)
        self._training = _Pass(model, stepper.criterion, None, weigh=stepper.window > 1)
        self._evaluation: _Pass | None = None
        if (evaluator := run.evaluator) is not None:
            evaluated = copy.deepcopy(model)
            evaluated.eval()
            self._evaluation = _Pass(evaluated, stepper.criterion, evaluator, weigh=True)

    def use_criterion_of(self, run: Run) -> None:
        """Computes with the loss of a member from now on: what an earlier one captured may be changed by now."""
        for each in (self._training, self._evaluation):
            if each is not None:
                each.criterion = run.stepper.criterion

    def learn_masks(self, taken: WorkingRows, batch: Any) -> list[Mask]:
        """Returns the masks that a forward pass over a batch of one member needs.

        Args:
            taken: Rows, of which the first is used.
            batch: Of the first member.

        Raises:
            NotFusedError: The forward pass changes more than buffers.
        """
        needed: list[Mask] = []
        self.masks.needed = needed
        tensors = {name: tensor[0] for name, tensor in taken.others.items()}
        tensors |= dict(zip(self._layout.names, [t[0] for t in self._layout.split(taken.values[:1])], strict=True))
        before, drawn = _attributes(self._training.model), drawn_on_the_host()
        copied = {f"model.{name}": tensor.clone() for name, tensor in tensors.items()}
        for name in self._layout.names:
            copied[f"model.{name}"].requires_grad_()
        flat, structure = tree_flatten(batch)
        leaves = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in flat]
        looking = _Looking()
        try:
            with looking, torch.enable_grad(), torch.random.fork_rng(devices=[]), self._precision.autocast():
                torch.func.functional_call(self._training, copied, (tree_unflatten(leaves, structure),))
        finally:
            self.masks.needed = None
        if any(isinstance(leaf, Tensor) and leaf._version for leaf in leaves):
            raise NotFusedError("its model or loss changes its batches in place")
        if looking.refused is not None:
            raise NotFusedError(looking.refused)
        if (changed := _changed(before, _attributes(self._training.model))) is not None:
            raise NotFusedError(f"its model changes {changed} in its forward pass")
        if drawn != drawn_on_the_host():
            raise NotFusedError("its model draws random numbers of Python or numpy in its forward pass")
        self._pads |= looking.pads
        return needed

    def train(
        self, parameters: Sequence[Tensor], others: Mapping[str, Tensor], batch: Any, masks: list[Tensor]
    ) -> Passed:
        """Runs a forward pass in training.

        Args:
            parameters: Those that are trained (members, *shape).
            others: The other tensors of the model, by name (members, *shape).
            batch: A batch of tensors (members, ...).
            masks: Of the dropout layers (members, ...).
        """
        return self._run(self._training, parameters, others, batch, masks, shared=False)

    def evaluate(self, taken: WorkingRows, batch: Any) -> Passed:
        """Runs a forward pass in evaluation.

        Args:
            taken: The rows of the members.
            batch: A batch that is the same for all of them.

        Raises:
            NotFusedError: It changes the model.
        """
        assert self._evaluation is not None
        before = _attributes(self._evaluation.model)
        with torch.no_grad():
            parameters = self._layout.split(taken.values)
            passed = self._run(self._evaluation, parameters, taken.others, batch, [], shared=True)
        changed = _changed(before, _attributes(self._evaluation.model))
        changed = changed or next(
            (name for name in self._layout.buffers if not _same(passed.buffers[name], taken.others[name])), None
        )
        if changed is not None:
            raise NotFusedError(f"its model changes {changed} where it is evaluated")
        return passed

    def _run(
        self,
        module: _Pass,
        parameters: Sequence[Tensor],
        others: Mapping[str, Tensor],
        batch: Any,
        masks: list[Tensor],
        *,
        shared: bool,
    ) -> Passed:
        flat, structure = tree_flatten(batch)
        places = [at for at, leaf in enumerate(flat) if isinstance(leaf, Tensor)]
        plain: dict[str, Any] = {}

        def one(
            tensors: dict[str, Tensor], leaves: list[Tensor], masks: list[Tensor]
        ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            mine = list(flat)
            for place, leaf in zip(places, leaves, strict=True):
                mine[place] = leaf
            self.masks.give(masks)
            batch = tree_unflatten(mine, structure)
            given, buffers = torch.func.functional_call(module, tensors, (batch,), tie_weights=self._ties)
            plain.update({name: value for name, value in given.items() if not isinstance(value, Tensor)})
            return {name: value for name, value in given.items() if isinstance(value, Tensor)}, buffers

        buffers = set(self._layout.buffers)
        # Those that a forward pass may change in place are copied: a step that fails changes nothing.
        tensors = {f"model.{n}": t.clone() if n in buffers else t for n, t in others.items()}
        tensors |= {f"model.{n}": t for n, t in zip(self._layout.names, parameters, strict=True)}
        run = torch.vmap(one, in_dims=(0, None if shared else 0, 0), randomness="error")
        padding = _WithPadding() if self._pads else contextlib.nullcontext()
        with _as_one_program(), padding, self._precision.autocast():
            values, left = run(tensors, [flat[place] for place in places], masks)
        return Passed(values, plain, left)


@contextlib.contextmanager
def _as_one_program() -> Iterator[None]:
    """Refuses operations that would be looped over members, and takes attention apart into products."""
    functorch: Any = torch._C._functorch
    before = functorch._is_vmap_fallback_enabled()
    functorch._set_vmap_fallback_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        functorch._set_vmap_fallback_enabled(before)


class _Looking(TorchFunctionMode):
    """Looks at what a forward pass does."""

    def __init__(self) -> None:
        self.pads = False  # whether there is an embedding with padding
        self.refused: str | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.pads |= _padding_of(func, args, kwargs or {}) is not None
        if func is Tensor.register_hook:
            self.refused = "its model or loss has hooks of activations"
        elif func in _OF_ALL_NUMBERS and len(args) == 1 and not kwargs and args[0].requires_grad:
            self.refused = (
                f"it takes the {func.__name__} of all numbers of a tensor: give a dim, or use amax, amin"
            )
        return func(*args, **kwargs or {})


class _WithPadding(TorchFunctionMode):
    """Gives the padding of embeddings no gradients, which torch forgets where many are computed at once."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **kwargs or {})
        padding = _padding_of(func, args, kwargs or {})
        return found if padding is None else torch.where(padding, found.detach(), found)


def _padding_of(function: Any, args: Any, kwargs: Any) -> Tensor | None:
    """Returns what of the input of an embedding is padding (..., 1); None where it has none."""
    if function not in _EMBEDDINGS:
        return None
    given = _EMBEDDINGS[function].bind(*args, **kwargs).arguments
    padding = given.get("padding_idx")
    if padding is None or (function is torch.embedding and padding == -1):
        return None
    is_padding: Tensor = given["input"] == padding % len(given["weight"])
    return is_padding.unsqueeze(-1)


def _ties(model: nn.Module) -> bool:
    """Whether a model has a tensor under several names: looking for those takes long at each step."""
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return len({id(tensor) for _, tensor in named}) < len(named)


def _attributes(model: nn.Module) -> list[tuple[str, str, Hashable]]:
    names = {id(module): name for name, module in model.named_modules()}
    return [
        (name, key, key_of(value, f"the model's {name}.{key}", lambda part: names.get(id(part))))
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if key not in INTERNAL and key not in ("masks", "number")
    ]


def _same(one: Tensor, other: Tensor) -> bool:
    if torch.equal(one, other):
        return True
    return one.is_floating_point() and torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)


def _changed(
    before: Sequence[tuple[str, str, Hashable]], after: Sequence[tuple[str, str, Hashable]]
) -> str | None:
    """Returns the name of an attribute that is not what it was."""
    known = {(name, key): value for name, key, value in before}
    for name, key, value in after:
        if (name, key) not in known or known[name, key] != value:
            return f"{name}.{key}".lstrip(".")
    return None


def stack(batches: Sequence[Any]) -> Any:
    """Returns batches as one batch of tensors (members, ...)."""
    if all(isinstance(batch, IndexedBatch) for batch in batches):
        tensors = batches[0].tensors
        if all(a is b for batch in batches for a, b in zip(batch.tensors, tensors, strict=True)):
            return read_stacked(batches)
        batches = [batch.read() for batch in batches]
    if all(type(batch) is list and all(type(part) is Tensor for part in batch) for batch in batches):
        return [torch.stack(parts) for parts in zip(*batches, strict=True)]  # as a loader over tensors has them
    flat = [tree_flatten(batch)[0] for batch in batches]
    structure = tree_flatten(batches[0])[1]
    stacked = [
        torch.stack(leaves) if isinstance(leaves[0], Tensor) else leaves[0] for leaves in zip(*flat, strict=True)
    ]
    return tree_unflatten(stacked, structure)
