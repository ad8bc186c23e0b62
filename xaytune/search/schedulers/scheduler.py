"""The base class of schedulers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from xaytune.search.extension import Extension
from xaytune.search.method import Action, Continue, Decision, End, Result
from xaytune.sweep.numbers import trials, written
from xaytune.sweep.objective import Objective
from xaytune.sweep.time_axis import DecisionPoints, TimeAxis

__all__ = ["WORST_SCORE", "Scheduler", "better_than_diverged"]

# What a value that is not finite counts as: worse than every other.
WORST_SCORE = -math.inf


class Scheduler(Extension, ABC):
    """Decides at its decision points what happens to a trial.

    Its state follows from the calls below, in their order; what it draws at random it draws from generators that
    are seeded by the sweep's seed and these calls. Values are finite: a trial whose value is not has been stopped.
    """

    @property
    @abstractmethod
    def points(self) -> DecisionPoints:
        """When trials are judged."""

    @property
    def objective(self) -> Objective:
        """The metric, and which of two values is better."""
        return self.setting.objective

    @property
    def axis(self) -> TimeAxis:
        """What time is counted in."""
        return self.points.axis

    def on_add(self, trial: int, config: Mapping[str, Any]) -> None:
        """Learns of a new trial; they are numbered from 0."""

    @abstractmethod
    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        """Judges a trial whose value is finite.

        Returns:
            First what happens to the trial itself; then what this means for others.
        """

    def on_diverged(self, trial: int, result: Result) -> Sequence[Action]:
        """Learns that a trial stops because its value is not finite.

        Returns:
            What this means for other trials.
        """
        return []

    def on_end(self, trial: int, end: End) -> Sequence[Action]:
        """Learns that a trial has ended.

        Returns:
            What this means for other trials.
        """
        return []

    def next_to_resume(self, *, new_possible: bool) -> int | None:
        """Says which paused trial is to train again.

        Args:
            new_possible: Whether a new trial could begin instead.

        Returns:
            The trial; None where a new one comes first, or none can be resumed.
        """
        return None

    def on_resume(self, trial: int) -> None:
        """Learns that a paused trial trains again."""

    def recall(self, decision: Decision) -> None:
        """Learns what was decided in fact; see :meth:`SearchMethod.recall`."""

    def fall_back(self) -> None:
        """Learns that it takes too long to decide: what is cheaper is to be done from now on."""

    def keep_training(self, trial: int, reason: str, **details: Any) -> list[Action]:
        """Returns the one action that a trial continues."""
        return [Continue(trial=trial, reason=reason, **details)]


def better_than_diverged(value: float, count: int) -> str:
    """Returns why a trial continues where most of those that it would be compared with have diverged."""
    return f"{written(value)} is better than most of {trials(count)}, which diverged"
