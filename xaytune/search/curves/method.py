"""The search that reads learning curves: one model says which configuration is next, and which trial to stop.

A trial that reaches a level competes with configurations that have not been tried: where one of those promises
more, the trial is stopped, and that is next. It was chosen, with its constants, on benchmarks of learning curves
(``tests/benchmarks/search``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from xaytune.search.curves.axes import Coordinates
from xaytune.search.curves.candidates import STARTUP_TRIALS, Candidates
from xaytune.search.curves.model import MIN_VALUES, CurveModel, Forecast
from xaytune.search.curves.observed import ObservedTrial, ObservedTrials
from xaytune.search.extension import Extension
from xaytune.search.method import Action, Continue, Decision, Done, End, NewTrial, Next, Result, SearchMethod, Stop
from xaytune.sweep import values
from xaytune.sweep.algorithms import CurvesSpec, Options
from xaytune.sweep.numbers import written
from xaytune.sweep.time_axis import DecisionPoints, LevelPoints, TimeAxis, levels_of

# New configurations are drawn near so many of the best.
_NEAR_BEST = 6


class CurvesMethod(Extension, SearchMethod):
    """Stops and starts trials by a Gaussian process over configurations and time."""

    options_model: ClassVar[type[Options]] = CurvesSpec
    options: CurvesSpec

    def setup(self) -> None:
        """Begins without trials."""
        setting, options = self.setting, self.options
        self._objective = setting.objective
        self._num_trials = math.inf if setting.num_trials is None else setting.num_trials
        self._candidates = Candidates(setting.space, setting.seed)
        self._trials = ObservedTrials(limited=setting.num_trials is not None)
        self._model = CurveModel(self._trials)
        # What is tried next, in this order.
        self._planned = [dict(config) for config in setting.points_to_evaluate]
        for config in self._planned:
            self._candidates.take(config)
        self._planned_for: int | None = None  # the trial that was stopped for the last of them
        self._decisions = 0
        self._fallen_back = False
        axis, first = TimeAxis(options.time_attr), options.grace_period
        if options.max_t is None:
            self.points: DecisionPoints = LevelPoints(axis, grace_period=first)
        else:
            self.points = DecisionPoints(axis, levels_of(first, options.max_t))
            self._trials.levels = self.points.milestones or ()

    def set_max_t(self, max_t: int) -> None:
        """Learns when a trial has trained in full. Until then none is judged."""
        assert isinstance(self.points, LevelPoints), "the options say it"
        self.points = self.points.of_length(max_t)
        self._trials.levels = self.points.milestones

    def next(self) -> Next:
        """Says what is tried next: what is given, what was found when a trial was stopped, or something new."""
        if len(self._trials.trials) >= self._num_trials:
            return Done()
        config = self._planned[0] if self._planned else self._new_config()
        if config is None:
            return Done("every configuration of the space has been tried")
        self.adopt(config)
        return NewTrial(config)

    def adopt(self, config: Mapping[str, Any]) -> None:
        """Begins the trial of a configuration."""
        self._decisions += 1
        planned = self._planned.pop(0) if self._planned else config
        if not values.same(planned, config):  # a journal tells of another
            self._candidates.release(planned)
        point = self._candidates.take(config)
        self._trials.begin(point, self._features([point])[0])

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        """Judges a trial at a level."""
        self._decisions += 1
        decision = self._judge(self._trials.trials[trial], result)
        if isinstance(decision, Stop):
            self._trials.end(trial)
        return [decision]

    def on_end(self, trial: int, end: End) -> Sequence[Action]:
        """Learns that a trial has ended: what was seen of it stays."""
        if end.last is not None and end.last.due and end.last.value is not None:
            self._see(self._trials.trials[trial], end.last.time, end.last.value)
        self._trials.end(trial, completed=end.status == "completed")
        return []

    def recall(self, decision: Decision) -> None:
        """Takes a trial for what it was decided to be, and plans what was planned for it."""
        if self._planned and self._planned_for == decision.trial:
            self._candidates.release(self._planned.pop())
        if not isinstance(decision, Stop):
            self._trials.reopen(decision.trial)
            return
        self._trials.end(decision.trial)
        if (instead := decision.details.get("instead")) is not None:
            self._plan(values.read(instead), decision.trial)

    def fall_back(self, reason: str) -> None:
        """Leaves the model out from now on: trials are compared by successive halving, new ones are random."""
        self._fallen_back = True

    @property
    def _closing(self) -> bool:
        """Whether no trial is started instead of another: none are left to start, or all are few."""
        asked = len(self._trials.trials) + len(self._planned)
        return asked >= self._num_trials or self._num_trials <= STARTUP_TRIALS

    def _judge(self, trial: ObservedTrial, result: Result) -> Continue | Stop:
        number, at = trial.number, self.points.axis.at(result.time)
        if result.value is None:
            return Stop(trial=number, reason=f"{self._objective.metric} is not finite at {at}")
        if result.time <= trial.time:
            return Continue(trial=number, reason=f"was judged at {at} before")
        self._see(trial, result.time, result.value)
        if result.time >= self._trials.max_t:
            return Stop(trial=number, reason=f"trained in full, to {at}", status="completed")
        if self._trials.choose(trial, closing=self._closing):
            return Continue(trial=number, reason=f"at {at} it is to train in full, for few trials have")
        return self._compete(trial)

    def _compete(self, trial: ObservedTrial) -> Continue | Stop:
        """Compares a trial with what could be started instead."""
        if self._closing or self._fallen_back or not len(points := self._untried(trial)):
            return self._halve(trial)
        try:
            forecast = self._forecast(trial, points)
        except np.linalg.LinAlgError:
            return self._halve(trial)
        if forecast is not None and forecast.goes_on:
            return Continue(trial=trial.number, **self._words(trial, forecast))
        config = self._best_of(points, forecast)
        self._plan(config, trial.number)
        return Stop(trial=trial.number, **self._words(trial, forecast, config))

    def _plan(self, config: dict[str, Any], stopped: int) -> None:
        self._candidates.take(config)
        self._planned.append(config)
        self._planned_for = stopped

    def _halve(self, trial: ObservedTrial) -> Continue | Stop:
        """Compares a trial with others at its level, as successive halving does."""
        survives = self._trials.survives(trial)
        side = "is not" if survives else "is"
        why = "the model would take too long" if self._fallen_back else "no other is to be started for it"
        return (Continue if survives else Stop)(
            trial=trial.number,
            reason=f"{side} among the worst at {self.points.axis.at(trial.time)}; {why}",
            compared=len(self._trials.trials) - 1,
        )

    def _see(self, trial: ObservedTrial, time: int, value: float) -> None:
        score = self._objective.score(value)
        self._model.observations.add(trial.number, time, score)
        self._trials.reach(trial, time, score)

    def _new_config(self) -> dict[str, Any] | None:
        """Finds a configuration to try; None where all have been tried."""
        points = self._untried(None)
        if not len(points):
            return None
        try:
            forecast = self._forecast(None, points)
        except np.linalg.LinAlgError:
            forecast = None
        return self._best_of(points, forecast)

    @property
    def _starting(self) -> bool:
        """Whether the next trial is one of the first, which are spread over the space."""
        return len(self._trials.trials) + len(self._planned) < STARTUP_TRIALS

    def _untried(self, trial: ObservedTrial | None) -> Coordinates:
        """Draws what could be started instead of a trial, or beside all."""
        rng = np.random.default_rng([self.setting.seed, self._decisions, trial is not None])
        if self._starting:
            return self._candidates.first(len(self._trials.trials) + len(self._planned), rng)
        return self._candidates.draw(rng, [other.point for other in self._trials.best(_NEAR_BEST)])

    def _forecast(self, trial: ObservedTrial | None, points: Coordinates) -> Forecast | None:
        """Asks the model about a trial and what could be tried; None where it has no say, as few values are known.

        Raises:
            numpy.linalg.LinAlgError: The values cannot be modelled.
        """
        if self._starting or self._fallen_back or self._model.observations.count < MIN_VALUES:
            return None
        planned = [self._candidates.encoding.point(config) for config in self._planned]
        return self._model.compare(trial, self._features(points), list(self._features(planned)))

    def _best_of(self, points: Coordinates, forecast: Forecast | None) -> dict[str, Any]:
        """The configuration of the point that promises most; before the model has a say, of the first."""
        return self._candidates.encoding.config(points[0 if forecast is None else forecast.best_candidate])

    def _features(self, points: Sequence[Coordinates] | Coordinates) -> Coordinates:
        dimensions = self._candidates.encoding.dimensions
        return self._candidates.encoding.features(np.asarray(points).reshape(len(points), dimensions))

    def _words(
        self, trial: ObservedTrial, forecast: Forecast | None, instead: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Why a trial continues, or is stopped for a new configuration."""
        at = self.points.axis.at(trial.time)
        started = None if instead is None else values.write(instead)
        others = len(self._trials.trials) - 1
        if forecast is None:
            reason = f"few values are known at {at}: more configurations are tried first"
            return {"reason": reason, "compared": others, "details": {"instead": started}}
        value_of = self._objective.value_of
        predicted = {time: (value_of(score), deviation) for time, (score, deviation) in forecast.predicted.items()}
        words = " or ".join(
            f"{written(value)} ± {written(deviation, 2)} at {self.points.axis.at(time)}"
            for time, (value, deviation) in predicted.items()
        )
        promises = "promises more than" if instead is None else "promises less than"
        best = value_of(forecast.best)
        return {
            "reason": f"predicted {words} against a best of {written(best)}, {promises} a new trial",
            "cutoff": best,
            "compared": others,
            "details": {
                "predicted": [[time, value, deviation] for time, (value, deviation) in predicted.items()],
                "promise": forecast.own_promise,
                "promise_of_new": forecast.candidate_promise,
                "instead": started,
            },
        }
