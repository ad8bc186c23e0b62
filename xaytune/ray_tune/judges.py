"""The judges there are: those of early stopping, and the choice of the one that a sweep asks for."""

from __future__ import annotations

import math
import sys
from typing import Literal, cast

import numpy as np
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule

from xaytune.ray_tune.judge import Comparison, Judge
from xaytune.ray_tune.pausing import HyperbandJudge, PopulationJudge
from xaytune.sweep.algorithms import AshaSpec, HyperbandSpec, MedianSpec, Pb2Spec, PbtSpec
from xaytune.sweep.spec import SweepSpec
from xaytune.trial.messages import DecisionPoints

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

    def _compare(self, trial: TuneTrial, time: int) -> Comparison:
        rung, recorded = next((rung, seen) for rung, seen in self._bracket._rungs if rung <= time)
        place = f"rung {math.ceil(rung)}"
        if not recorded or time >= self._max_t:
            return Comparison(place)
        # The bracket maximises: where less is better it keeps the values negated.
        cutoff = cast("float", self._bracket.cutoff(recorded)) * (1 if self._maximize else -1)
        return Comparison(place, cutoff, len(recorded))

    def _reason(self, against: Comparison, time: int, value: float, *, stops: bool) -> str:
        if time >= self._max_t:
            return f"reached max_t at {self._at(time)}"
        if against.cutoff is None:
            return f"{against.place}: {value:.4g} is the first there"
        side, others = self._side(stops=stops), _trials(against.trials)
        return f"{against.place}: {value:.4g} {side} the cut-off {against.cutoff:.4g} of {others}"

    def _status(self, time: int) -> Literal["completed", "stopped"]:
        return "completed" if time >= self._max_t else "stopped"


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

    def _compare(self, trial: TuneTrial, time: int) -> Comparison:
        others = [other for other in self._median._trials_beyond_time(time) if other is not trial]
        means = [mean for other in others if np.isfinite(mean := self._median._running_mean(other, time))]
        return Comparison(self._at(time), float(np.median(means)) if means else None, len(means))

    def _reason(self, against: Comparison, time: int, value: float, *, stops: bool) -> str:
        if against.cutoff is None:
            return f"{against.place}: {value:.4g}, with no other trial to compare it with"
        compared = f"the median {against.cutoff:.4g} of the running averages of {_trials(against.trials)}"
        if stops:
            return f"{against.place}: its best {self._side(stops=True)} {compared}"
        return f"{against.place}: goes on at {value:.4g}, beside {compared}"


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
