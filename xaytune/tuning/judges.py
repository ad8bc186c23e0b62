"""The judges there are: those of early stopping, and the choice of the one that a sweep asks for."""

from __future__ import annotations

import math
import sys
from typing import cast

import numpy as np
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule

from xaytune.sweep.spec import AshaSpec, HyperbandSpec, MedianSpec, Pb2Spec, PbtSpec, SweepSpec
from xaytune.tuning.judge import Judge
from xaytune.tuning.pausing import HyperbandJudge, PopulationJudge
from xaytune.tuning.report import DecisionPoints, StopRequest

__all__ = ["AshaJudge", "FifoJudge", "MedianJudge", "judge_for"]


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


def judge_for(spec: SweepSpec) -> Judge:
    """Returns the judge of a sweep's scheduler.

    Raises:
        SpecError: The scheduler needs a package that is not installed.
    """
    options = spec.scheduler
    if isinstance(options, AshaSpec):
        return AshaJudge(spec, options)
    if isinstance(options, MedianSpec):
        return MedianJudge(spec, options)
    if isinstance(options, HyperbandSpec):
        return HyperbandJudge(spec, options)
    if isinstance(options, (PbtSpec, Pb2Spec)):
        return PopulationJudge(spec, options)
    return FifoJudge(spec)
