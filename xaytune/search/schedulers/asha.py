"""ASHA: asynchronous successive halving (Li et al., 2020), as Ray Tune's AsyncHyperBandScheduler decides."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np

from xaytune.search.method import Action, End, Result, Stop
from xaytune.search.schedulers.scheduler import WORST_SCORE, Scheduler, better_than_diverged
from xaytune.sweep.algorithms import AshaSpec
from xaytune.sweep.numbers import told_apart, trials, written
from xaytune.sweep.time_axis import DecisionPoints, TimeAxis


class AshaScheduler(Scheduler):
    """Stops a trial at a rung where it is not among the best 1 / `reduction_factor` of those that came before it.

    The first trials of a rung continue, whatever they are worth. Trials that diverged count as the worst, where
    Ray Tune leaves them out.
    """

    options_model = AshaSpec
    options: AshaSpec

    def setup(self) -> None:
        """Makes the rungs, the highest first."""
        first, factor = self.options.grace_period, self.options.reduction_factor
        # Ray's arithmetic, rounding errors and all.
        count = int(np.log(self.options.max_t / first) / np.log(factor) + 1)
        share = 1 - 1 / factor
        self._rungs = [_Rung(first * factor**k, share) for k in reversed(range(count))]

    @property
    def points(self) -> DecisionPoints:
        """Trials are judged at the rungs."""
        return DecisionPoints(TimeAxis(self.options.time_attr), self.options.rungs)

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        """Compares a trial with those that came to its rung before it; at `max_t` it is complete."""
        assert result.value is not None
        if result.time >= self.options.max_t:
            reason = f"reached max_t at {self.axis.at(result.time)}"
            return [Stop(trial=trial, reason=reason, status="completed")]
        rung = self._rung(trial, result.time)
        if rung is None:
            at = f"{self.axis.at(result.time)}: {written(result.value)}"
            return self.keep_training(trial, f"{at}, between two rungs")
        at = f"rung {math.ceil(rung.time)}"
        score, cutoff, compared = self.objective.score(result.value), rung.cutoff(), len(rung)
        rung.add(trial, score)
        if cutoff is None:
            return self.keep_training(trial, f"{at}: {written(result.value)} is the first there")
        if cutoff == WORST_SCORE:
            reason = f"{at}: {better_than_diverged(result.value, compared)}"
            return self.keep_training(trial, reason, compared=compared)
        value, worse = self.objective.value_of(cutoff), score < cutoff
        side = self.objective.describe_worse(worse=worse)
        own, other = told_apart(result.value, value)
        reason = f"{at}: {own} {side} the cut-off {other} of {trials(compared)}"
        if worse:
            return [Stop(trial=trial, reason=reason, cutoff=value, compared=compared)]
        return self.keep_training(trial, reason, cutoff=value, compared=compared)

    def on_diverged(self, trial: int, result: Result) -> Sequence[Action]:
        """Files a value that is not finite as the worst there is."""
        if result.due and result.time < self.options.max_t:
            self._file(trial, result.time, WORST_SCORE)
        return []

    def on_end(self, trial: int, end: End) -> Sequence[Action]:
        """Files what a trial was worth that ended by itself at a rung."""
        if end.last is not None and end.last.due and end.last.value is not None:
            self._file(trial, end.last.time, self.objective.score(end.last.value))
        return []

    def _file(self, trial: int, time: int, score: float) -> None:
        rung = self._rung(trial, time)
        if rung is not None:
            rung.add(trial, score)

    def _rung(self, trial: int, time: int) -> _Rung | None:
        """Returns the highest rung that a trial has come to and is not filed at."""
        return next((rung for rung in self._rungs if rung.time <= time and trial not in rung), None)


class _Rung:
    """The scores of the trials that came to a rung.

    Args:
        time: When a trial comes to it.
        share: The share of scores that is below its cut-off.
    """

    def __init__(self, time: float, share: float) -> None:
        self.time = time
        self._quantile = share * 100 / 100  # as numpy.nanpercentile rounds it
        self._trials: set[int] = set()
        self._scores: list[float] = []  # ascending

    def __len__(self) -> int:
        return len(self._scores)

    def __contains__(self, trial: int) -> bool:
        return trial in self._trials

    def add(self, trial: int, score: float) -> None:
        """Files the score of a trial."""
        self._trials.add(trial)
        bisect.insort(self._scores, score)

    def cutoff(self) -> float | None:
        """Returns the score that a trial has to reach; None of no scores.

        It is to the bit what numpy.percentile is. Between a trial that diverged and one that did not there is
        nothing: it is the score of the latter.
        """
        if not self._scores:
            return None
        position = (len(self._scores) - 1) * self._quantile
        below = math.floor(position)
        low, high = self._scores[below], self._scores[min(below + 1, len(self._scores) - 1)]
        if low == WORST_SCORE:
            return high if position > below else low
        part, distance = position - below, high - low
        return high - distance * (1 - part) if part >= 0.5 else low + distance * part
