"""Median stopping (Golovin et al., 2017), as Ray Tune's MedianStoppingRule decides."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np

from xaytune.search.method import Action, End, Result, Stop
from xaytune.search.schedulers.scheduler import WORST_SCORE, Scheduler, trials
from xaytune.sweep.algorithms import MedianSpec
from xaytune.sweep.time_axis import DecisionPoints, TimeAxis

__all__ = ["MedianScheduler"]


class MedianScheduler(Scheduler):
    """Stops a trial whose best value is worse than the median of the others' running averages at its age."""

    options_model = MedianSpec
    options: MedianSpec

    def setup(self) -> None:
        """Begins without any curve."""
        self._curves: dict[int, _Curve] = {}

    @property
    def points(self) -> DecisionPoints:
        """Trials are judged at every evaluation."""
        return DecisionPoints(TimeAxis(self.options.time_attr))

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        """Compares a trial with the others that are as old, or older."""
        assert result.value is not None
        curve = self._add(trial, result.time, self.objective.score(result.value))
        place = f"{self.axis.at(result.time)}: {result.value:.4g}"
        if result.time < self.options.grace_period:
            return self.keep_training(trial, f"{place}, before grace_period: it is not compared")
        others = [other.average(result.time) for number, other in self._curves.items() if number != trial]
        averages = [average for average in others if average is not None]
        required = self.options.min_samples_required
        if len(averages) < required:
            have = f"{len(averages)} of the {required} other trials"
            return self.keep_training(trial, f"{place}, not compared: {have} that it takes have come as far")
        median = float(np.median(averages))
        cutoff, worse = self.objective.score(median), median > curve.best
        compared = f"the median {cutoff:.4g} of the running averages of {trials(len(averages))}"
        best, side = self.objective.score(curve.best), self.objective.describe_worse(worse=worse)
        reason = f"{self.axis.at(result.time)}: its best value {best:.4g} {side} {compared}"
        if worse:
            return [Stop(trial=trial, reason=reason, cutoff=cutoff, compared=len(averages))]
        return self.keep_training(trial, reason, cutoff=cutoff, compared=len(averages))

    def on_diverged(self, trial: int, result: Result) -> Sequence[Action]:
        """Files a value that is not finite as the worst there is."""
        if result.due:
            self._add(trial, result.time, WORST_SCORE)
        return []

    def on_end(self, trial: int, end: End) -> Sequence[Action]:
        """Files what a trial was worth that ended by itself at an evaluation."""
        if end.last is not None and end.last.due and end.last.value is not None:
            self._add(trial, end.last.time, self.objective.score(end.last.value))
        return []

    def _add(self, trial: int, time: int, score: float) -> _Curve:
        curve = self._curves.setdefault(trial, _Curve(self.options.grace_period))
        curve.add(time, score)
        return curve


class _Curve:
    """The scores of a trial so far, and their running averages.

    Args:
        begin: The time from which on scores count in the averages.
    """

    def __init__(self, begin: int) -> None:
        self._begin = begin
        self.best = -math.inf
        self._times: list[int] = []
        self._scores: list[float] = []
        self._averages: list[float] = []

    def add(self, time: int, score: float) -> None:
        self.best = max(self.best, score)
        if time >= self._begin:
            self._times.append(time)
            self._scores.append(score)
            self._averages.append(float(np.mean(self._scores)))

    def average(self, time: int) -> float | None:
        """Returns the average up to a time; None where the trial has not come so far, or it is not finite."""
        if not self._times or self._times[-1] < time:
            return None
        count = bisect.bisect_right(self._times, time)
        average = self._averages[count - 1] if count else math.nan
        return average if math.isfinite(average) else None
