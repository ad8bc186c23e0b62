"""Median stopping (Golovin et al., 2017), as Ray Tune's MedianStoppingRule decides.

But a trial that has too few others to compare with trains on, where Ray pauses it if others wait for a place; and
the last result of a trial that completed counts once, where it counts twice in Ray.
"""

from __future__ import annotations

import bisect
import math
from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from xaytune.search.method import Action, End, Result, Stop
from xaytune.search.schedulers.scheduler import WORST_SCORE, Scheduler, better_than_diverged
from xaytune.sweep.algorithms import MedianSpec
from xaytune.sweep.numbers import told_apart, trials, written
from xaytune.sweep.time_axis import DecisionPoints, TimeAxis


class MedianScheduler(Scheduler):
    """Stops a trial whose best value is worse than the median of the others' running averages at its age.

    Trials that diverged count as the worst.
    """

    options_model = MedianSpec
    options: MedianSpec

    def setup(self) -> None:
        """Begins without any curve."""
        self._curves: dict[int, _Curve] = {}
        # By the times at which trials were compared, those of all that have come so far.
        self._averages: dict[int, _Averages] = {}
        self._times: list[int] = []  # these times, ascending

    @property
    def points(self) -> DecisionPoints:
        """Trials are judged at every evaluation."""
        return DecisionPoints(TimeAxis(self.options.time_attr))

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        """Compares a trial with the others that are as old, or older."""
        assert result.value is not None
        curve = self._add(trial, result.time, self.objective.score(result.value))
        place = f"{self.axis.at(result.time)}: {written(result.value)}"
        if result.time < self.options.grace_period:
            return self.keep_training(trial, f"{place}, before grace_period: it is not compared")
        averages, own = self._averages_at(result.time), curve.average(result.time)
        others, required = averages.others(own), self.options.min_samples_required
        if others < required:
            have = f"{others} of the {required} other trials"
            return self.keep_training(trial, f"{place}, not compared: {have} that it takes have come as far")
        median = averages.median_of_others(own)
        if median == WORST_SCORE:
            reason = f"{self.axis.at(result.time)}: {better_than_diverged(result.value, others)}"
            return self.keep_training(trial, reason, compared=others)
        cutoff, worse = self.objective.value_of(median), median > curve.best
        best, other = told_apart(self.objective.value_of(curve.best), cutoff)
        side = self.objective.describe_worse(worse=worse)
        compared = f"the median {other} of the running averages of {trials(others)}"
        reason = f"{self.axis.at(result.time)}: its best value {best} {side} {compared}"
        if worse:
            return [Stop(trial=trial, reason=reason, cutoff=cutoff, compared=others)]
        return self.keep_training(trial, reason, cutoff=cutoff, compared=others)

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
        times = self._times
        passed = times[bisect.bisect_left(times, curve.reached) : bisect.bisect_right(times, time)]
        before = [curve.average(then) for then in passed]
        curve.add(time, score)
        for then, average in zip(passed, before, strict=True):
            self._averages[then].replace(average, curve.average(then))
        return curve

    def _averages_at(self, time: int) -> _Averages:
        if time not in self._averages:
            averages = (curve.average(time) for curve in self._curves.values())
            self._averages[time] = _Averages(average for average in averages if average is not None)
            bisect.insort(self._times, time)
        return self._averages[time]


class _Averages:
    """The running averages of trials at one time.

    Args:
        averages: In any order.
    """

    def __init__(self, averages: Iterable[float]) -> None:
        self._sorted = sorted(averages)

    def replace(self, before: float | None, after: float | None) -> None:
        """Takes in what the average of a trial is now; None: it has none."""
        if before is not None:
            del self._sorted[bisect.bisect_left(self._sorted, before)]
        if after is not None:
            bisect.insort(self._sorted, after)

    def others(self, own: float | None) -> int:
        """Returns how many there are beside one's own."""
        return len(self._sorted) - (own is not None)

    def median_of_others(self, own: float | None) -> float:
        """Returns the median of all but one's own, to the bit what numpy.median is.

        Between a trial that diverged and one that did not there is nothing: it is the average of the latter.
        """
        count = self.others(own)
        skipped = count if own is None else bisect.bisect_left(self._sorted, own)
        low, high = (self._sorted[k + (k >= skipped)] for k in ((count - 1) // 2, count // 2))
        if low == WORST_SCORE:
            return high
        return (low + high) / 2 if count % 2 == 0 else low


class _Curve:
    """The scores of a trial so far, and their running averages.

    Args:
        begin: The time from which on scores count in the averages.
    """

    def __init__(self, begin: int) -> None:
        self._begin = begin
        self.best = -math.inf
        self._times, self._scores, self._averages = array("q"), array("d"), array("d")

    @property
    def reached(self) -> float:
        """The time of the newest score that counts."""
        return self._times[-1] if self._times else -math.inf

    def add(self, time: int, score: float) -> None:
        self.best = max(self.best, score)
        if time >= self._begin:
            self._times.append(time)
            self._scores.append(score)
            self._averages.append(float(np.mean(self._scores)))

    def average(self, time: int) -> float | None:
        """Returns the average up to a time; None where the trial has not come so far, or it is too large."""
        if self.reached < time:
            return None
        count = bisect.bisect_right(self._times, time)
        average = self._averages[count - 1] if count else math.nan
        return average if math.isfinite(average) or average == WORST_SCORE else None
