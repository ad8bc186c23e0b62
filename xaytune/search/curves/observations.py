"""What was seen: the values of every trial at its decision points, and what a model is given of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from xaytune.search.curves.axes import Coordinates

# A model is given no more values than this: the time of a decision grows with the square, of a fit with the cube.
MAX_VALUES = 500
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Sample:
    """The values that a model is given.

    Attributes:
        trials: Which trial each is of.
        times: At which time.
        y: The values as normal scores: larger is better.
    """

    trials: NDArray[np.int64]
    times: Coordinates
    y: Coordinates


class Observations:
    """Values in the order in which they came. A score is a value turned so that larger is better."""

    def __init__(self) -> None:
        self._rows = np.empty((64, 3))
        self.count = 0

    def add(self, trial: int, time: int, score: float) -> None:
        """Adds a value."""
        if self.count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[self.count] = trial, time, score
        self.count += 1

    def sample(self, count: int) -> Sample:
        """Returns what a model is given of the first values: of all trials the last first, the best before others.

        A model sees the normal quantile of the rank of each value, equal ones sharing their mean: scale, skew and
        outliers do not matter.

        Args:
            count: How many of the values, in the order in which they came.
        """
        trials, times, scores = self._rows[:count].T
        ranks = _mean_ranks(scores)
        last = np.zeros(count, bool)
        last[count - 1 - np.unique(trials[::-1], return_index=True)[1]] = True
        chosen = np.sort(np.lexsort((-ranks, ~last))[:MAX_VALUES])
        y = np.array([_NORMAL.inv_cdf((rank + 0.5) / count) for rank in ranks[chosen]])
        return Sample(trials[chosen].astype(np.int64), times[chosen], y)

    def scores_at(self, y: Sequence[float] | Coordinates) -> Coordinates:
        """Returns which scores are at some normal quantiles of all that was seen."""
        scores = np.sort(self._rows[: self.count, 2])
        shares = np.array([_NORMAL.cdf(float(quantile)) for quantile in y])
        found: Coordinates = np.interp(shares * self.count - 0.5, np.arange(self.count), scores)
        return found


def _mean_ranks(values: Coordinates) -> Coordinates:
    """The rank of each value from 0, equal ones sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Coordinates = (ends - (counts + 1) / 2)[inverse]
    return ranks
