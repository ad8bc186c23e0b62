"""Numbers to draw: learning curves, the best value so far, and rungs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from xaytune.records import history
from xaytune.records.journal import Event
from xaytune.records.results import Results
from xaytune.records.state import SweepState
from xaytune.records.trial_record import TrialRecord
from xaytune.records.uptime import timed
from xaytune.sweep.time_axis import STEPS, TimeAxis

# A curve is drawn by so many points at most.
_MOST_POINTS = 200


@dataclass(frozen=True)
class DrawnCurve:
    """The sweep's metric over the training of a trial.

    Attributes:
        trial: The trial.
        times: Epochs or steps finished, ascending.
        values: The metric there.
    """

    trial: TrialRecord
    times: list[int]
    values: list[float]


def curve_axis(sweep: SweepState) -> TimeAxis:
    """Returns what curves are drawn over: the sweep's own time, but steps where no trial has two epochs."""
    one_epoch = all(trial.epoch <= 1 for trial in sweep.trials.values())
    return STEPS if one_epoch else sweep.axis


def learning_curves(results: Results) -> list[DrawnCurve]:
    """Returns the curve of each trial that reported the metric."""
    metric, axis = results.sweep.spec["metric"], curve_axis(results.sweep)
    curves = []
    for trial in results.trials:
        times, values = history.measured(results.history(trial.number), metric, axis, trial.epoch)
        if not times:  # its history is lost
            judged = {
                axis.reached_by(result): result.value for result in trial.results if result.value is not None
            }
            if trial.metrics.get(metric) is not None:
                judged.setdefault(axis.reached_by(trial), trial.metrics[metric])
            times, values = list(judged), list(judged.values())
        if times:
            kept = _shape(values)
            curves.append(DrawnCurve(trial, [times[i] for i in kept], [values[i] for i in kept]))
    return curves


def _shape(values: Sequence[float]) -> list[int]:
    """Which of many values are drawn: the smallest and the largest of each stretch, and where the curve ends."""
    if len(values) <= _MOST_POINTS:
        return list(range(len(values)))
    width = -(-2 * len(values) // _MOST_POINTS)
    stretches = [range(begin, min(begin + width, len(values))) for begin in range(0, len(values), width)]
    kept = {choose(stretch, key=values.__getitem__) for stretch in stretches for choose in (min, max)}
    return sorted(kept | {0, len(values) - 1})


@dataclass(frozen=True)
class BestSoFar:
    """The best value so far, after each event that raised it, and at the end.

    Attributes:
        axis: What training is counted in.
        seconds: That the sweep had run.
        trained: Epochs or steps that all trials together had finished.
        best: The best value until then.
    """

    axis: TimeAxis
    seconds: list[float] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)
    best: list[float] = field(default_factory=list)

    def add(self, seconds: float, trained: int, value: float) -> None:
        """Takes in the best value at a time."""
        self.seconds.append(seconds)
        self.trained.append(trained)
        self.best.append(value)


def trained(sweep: SweepState, axis: TimeAxis) -> int:
    """Returns the epochs or steps that all trials together have finished."""
    return sum(trial.global_step for trial in sweep.trials.values()) if axis.by_step else sweep.epochs


def progress(sweep: SweepState, events: Iterable[Event], axis: TimeAxis) -> BestSoFar:
    """Returns how the best value of a sweep grew; trials that failed in the end, or were skipped, do not count.

    Args:
        sweep: The sweep.
        events: Of its journal.
        axis: What training is to be counted in.
    """
    found, seconds = BestSoFar(axis), 0.0
    reached: dict[int, int] = {}  # epochs or steps that trials had finished
    for seconds, event in timed(events):
        if "best" not in event:
            continue
        # What a trial trains again after it has lost its process adds nothing.
        reached[event["trial"]] = max(reached.get(event["trial"], 0), axis.in_event(event))
        best = event["best"]
        if best is not None and sweep.trials[event["trial"]].counted_value is not None:
            before = found.best[-1] if found.best else None
            if sweep.objective.is_better(best["value"], before):
                found.add(seconds, sum(reached.values()), best["value"])
    if found.best:
        found.add(seconds, sum(reached.values()), found.best[-1])
    return found


@dataclass(frozen=True)
class Rung:
    """What was decided at one time of training.

    Attributes:
        time: Epochs or steps finished.
        continued: Trials that continued, or were paused there.
        stopped: Trials that were stopped there.
        cutoff: The last value that a trial was compared with there; None if there never was one.
    """

    time: int
    continued: list[int]
    stopped: list[int]
    cutoff: float | None


def rungs(sweep: SweepState) -> list[Rung]:
    """Returns the times at which the scheduler judged, ascending, and what it decided there."""
    decided = [(trial, decision) for trial in sweep.trials.values() for decision in trial.decisions]
    found: dict[int, Rung] = {}
    for trial, decision in sorted(decided, key=lambda pair: pair[1].t):
        time = sweep.axis.reached_by(decision)
        before = found.get(time, Rung(time, [], [], None))
        stops = decision.decision == "stop" and trial.status != "completed"
        found[time] = Rung(
            time,
            before.continued if stops else [*before.continued, trial.number],
            [*before.stopped, trial.number] if stops else before.stopped,
            before.cutoff if decision.cutoff is None else decision.cutoff,
        )
    return [found[time] for time in sorted(found)]
