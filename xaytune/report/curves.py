"""Numbers to draw: learning curves, the best value so far, rungs, and what workers did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from xaytune.records.journal import Event
from xaytune.records.results import Results
from xaytune.records.state import SweepState, TrialRecord

__all__ = [
    "Attempt",
    "Curve",
    "Progress",
    "Rung",
    "attempts",
    "learning_curves",
    "measured",
    "progress",
    "rungs",
    "time_axis",
]


@dataclass(frozen=True)
class Curve:
    """The sweep's metric over the training of a trial.

    Attributes:
        trial: The trial.
        times: Epochs or steps finished, ascending.
        values: The metric there.
    """

    trial: TrialRecord
    times: list[int]
    values: list[float]


def time_axis(sweep: SweepState) -> str:
    """Returns what the training of this sweep is counted in: ``epoch``, or ``global_step``."""
    by_step = sweep.spec["scheduler"].get("time_attr") == "global_step"
    one_epoch = all(trial.epoch <= 1 for trial in sweep.trials.values())
    return "global_step" if by_step or one_epoch else "epoch"


def learning_curves(results: Results, most: int = 200) -> list[Curve]:
    """Returns the curve of each trial that reported the metric, with so many points at most."""
    metric, axis = results.sweep.spec["metric"], time_axis(results.sweep)
    curves = []
    for trial in results.trials:
        history = results.history(trial.number)
        if metric in history:
            times, values = measured(history, metric, axis)
            stride = max(1, -(-len(times) // most))
            # The last point is always there: it is where the trial ended.
            kept = [*range(0, len(times) - 1, stride), len(times) - 1] if times else []
            curves.append(Curve(trial, [times[i] for i in kept], [values[i] for i in kept]))
    return curves


def measured(history: pd.DataFrame, metric: str, axis: str) -> tuple[list[int], list[float]]:
    """Returns the metric at the end of each epoch, or wherever it changed, and when that was.

    Args:
        history: Of a trial.
        metric: Its name.
        axis: ``epoch`` or ``global_step``.
    """
    if metric not in history:
        return [], []
    known = history[history[metric].notna()]
    if axis == "epoch":
        last = known.groupby("epoch", sort=True)[metric].last()
        return [int(epoch) + 1 for epoch in last.index], [float(value) for value in last]
    values = known[metric]
    changed = known[(values != values.shift()) | (known.index == known.index[-1:].max())]
    return [int(step) for step in changed["global_step"]], [float(value) for value in changed[metric]]


@dataclass(frozen=True)
class Progress:
    """The best value so far, after each event that raised it, and at the end.

    Attributes:
        seconds: That the sweep had run.
        epochs: That all trials together had finished.
        best: The best value until then.
    """

    seconds: list[float]
    epochs: list[int]
    best: list[float]


def progress(results: Results) -> Progress:
    """Returns how the best value of a sweep grew; trials that failed in the end do not count."""
    state = SweepState("")
    found = Progress([], [], [])
    better = max if results.sweep.maximize else min
    for event in results.events():
        state.apply(event)
        best = event.get("best")
        if best is not None and results.sweep.trials[event["trial"]].status != "failed":
            value = better([best["value"], *found.best[-1:]])
            if [value] != found.best[-1:]:
                _add(found, state, event["t"], value)
    if found.best:
        _add(found, state, results.sweep.ended or state.latest, found.best[-1])
    return found


def _add(found: Progress, state: SweepState, now: float, value: float) -> None:
    found.seconds.append(state.running_s(now))
    found.epochs.append(state.epochs)
    found.best.append(value)


@dataclass(frozen=True)
class Rung:
    """What was decided at one time of training.

    Attributes:
        time: Epochs or steps finished.
        went_on: Trials that were let go on, or were paused there.
        stopped: Trials that were stopped there.
        cutoff: The last value that a trial was compared with there; None if there never was one.
    """

    time: int
    went_on: list[int]
    stopped: list[int]
    cutoff: float | None


def rungs(sweep: SweepState) -> list[Rung]:
    """Returns the times at which the scheduler judged, ascending, and what it decided there."""
    decided = [(trial, decision) for trial in sweep.trials.values() for decision in trial.decisions]
    found: dict[int, Rung] = {}
    for trial, decision in sorted(decided, key=lambda pair: pair[1].t):
        time = decision.time(sweep.axis)
        before = found.get(time, Rung(time, [], [], None))
        stops = decision.decision == "stop" and trial.status != "completed"
        found[time] = Rung(
            time,
            before.went_on if stops else [*before.went_on, trial.number],
            [*before.stopped, trial.number] if stops else before.stopped,
            before.cutoff if decision.cutoff is None else decision.cutoff,
        )
    return [found[time] for time in sorted(found)]


@dataclass(frozen=True)
class Attempt:
    """A time that a trial had a process.

    Attributes:
        trial: Its number.
        worker: Node and process.
        begun: Unix seconds.
        ended: Unix seconds.
        how: The status it ended with; ``running`` if it has not.
    """

    trial: int
    worker: str
    begun: float
    ended: float
    how: str


def attempts(events: Iterable[Event]) -> list[Attempt]:
    """Returns when trials had which process, in the order in which they got it."""
    open_: dict[int, Event] = {}
    found: list[Attempt] = []
    latest = 0.0
    for event in events:
        if event["event"] == "sweep" and event["state"] == "running":  # what ran before was cut off
            found += [_attempt(start, latest, "failed") for start in open_.values()]
            open_.clear()
        latest, number = event["t"], event.get("trial", -1)
        if event["event"] == "start":
            open_[number] = event
        elif event["event"] in ("end", "pause", "failure", "exploit") and number in open_:
            how = event.get("status", {"pause": "paused", "exploit": "paused"}.get(event["event"], "failed"))
            found.append(_attempt(open_.pop(number), event["t"], how))
    found += [_attempt(event, latest, "running") for event in open_.values()]
    return sorted(found, key=lambda attempt: attempt.begun)


def _attempt(start: Event, ended: float, how: str) -> Attempt:
    return Attempt(start["trial"], f"{start['node']} {start['pid']}", start["t"], ended, how)
