"""The time axis of a sweep: what a trial's age is counted in, and at which ages it is judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["DecisionPoints", "TimeAttr", "TimeAxis"]

TimeAttr = Literal["epoch", "global_step"]


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

    def in_event(self, event: Mapping[str, Any]) -> int:
        """Returns the age that an event of the journal tells."""
        time: int = event[self.time_attr]
        return time

    def at(self, time: int) -> str:
        """Words an age: ``epoch 3``."""
        return f"{self.unit} {time}"

    def count(self, number: int) -> str:
        """Words a number of units: ``1 epoch``, ``3 steps``."""
        return f"{number} {self.unit}" if number == 1 else f"{number} {self.unit}s"


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
