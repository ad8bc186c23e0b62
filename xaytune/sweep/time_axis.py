"""The time axis of a sweep: what a trial's age is counted in, and at which ages it is judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

TimeAttr = Literal["epoch", "global_step"]

# The ratio of a level to the one before.
_LEVEL_GROWTH = 1.5


def levels_of(grace_period: int | None, max_t: int) -> tuple[int, ...]:
    """Returns levels: grace_period (by default a twentieth of max_t), then each 1.5 times the last, and max_t."""
    level = min(grace_period or math.ceil(max_t / 20), max_t)
    levels = [level]
    while level < max_t:
        level = min(math.ceil(level * _LEVEL_GROWTH), max_t)
        levels.append(level)
    return tuple(levels)


class _Trained(Protocol):
    """What tells how far a trial has trained: it finished so many epochs, and steps."""

    @property
    def epoch(self) -> int: ...

    @property
    def global_step(self) -> int: ...


@dataclass(frozen=True)
class TimeAxis:
    """What the age of a trial is counted in: finished epochs, or optimizer steps.

    Attributes:
        time_attr: ``"epoch"`` or ``"global_step"``, as Ray Tune's schedulers call it.
    """

    time_attr: TimeAttr = "epoch"

    @property
    def by_step(self) -> bool:
        """Whether optimizer steps are counted."""
        return self.time_attr == "global_step"

    @property
    def unit(self) -> str:
        """The word for one unit: ``epoch`` or ``step``."""
        return "step" if self.by_step else "epoch"

    def of(self, *, epoch: int, global_step: int) -> int:
        """Returns the age of a trial that has finished so many epochs, and steps."""
        return global_step if self.by_step else epoch

    def reached_by(self, trained: _Trained) -> int:
        """Returns the age at which a trial is, or was."""
        return self.of(epoch=trained.epoch, global_step=trained.global_step)

    def in_event(self, event: Mapping[str, Any]) -> int:
        """Returns the age that an event of the journal tells."""
        time: int = event[self.time_attr]
        return time

    def at(self, time: int) -> str:
        """Returns an age as text: ``epoch 3``."""
        return f"{self.unit} {time}"

    def count(self, number: int) -> str:
        """Returns a number of units as text: ``1 epoch``, ``3 steps``."""
        return f"{number} {self.unit}" if number == 1 else f"{number} {self.unit}s"


STEPS = TimeAxis("global_step")


@dataclass(frozen=True)
class DecisionPoints:
    """When a trial is judged.

    Attributes:
        axis: What time is counted in.
        milestones: The times at which the search method decides, ascending; None: at every evaluation.
        every: Instead of milestones: the time between two decisions.
        pausing: Whether a trial may be paused where it is judged: it is saved there.
    """

    axis: TimeAxis = TimeAxis()
    milestones: tuple[int, ...] | None = None
    every: int | None = None
    pausing: bool = False

    @property
    def at_every_evaluation(self) -> bool:
        """Whether every evaluation is judged."""
        return self.milestones is None and self.every is None

    def after(self, time: int) -> float:
        """Returns the next time that is judged after one; infinity if there is none."""
        if self.every is not None:
            return (time // self.every + 1) * self.every
        return next((milestone for milestone in self.milestones or () if milestone > time), math.inf)


@dataclass(frozen=True)
class LevelPoints(DecisionPoints):
    """Levels of a training whose length is not given: each trial says it when it starts.

    Attributes:
        milestones: The levels; none until the length is known.
        grace_period: The first of them, where it is given.
    """

    milestones: tuple[int, ...] = ()
    grace_period: int | None = None

    def of_length(self, max_t: int) -> LevelPoints:
        """Returns the points of a training of so many epochs or steps."""
        return replace(self, milestones=levels_of(self.grace_period, max_t))
