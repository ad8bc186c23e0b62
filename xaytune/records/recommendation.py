"""Which configuration of a sweep to train again: that of the highest value may have been lucky."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xaytune.records.state import SweepState
from xaytune.records.trial_record import TrialRecord

# Trials trained in full that are enough to choose among them alone.
_ENOUGH = 3


@dataclass(frozen=True)
class Recommendation:
    """The trial whose configuration to train again.

    Attributes:
        trial: The trial.
        value: What it is chosen by: its value at `max_t`, or its best one.
        reason: Why this one, in words and numbers.
    """

    trial: TrialRecord
    value: float
    reason: str


def recommend(sweep: SweepState) -> Recommendation | None:
    """Chooses the best at `max_t` once three trials have reached it; before, and without `max_t`, the best of all.

    The best of many noisy values is a lucky one; what was trained in full is compared at one age. A trial that
    diverged after its best value is not to be trained again, unless all did.

    Returns:
        None while no trial has reported the metric.
    """
    best = sweep.best
    if best is None or best.value is None:
        return None
    metric, score, max_t = sweep.spec["metric"], sweep.objective.score, sweep.max_t
    highest = f"its {metric} reached {best.value:.6g}, better than any other trial's"
    if max_t is not None:
        full = [
            (score(value), -trial.number, trial, value)
            for trial in sweep.trials.values()
            if trial.status != "failed" and (value := _value_at(sweep, trial, max_t)) is not None
        ]
        at = sweep.axis.at(max_t)
        if len(full) >= _ENOUGH:
            _, _, trial, value = max(full, key=lambda one: one[:2])
            reason = (
                f"at {at} its {metric} is {value:.6g}, the best of the {len(full)} trials that were trained so far"
            )
            if trial.number != best.number:
                reason += (
                    f"; trial {best.number} reached {best.value:.6g} at another time, which may have been luck"
                )
            return Recommendation(trial, value, reason)
        highest += f"; {len(full)} reached {at}, too few to compare"
    stable = next((trial for trial in sweep.ranked() if not _diverged(trial, metric)), best)
    if stable is best or stable.value is None:
        return Recommendation(best, best.value, highest)
    reason = (
        f"its {metric} reached {stable.value:.6g}, the best of the trials that did not diverge; "
        f"trial {best.number} reached {best.value:.6g}, and diverged after that"
    )
    return Recommendation(stable, stable.value, reason)


def _diverged(trial: TrialRecord, metric: str) -> bool:
    """Whether the last value of a trial is no number."""
    last = trial.metrics.get(metric, 0.0)
    return last is None or (isinstance(last, float) and not math.isfinite(last))


def _value_at(sweep: SweepState, trial: TrialRecord, time: int) -> float | None:
    """The metric at a time: where it was judged there, or ended there by itself."""
    for result in reversed(trial.results):
        if sweep.axis.reached_by(result) == time:
            return result.value
    ended = sweep.axis.reached_by(trial)
    return trial.metrics.get(sweep.spec["metric"]) if trial.finished and ended == time else None
