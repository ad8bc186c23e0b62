"""Judges: Ray Tune's early-stopping schedulers, asked for a verdict and its reason in words and numbers."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from xaytune.sweep.spec import AshaSpec, MedianSpec, SweepSpec
from xaytune.tuning.report import DecisionPoints, StopRequest

__all__ = ["AshaJudge", "Exploit", "FifoJudge", "Judge", "MedianJudge"]

# What a metric that is not finite counts as: worse than every other, and still a number to compute with.
_WORST = 1e300


@dataclass(frozen=True)
class Exploit:
    """A trial that is to go on from the checkpoint of another, with a configuration of its own."""

    trial: TuneTrial
    source: int
    config: dict[str, Any]

    @property
    def number(self) -> int:
        """The trial's number."""
        number: int = self.trial.config["assignment"].number
        return number


class Judge:
    """Asks one of Ray's schedulers about a trial.

    Attributes:
        points: When trials are to be judged.
        scheduler: Ray's scheduler, which keeps what it saw of every trial.
    """

    def __init__(self, spec: SweepSpec, scheduler: TrialScheduler, points: DecisionPoints) -> None:
        self.points = points
        self.scheduler = scheduler
        self._metric, self._maximize = spec.metric, spec.mode == "max"

    def prepare(self, trial: TuneTrial) -> None:
        """Lets the scheduler find in a trial's configuration what it may change."""

    def add(self, controller: Any, trial: TuneTrial) -> None:
        """Takes in a new trial."""
        self.scheduler.on_trial_add(controller, trial)

    def choose(self) -> TuneTrial | None:
        """Returns the trial to run next; None leaves it to Tune, which runs them in the order they came."""
        return None

    def take_stops(self) -> list[tuple[TuneTrial, StopRequest]]:
        """Returns the paused trials that a verdict on another one stopped, and why."""
        return []

    def take_offers(self) -> list[TuneTrial]:
        """Returns the trials whose newest checkpoints others may take over."""
        return []

    def take_exploits(self) -> list[Exploit]:
        """Returns the trials that take over a checkpoint of another."""
        return []

    def verdict(
        self, controller: Any, trial: TuneTrial, time: int, value: float | None, due: bool
    ) -> StopRequest | None:
        """Judges a trial at a decision point.

        Args:
            controller: Tune's.
            trial: The trial.
            time: Epochs or steps finished.
            value: The metric; None where it is not finite.
            due: Whether the scheduler judges here.

        Returns:
            Why the trial is to stop, or to pause; None if it is to go on.
        """
        if value is None or not math.isfinite(value):
            if due:
                worst = -_WORST if self._maximize else _WORST
                self.scheduler.on_trial_result(controller, trial, self._result(time, worst))
            return self._diverged(time)
        reason = self._reason(trial, time, value)
        decision = self.scheduler.on_trial_result(controller, trial, self._result(time, value))
        return reason if decision == TrialScheduler.STOP else None

    def ended(self, controller: Any, trial: TuneTrial, time: int, value: float | None, due: bool) -> None:
        """Takes in that a trial ended: a run that was finished at a decision point counts there."""
        if due and value is not None and math.isfinite(value):
            self.scheduler.on_trial_complete(controller, trial, self._result(time, value))
        else:
            self.scheduler.on_trial_remove(controller, trial)

    def _reason(self, trial: TuneTrial, time: int, value: float) -> StopRequest:
        """Words why the scheduler would stop the trial here; asked before the scheduler takes the value in."""
        raise NotImplementedError

    def _diverged(self, time: int) -> StopRequest:
        # The journal knows no more of such a value: a verdict reads the same when it is replayed.
        return StopRequest(f"diverged: {self._metric} is not finite at {self._at(time)}")

    def _at(self, time: int) -> str:
        return f"{'epoch' if self.points.time_attr == 'epoch' else 'step'} {time}"

    def _result(self, time: int, value: float) -> dict[str, Any]:
        return {self.points.time_attr: time, self._metric: value}


class FifoJudge(Judge):
    """Lets every trial train to its end."""

    def __init__(self, spec: SweepSpec) -> None:
        super().__init__(spec, FIFOScheduler(), DecisionPoints("epoch", ()))


class AshaJudge(Judge):
    """Asks Ray's ASHA."""

    def __init__(self, spec: SweepSpec, options: AshaSpec) -> None:
        self._max_t = options.max_t
        self._asha = AsyncHyperBandScheduler(
            time_attr=options.time_attr,
            metric=spec.metric,
            mode=spec.mode,
            max_t=options.max_t,
            grace_period=options.grace_period,
            reduction_factor=options.reduction_factor,
        )
        (self._bracket,) = self._asha._brackets
        super().__init__(spec, self._asha, DecisionPoints(options.time_attr, options.rungs))

    def _reason(self, trial: TuneTrial, time: int, value: float) -> StopRequest:
        if time >= self._max_t:
            return StopRequest(f"reached max_t at {self._at(time)}", status="completed")
        rung, recorded = next((rung, seen) for rung, seen in self._bracket._rungs if rung <= time)
        if not recorded:
            return StopRequest("")  # the first at a rung is never stopped
        # The bracket maximises: where less is better it keeps the values negated.
        cutoff = cast("float", self._bracket.cutoff(recorded)) * (1 if self._maximize else -1)
        side = "below" if self._maximize else "above"
        return StopRequest(
            f"rung {math.ceil(rung)}: {value:.4g} is {side} the cut-off {cutoff:.4g} of {_trials(len(recorded))}"
        )


class MedianJudge(Judge):
    """Asks Ray's median stopping rule."""

    def __init__(self, spec: SweepSpec, options: MedianSpec) -> None:
        self._median = MedianStoppingRule(
            time_attr=options.time_attr,
            metric=spec.metric,
            mode=spec.mode,
            grace_period=options.grace_period,
            min_samples_required=options.min_samples_required,
            # A pause would yield the actor to another trial; this rule is to stop trials only.
            min_time_slice=sys.maxsize,
        )
        super().__init__(spec, self._median, DecisionPoints(options.time_attr, None))

    def _reason(self, trial: TuneTrial, time: int, value: float) -> StopRequest:
        others = [other for other in self._median._trials_beyond_time(time) if other is not trial]
        means = [mean for other in others if np.isfinite(mean := self._median._running_mean(other, time))]
        if not means:
            return StopRequest("")  # too few to compare with: never stopped
        side = "below" if self._maximize else "above"
        return StopRequest(
            f"{self._at(time)}: its best is {side} the median {np.median(means):.4g} "
            f"of the running averages of {_trials(len(means))}"
        )


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"
