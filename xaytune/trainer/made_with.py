"""What optimizers and schedulers were made with: of another configuration, a checkpoint gives only the state."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from xaytune.trainer import hyperparameters

logger = logging.getLogger(__name__)

# What a scheduler's state says of where it is, which is no option of it.
_COUNTS = {"last_epoch", "_step_count", "_last_lr"}
# Hyperparameters of an optimizer, and the state of a scheduler of it, when the scheduler was made.
Settings = tuple[list[dict[str, Any]], Mapping[str, Any]]


class MadeWith:
    """What optimizers and their schedulers were made with; they are added before a state is loaded."""

    def __init__(self) -> None:
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._schedulers: dict[str, Any] = {}
        self._hyperparameters: dict[str, list[dict[str, Any]]] = {}
        self._schedules: dict[str, dict[str, Any]] = {}
        self._trained: list[torch.optim.Optimizer] = []

    def add(self, name: str, thing: Any) -> None:
        """Adds an optimizer or a scheduler, also one that Accelerate has prepared; others are passed over.

        It takes the place of what had its name. What an optimizer has become by training it was not made with: a
        scheduler that is made then is passed over.
        """
        thing = unwrapped(thing)
        if any(thing is known for known in (*self._optimizers.values(), *self._schedulers.values())):
            return
        named: list[dict[str, Any]] = [self._optimizers, self._schedulers, self._hyperparameters, self._schedules]
        for things in named:
            things.pop(name, None)
        if getattr(thing, "optimizer", thing) in self._trained:
            return
        if isinstance(thing, torch.optim.Optimizer):
            self._optimizers[name] = thing
        elif isinstance(thing, LRScheduler):
            self._schedulers[name] = thing
            self._schedules[name] = copy.deepcopy(thing.state_dict())
        for known, optimizer in self._optimizers.items():  # a scheduler changes it when it is made
            if optimizer is getattr(thing, "optimizer", thing):
                self._hyperparameters[known] = hyperparameters.of(optimizer)

    def train(self) -> None:
        """Learns that those which were added are trained from here on."""
        self._trained = list(self._optimizers.values())

    def __contains__(self, name: str) -> bool:
        """Whether an optimizer or a scheduler of that name was added."""
        return name in self._optimizers or name in self._schedulers

    def rates(self, name: str) -> list[float] | None:
        """Returns the learning rates that an optimizer was made with, by its groups; None if it was not added."""
        return [group["lr"] for group in self._hyperparameters[name]] if name in self._hyperparameters else None

    def state_dict(self) -> dict[str, Any]:
        """Returns what they were made with."""
        return {"hyperparameters": self._hyperparameters, "schedules": self._schedules}

    def follow(self, saved: Mapping[str, Any], begin_anew: Container[str] = ()) -> None:
        """Puts what they were made with in the place of what was loaded, where the saved ones were made otherwise.

        Args:
            saved: What :meth:`state_dict` returned of the saved run; empty where that is not known.
            begin_anew: Optimizers of another kind than the saved ones, of whose state nothing was loaded.
        """
        for name in self._hyperparameters.keys() & saved.get("hyperparameters", {}).keys():
            optimizer = self._optimizers[name]
            fresh, then = self._hyperparameters[name], saved["hyperparameters"][name]
            if not len(optimizer.param_groups) == len(fresh) == len(then):
                logger.info("the optimizer has other groups of parameters than it began with: they stay as saved")
                continue
            if name not in begin_anew:
                hyperparameters.follow(optimizer, fresh, then)
            hyperparameters.note_stepped(optimizer)
            self._follow_schedules(optimizer, fresh, None if name in begin_anew else then, saved["schedules"])

    def _follow_schedules(
        self,
        optimizer: torch.optim.Optimizer,
        fresh: list[dict[str, Any]],
        then: list[dict[str, Any]] | None,
        saved: Mapping[str, dict[str, Any]],
    ) -> None:
        names = [name for name, scheduler in self._schedulers.items() if scheduler.optimizer is optimizer]
        for name in names:
            scheduler, begun = self._schedulers[name], self._schedules[name]
            if name not in saved:
                continue
            another = then is None or is_another((fresh, begun), (then, saved[name]))
            if len(names) == 1 and counts(scheduler) and (another or has_other_functions(scheduler)):
                steps = _steps_of(scheduler.state_dict()) - _steps_of(saved[name])
                follow_from_its_beginning(scheduler, begun, fresh, steps)
            elif another:  # what rates are is not of its steps alone
                put_options(scheduler, begun, saved[name])


def unwrapped(thing: Any) -> Any:
    """Returns what Accelerate has wrapped; anything else as it is."""
    inner = getattr(thing, "optimizer" if isinstance(thing, torch.optim.Optimizer) else "scheduler", None)
    return inner if isinstance(inner, (torch.optim.Optimizer, LRScheduler)) else thing


def counts(scheduler: Any) -> bool:
    """Whether the rates of a scheduler follow from how many steps it has taken."""
    return isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau)


def is_another(mine: Settings, saved: Settings) -> bool:
    """Whether a scheduler was made otherwise than the one whose state was saved."""
    if len(mine[0]) != len(saved[0]):
        return True
    rates = any(
        one.get(name) != other.get(name)
        for one, other in zip(mine[0], saved[0], strict=True)
        for name in hyperparameters.SCHEDULED
    )
    return rates or _differ(mine[1], saved[1])


def has_other_functions(scheduler: Any) -> bool:
    """Whether a scheduler computes by functions that do not give the rates of the state that was loaded."""
    if not isinstance(scheduler, LambdaLR):
        return False
    factors = [function(scheduler.last_epoch) for function in scheduler.lr_lambdas]
    expected = [float(rate) * float(factor) for rate, factor in zip(scheduler.base_lrs, factors, strict=True)]
    return not np.allclose(expected, [float(rate) for rate in scheduler.get_last_lr()], rtol=1e-6, atol=0.0)


def follow_from_its_beginning(
    scheduler: LRScheduler, begun: Mapping[str, Any], fresh: list[dict[str, Any]], steps: int
) -> None:
    """Takes the steps of a scheduler anew.

    Args:
        scheduler: The scheduler.
        begun: Its state when it was made.
        fresh: Hyperparameters of its optimizer then.
        steps: How many.
    """
    logger.info("the learning rate has another schedule than in the checkpoint: %d steps of it are taken", steps)
    hyperparameters.put_rates(scheduler.optimizer, fresh)
    scheduler.load_state_dict(copy.deepcopy(dict(begun)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, for steps beyond the last one it knows
        for _ in range(steps):
            try:
                scheduler.step()
            except ValueError:  # OneCycleLR's, for steps beyond its last one
                break


def put_options(scheduler: Any, begun: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Gives a scheduler its own options, where those that its loaded state was begun with are others.

    Args:
        scheduler: The scheduler.
        begun: Its state when it was made.
        saved: The same of the one whose state was loaded.
    """
    for name in (begun.keys() & saved.keys()) - _COUNTS:
        if name == "_schedulers":
            for part, mine, theirs in zip(scheduler._schedulers, begun[name], saved[name], strict=True):
                put_options(part, mine, theirs)
        elif hasattr(scheduler, name) and _differ(begun[name], saved[name]):
            setattr(scheduler, name, copy.deepcopy(begun[name]))


def _steps_of(state: Mapping[str, Any]) -> int:
    """Returns how many steps a scheduler has taken; one that chains others counts none itself."""
    while "last_epoch" not in state and state.get("_schedulers"):
        state = state["_schedulers"][0]
    return max(0, int(state.get("last_epoch", 0)))


def _differ(one: Any, other: Any) -> bool:
    return bool(_comparable(one) != _comparable(other))


def _comparable(state: Any) -> Any:
    """A state with tensors as numbers, which can be compared."""
    if isinstance(state, Mapping):
        return {key: _comparable(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_comparable(value) for value in state]
    return state.tolist() if isinstance(state, (torch.Tensor, np.ndarray, np.generic)) else state
