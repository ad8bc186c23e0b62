"""What runs that are trained side by side hold: what training changes must be one run's own."""

from __future__ import annotations

import weakref
from collections.abc import Callable, MutableMapping
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils.weak import WeakTensorKeyDictionary

from xaytune.trainer.random_state import held_by
from xaytune.trainer.reach import reachable
from xaytune.trainer.run import Run


class SharedError(ValueError):
    """Two runs share what training changes."""


_SHARED = (
    "runs that are trained side by side must not share what training changes (got the same parameter, buffer, "
    "random generator or workers in two of them): make a model and a loader for each"
)


class Held:
    """What runs hold and have held: parameters, buffers, random generators and loaders whose workers persist."""

    def __init__(self) -> None:
        # Whose it is, and itself, which keeps its place; by places in memory: views of one tensor are one.
        self._now: dict[int, tuple[Run, Any]] = {}
        # Of what there still is, also where its run has ended, whose it was.
        self._tensors: MutableMapping[Tensor, object] = WeakTensorKeyDictionary()
        # Parameters that are not trained may be shared; those of each run, and whose they are, None for several.
        self._frozen: dict[Run, list[Tensor]] = {}
        self._reads: MutableMapping[Tensor, object] = WeakTensorKeyDictionary()
        # What draws, and loaders: how it is found while there is one, and whose it was; numpy's generators stay,
        # for they have no weak references.
        self._others: dict[int, tuple[Callable[[], Any], object]] = {}

    def take(self, run: Run, owner: object) -> None:
        """Gives a run what it holds.

        Args:
            run: The run.
            owner: Stands for whoever may train the same again: its later runs. It must keep nothing alive.

        Raises:
            SharedError: Another run has it, or a run of another owner had it.
        """
        tensors, others = _of(run)
        held = dict(map(_memory_of, tensors)) | {id(other): other for other in others}
        owners = [self._tensors.get(tensor, owner) for tensor in tensors]
        owners += [self._reads.get(tensor, owner) for tensor in tensors]
        frozen: list[Tensor] = [p for p in run.stepper.model.parameters() if not p.requires_grad]
        owners += [self._tensors.get(tensor, owner) for tensor in frozen]
        known = [(other, self._others[id(other)]) for other in others if id(other) in self._others]
        owners += [whose for other, (find, whose) in known if find() is other]
        if held.keys() & self._now.keys() or any(one is not owner for one in owners):
            raise SharedError(_SHARED)
        self._now |= {place: (run, kept) for place, kept in held.items()}
        for tensor in tensors:
            self._tensors[tensor] = owner
        self._others |= {id(other): (_finder(other), owner) for other in others}
        if frozen:
            self._frozen[run] = frozen
        for tensor in frozen:
            self._reads[tensor] = owner if self._reads.get(tensor, owner) is owner else None

    def check(self, run: Run) -> None:
        """Looks whether a run still may train beside others.

        Raises:
            SharedError: A parameter that it shares with others, or did, was frozen and is trained now.
        """
        if any(tensor.requires_grad and self._reads[tensor] is None for tensor in self._frozen.get(run, ())):
            raise SharedError(_SHARED)

    def leave(self, run: Run) -> None:
        """Learns that a run has ended."""
        self._frozen.pop(run, None)
        self._now = {place: held for place, held in self._now.items() if held[0] is not run}
        self._others = {place: other for place, other in self._others.items() if other[0]() is not None}


def loader_reads_model(run: Run) -> bool:
    """Whether the loader of a run may look at its model while it trains."""
    stepper, parts = run.stepper, run.parts
    model = {id(part) for part in (*stepper.model.modules(), *stepper.model.parameters(), stepper.optimizer)}
    return any(id(value) in model for value in reachable([parts.data.loader], by_name=True))


def _of(run: Run) -> tuple[list[Tensor], list[Any]]:
    """Returns the tensors of a run, and what draws or keeps its place while batches are loaded."""
    stepper, parts = run.stepper, run.parts
    tensors: list[Tensor] = [*stepper.model.buffers(), *(p for p in stepper.model.parameters() if p.requires_grad)]
    tensors += [p for group in stepper.optimizer.param_groups for p in group["params"] if p.requires_grad]
    criterion, loader = stepper.criterion, parts.data.loader
    draws = held_by(*stepper.model.modules(), criterion.loss_fn, criterion.training_step)
    keeps = [loader] if getattr(loader, "persistent_workers", False) else []
    tensors = [tensor for tensor in tensors if is_lazy(tensor) or tensor.numel()]
    return tensors, [*parts.data.generators, *draws, *keeps]


def _finder(other: Any) -> Callable[[], Any]:
    """Returns what gives an object; it keeps one that has no weak references, such as a generator of numpy."""
    try:
        return weakref.ref(other)
    except TypeError:
        return lambda: other


def _memory_of(tensor: Tensor) -> tuple[int, Any]:
    """Returns the place of a tensor in memory, and what keeps it: itself where its numbers have no such place."""
    try:
        place = tensor.data_ptr()
    except (RuntimeError, ValueError):  # it is sparse, or not yet initialized
        place = 0
    return (place, tensor.untyped_storage()) if place else (id(tensor), tensor)
