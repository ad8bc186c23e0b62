"""What optimizers and schedulers were made with: of another configuration, a checkpoint gives only the state."""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiplicativeLR, ReduceLROnPlateau

from xaytune.trainer import hyperparameters
from xaytune.trainer.computed_schedules import only_computes

logger = logging.getLogger(__name__)

# What a scheduler's state says of where it is, which is no option of it.
_COUNTS = {"last_epoch", "_step_count", "_last_lr"}
# Hyperparameters of an optimizer, and the state of a scheduler of it, when the scheduler was made.
Settings = tuple[list[dict[str, Any]], Mapping[str, Any]]

# What schedulers are, and have done since they were made, by their names.
Described = Mapping[str, Mapping[str, Any]]


class MadeWith:
    """What optimizers and their schedulers were made with; they are added before a state is loaded."""

    def __init__(self) -> None:
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._schedulers: dict[str, Any] = {}
        self._hyperparameters: dict[str, list[dict[str, Any]]] = {}
        self._schedules: dict[str, dict[str, Any]] = {}
        # Steps that were taken before the scheduler of a name took none of them: it is another, or does not count.
        self._before: dict[str, int] = {}
        self._trained: list[torch.optim.Optimizer] = []

    def add(self, name: str, thing: Any) -> None:
        """Adds an optimizer or a scheduler, also one that Accelerate has prepared; others are passed over.

        It takes the place of what had its name. What an optimizer has become by training it was not made with: a
        scheduler that is made then is passed over.
        """
        thing = unwrapped(thing)
        if any(thing is known for known in (*self._optimizers.values(), *self._schedulers.values())):
            return
        of_optimizers: list[dict[str, Any]] = [self._optimizers, self._hyperparameters]
        for things in (*of_optimizers, self._schedulers, self._schedules, self._before):
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
        """Returns what they were made with, and what the schedulers have done since."""
        return {
            "hyperparameters": self._hyperparameters,
            "schedules": self._schedules,
            "schedulers": self._described(),
        }

    def follow(self, saved: Mapping[str, Any], begin_anew: Container[str] = ()) -> None:
        """Puts what they were made with in the place of what was loaded, where the saved ones were made otherwise.

        Where schedulers of an optimizer are of another kind than the saved ones, or gone, its rates are its own.

        Args:
            saved: What :meth:`state_dict` returned of the saved run; empty where that is not known.
            begin_anew: Those of another kind than the saved ones, of whose state nothing was loaded.
        """
        mine = self._described()
        theirs = saved.get("schedulers", mine)  # which an earlier version did not save
        for name in self._hyperparameters.keys() & saved.get("hyperparameters", {}).keys():
            optimizer = self._optimizers[name]
            fresh, then = self._hyperparameters[name], saved["hyperparameters"][name]
            if not len(optimizer.param_groups) == len(fresh) == len(then):
                logger.info("the optimizer has other groups of parameters than it began with: they stay as saved")
                continue
            if name not in begin_anew:
                hyperparameters.follow(optimizer, fresh, then)
            hyperparameters.note_stepped(optimizer)
            over, begun = _kinds_over(name, mine), saved["schedules"]
            others = over != _kinds_over(name, theirs)
            if others:
                hyperparameters.put_rates(optimizer, fresh)
            for scheduler in over.keys() & begun.keys():
                settings = (fresh, self._schedules[scheduler]), (then, begun[scheduler])
                another = others or name in begin_anew or is_another(*settings)
                self._follow_schedule(
                    scheduler, settings, theirs[scheduler], another=another, alone=len(over) == 1
                )
                self._before[scheduler] = theirs[scheduler]["steps"] - self._taken_by(scheduler)

    def _described(self) -> Described:
        """What schedulers are, and have done since they were made."""
        names = {id(optimizer): name for name, optimizer in self._optimizers.items()}
        return {
            name: {
                "optimizer": names.get(id(scheduler.optimizer)),
                "kind": kind_of(scheduler),
                "steps": self._before.get(name, 0) + self._taken_by(name),
                "factors": factors_of(scheduler),
            }
            for name, scheduler in self._schedulers.items()
        }

    def _taken_by(self, scheduler: str) -> int:
        """Returns how many steps a scheduler has taken since it was made."""
        return _steps_of(self._schedulers[scheduler].state_dict()) - _steps_of(self._schedules[scheduler])

    def _follow_schedule(
        self,
        name: str,
        settings: tuple[Settings, Settings],
        saved: Mapping[str, Any],
        *,
        another: bool,
        alone: bool,
    ) -> None:
        scheduler, ((fresh, begun), (_, was_begun)) = self._schedulers[name], settings
        another_kind = kind_of(scheduler) != saved["kind"]
        another = another or another_kind or has_other_functions(scheduler, saved["factors"])
        if another and alone and counts(scheduler):
            follow_from_its_beginning(scheduler, begun, fresh, saved["steps"])
        elif another_kind:  # other libraries have given it the state of the other one
            scheduler.load_state_dict(copy.deepcopy(dict(begun)))
        elif another:  # what rates are is not of its steps alone
            put_options(scheduler, begun, was_begun)


def _kinds_over(optimizer: str, schedulers: Described) -> dict[str, str]:
    """Returns the kinds of the schedulers of an optimizer, by their names."""
    return {name: of["kind"] for name, of in schedulers.items() if of["optimizer"] == optimizer}


def unwrapped(thing: Any) -> Any:
    """Returns what Accelerate has wrapped; anything else as it is."""
    inner = getattr(thing, "optimizer" if isinstance(thing, torch.optim.Optimizer) else "scheduler", None)
    return inner if isinstance(inner, (torch.optim.Optimizer, LRScheduler)) else thing


def kind_of(thing: Any) -> str:
    """Returns what an optimizer or a scheduler is, and of which parts: the state of another does not suit it."""
    thing = unwrapped(thing)
    parts = ", ".join(map(kind_of, getattr(thing, "_schedulers", ())))
    return f"{type(thing).__name__}({parts})" if parts else type(thing).__name__


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


def factors_of(scheduler: Any) -> list[float] | None:
    """Returns what a MultiplicativeLR has multiplied its rates by; None where that may not be asked."""
    if not isinstance(scheduler, MultiplicativeLR) or not only_computes(scheduler):
        return None
    steps = range(1, scheduler.last_epoch + 1)
    return [math.prod(float(function(step)) for step in steps) for function in scheduler.lr_lambdas]


def has_other_functions(scheduler: Any, saved_factors: list[float] | None = None) -> bool:
    """Whether a scheduler computes by functions that do not give the rates of the state that was loaded.

    Args:
        scheduler: The scheduler.
        saved_factors: What :func:`factors_of` returned of the saved one.
    """
    factors = factors_of(scheduler)
    if factors is not None and saved_factors is not None:  # its rates may have been changed besides
        return not np.allclose(factors, saved_factors, rtol=1e-6, atol=0.0)
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
