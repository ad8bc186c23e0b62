"""The model of a sweep: what every trial may still become, and what a new one would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xaytune.search.curves.acquisition import log_expected_improvement
from xaytune.search.curves.axes import Coordinates
from xaytune.search.curves.gp import ALL_TRIALS, NEW_TRIAL, GaussianProcess, Hyperparameters, fit
from xaytune.search.curves.observations import Observations
from xaytune.search.curves.observed import ObservedTrial, ObservedTrials

# Fewer values say nothing about the lengthscales.
MIN_VALUES = 4
# It is fitted again when there are so many times the values of the last fit, and one.
_GROWTH = 1.08


@dataclass(frozen=True)
class Forecast:
    """What the model thinks of a trial, and of what could be started instead.

    Attributes:
        best_candidate: Index of the candidate that promises most.
        candidate_promise: Logarithm of the improvement that is expected of it.
        own_promise: Logarithm of the improvement that is expected of the trial; -inf where there is none.
        best: The best score that is known, without its noise.
        predicted: Of the trial, by time: the score, and its deviation.
    """

    best_candidate: int
    candidate_promise: float
    own_promise: float
    best: float
    predicted: dict[int, tuple[float, float]]

    @property
    def goes_on(self) -> bool:
        """Whether the trial promises more than all that could be started."""
        return self.own_promise >= self.candidate_promise


class CurveModel:
    """A Gaussian process over what was seen. What it says follows from the values and their order alone.

    Args:
        trials: Those that were observed.

    Attributes:
        observations: What was seen of them.
    """

    def __init__(self, trials: ObservedTrials) -> None:
        self.observations = Observations()
        self._trials = trials
        self._fitted: tuple[int, Hyperparameters] | None = None

    def compare(
        self, trial: ObservedTrial | None, candidates: Coordinates, planned: Sequence[Coordinates]
    ) -> Forecast:
        """Compares a trial with configurations that have not been tried.

        The best of these is the one that promises most at the latest level of which something is known: an early
        one would favour what starts fast. That is asked of a configuration, not of one trial of it: else those
        beside the best one known would promise most for ever, for the luck that another trial may have. It is
        compared with the trial by what each promises at the level after its next, a new one at its second.

        Args:
            trial: The trial that has just reached a level; None to compare the candidates alone.
            candidates: What the model sees of each, ``[n, d]``; one at least.
            planned: The same of configurations that will be tried.

        Raises:
            numpy.linalg.LinAlgError: The values cannot be modelled.
        """
        level_after = self._trials.level_after
        process, best = self._condition(trial, planned)

        def promises(new: Coordinates, time: int, of: int) -> Coordinates:
            x = self._inputs(new, [time] * len(new))
            return log_expected_improvement(*process.posterior(x, _numbers([of] * len(new))), best)

        best_candidate = int(promises(candidates, self._trials.known_level(), ALL_TRIALS).argmax())
        promise = float(promises(candidates[[best_candidate]], level_after(0, 2), NEW_TRIAL)[0])
        own, predicted = -math.inf, {}
        if trial is not None:
            times = [level_after(trial.time, 2), level_after(trial.time), self._trials.max_t]
            ahead = self._inputs([trial.features] * len(times), times)
            mean, deviation = process.posterior(ahead, _numbers([trial.number] * len(times)))
            own = float(log_expected_improvement(mean[:1], deviation[:1], best)[0])
            predicted = {time: self._in_scores(m, d) for time, m, d in zip(times, mean, deviation, strict=True)}
        return Forecast(
            best_candidate=best_candidate,
            candidate_promise=promise,
            own_promise=own,
            best=float(self.observations.scores_at([best])[0]),
            predicted=dict(sorted(predicted.items())),
        )

    def _condition(
        self, trial: ObservedTrial | None, planned: Sequence[Coordinates]
    ) -> tuple[GaussianProcess, float]:
        """The process given all that was seen and what is on its way, and the best that is known."""
        x, trials, y = self._given(self.observations.count)
        others = [other for other in self._trials.running.values() if other is not trial]
        times = [self._trials.level_after(other.time) for other in others]
        times += [self._trials.level_after(0)] * len(planned)
        if times:
            ahead = self._inputs([*(other.features for other in others), *planned], times)
            numbers = _numbers([*(other.number for other in others), *([NEW_TRIAL] * len(planned))])
            x, trials = np.concatenate([x, ahead]), np.concatenate([trials, numbers])
        process = GaussianProcess(self._hyperparameters(), x, trials, y)
        # Not the best value: noise would win.
        return process, float(process.seen_mean.max())

    def _hyperparameters(self) -> Hyperparameters:
        """Fits to the first values, as many as there were when a fit was last due: a replay fits to the same."""
        due = MIN_VALUES
        while (following := math.floor(due * _GROWTH) + 1) <= self.observations.count:
            due = following
        if self._fitted is None or self._fitted[0] != due:
            self._fitted = due, fit(*self._given(due))
        return self._fitted[1]

    def _given(self, count: int) -> tuple[Coordinates, NDArray[np.int64], Coordinates]:
        sample = self.observations.sample(count)
        features = [self._trials.trials[trial].features for trial in sample.trials]
        return self._inputs(features, sample.times), sample.trials, sample.y

    def _inputs(
        self, features: Sequence[Coordinates] | Coordinates, times: Sequence[float] | Coordinates
    ) -> Coordinates:
        """Features and time, 0 at the first level and 1 at the last, ``[n, d + 1]``."""
        first, last = self._trials.levels[0], self._trials.max_t
        relative = np.log(np.asarray(times, float) / first) / (math.log(last / first) or 1.0)
        rows = np.asarray(features).reshape(len(relative), -1)
        return np.concatenate([rows, relative[:, None]], axis=1)

    def _in_scores(self, mean: float, deviation: float) -> tuple[float, float]:
        low, middle, high = self.observations.scores_at([mean - deviation, mean, mean + deviation])
        return float(middle), float(high - low) / 2


def _numbers(trials: Sequence[int]) -> NDArray[np.int64]:
    return np.array(trials, np.int64)
