"""What runs that are trained side by side hold: what training changes must be one run's own."""

from __future__ import annotations

import functools
import itertools
import types
from collections import deque
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.weak import WeakTensorKeyDictionary

from xaytune.trainer.random_state import Generator, held_by
from xaytune.trainer.run import Run, workings

__all__ = ["Held", "SharedError", "reads_model"]


# Of what a loader or a schedule holds so many objects are looked at, and so many of each container.
_MOST, _MOST_OF_ONE = 5000, 100
_LEAVES = (type(None), bool, int, float, str, bytes, type, types.ModuleType, Tensor, np.ndarray, Optimizer)


class SharedError(ValueError):
    """Two runs share what training changes."""


class Held:
    """What runs hold and have held: parameters, buffers and random generators."""

    def __init__(self) -> None:
        self._now: dict[int, Run] = {}  # by addresses of memory, and generators: views of one tensor are one
        # Of what there still is, also where its run has ended, whose it was.
        self._tensors: MutableMapping[Tensor, object] = WeakTensorKeyDictionary()
        self._generators: dict[int, tuple[Generator, object]] = {}  # kept: numpy's have no weak references

    def take(self, run: Run, owner: object) -> None:
        """Gives a run what it holds.

        Args:
            run: The run.
            owner: Stands for whoever may train the same again: its later runs. It must keep nothing alive.

        Raises:
            SharedError: Another run has it, or a run of another owner had it.
        """
        tensors, generators = _of(run)
        held = _keys(tensors, generators)
        owners = [self._tensors.get(tensor, owner) for tensor in tensors]
        owners += [self._generators.get(id(generator), (generator, owner))[1] for generator in generators]
        if held & self._now.keys() or any(one is not owner for one in owners):
            raise SharedError(
                "runs that are trained side by side must not share what training changes (got the same parameter, "
                "buffer or random generator in two of them): make a model and a loader for each"
            )
        self._now |= dict.fromkeys(held, run)
        for tensor in tensors:
            self._tensors[tensor] = owner
        self._generators |= {id(generator): (generator, owner) for generator in generators}

    def leave(self, run: Run) -> None:
        """Learns that a run has ended."""
        self._now = {key: whose for key, whose in self._now.items() if whose is not run}


def reads_model(run: Run) -> str | None:
    """Names what of a run may look at its model while it trains: its loader or its schedule; None for neither."""
    stepper, _, parts = workings(run)
    model = {id(part) for part in (*stepper.model.modules(), *stepper.model.parameters())}
    for name, root in (("loader", parts.data.loader), ("schedule", parts.schedule.scheduler)):
        if _leads_to(root, model):
            return name
    return None


def _leads_to(root: Any, targets: Collection[int]) -> bool:
    """Whether an object holds one of those with these ids, at any depth; large ones are looked at in part."""
    seen: set[int] = set()
    queue = deque([root])
    while queue and len(seen) < _MOST:
        value = queue.popleft()
        if id(value) in targets:
            return True
        if id(value) not in seen and not isinstance(value, _LEAVES):
            seen.add(id(value))
            queue.extend(_within(value))
    return False


def _within(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(itertools.islice(value.values(), _MOST_OF_ONE))
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(itertools.islice(value, _MOST_OF_ONE))
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, types.FunctionType):
        return [*(cell.cell_contents for cell in value.__closure__ or ()), *(value.__defaults__ or ())]
    return list(getattr(value, "__dict__", {}).values())


def _of(run: Run) -> tuple[list[Tensor], list[Generator]]:
    stepper, _, parts = workings(run)
    tensors: list[Tensor] = [*stepper.model.buffers(), *(p for p in stepper.model.parameters() if p.requires_grad)]
    tensors += [p for group in stepper.optimizer.param_groups for p in group["params"] if p.requires_grad]
    objective = stepper.objective
    draws = held_by(*stepper.model.modules(), objective.loss_fn, objective.training_step)
    return [tensor for tensor in tensors if tensor.numel()], [*parts.data.generators, *draws]


def _keys(tensors: list[Tensor], generators: list[Generator]) -> set[int]:
    return {tensor.data_ptr() for tensor in tensors} | {id(generator) for generator in generators}
