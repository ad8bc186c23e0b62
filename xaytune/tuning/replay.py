"""Replay: a searcher and a judge brought back to where a sweep's journal ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ray.tune.experiment import Trial as TuneTrial

from xaytune.records.journal import Event
from xaytune.records.state import SweepState, TrialRecord
from xaytune.search.searcher import Searcher
from xaytune.sweep.spec import SweepSpec
from xaytune.tuning.judges import Judge
from xaytune.tuning.report import Assignment, StopRequest
from xaytune.tuning.source import outcome_of

__all__ = ["Replayed", "next_attempt", "replay"]


@dataclass
class Replayed:
    """What is left to do of a sweep.

    Attributes:
        unfinished: Trials to go on with, by number.
        verdicts: Why trials are to stop that were judged, but not told so any more.
    """

    unfinished: dict[int, TuneTrial] = field(default_factory=dict)
    verdicts: dict[int, StopRequest] = field(default_factory=dict)


def replay(
    spec: SweepSpec,
    events: Iterable[Event],
    state: SweepState,
    searcher: Searcher,
    judge: Judge,
    make_trial: Callable[[Assignment], TuneTrial],
) -> Replayed:
    """Asks, judges and tells in the order in which it was done.

    Args:
        spec: The sweep.
        events: Its journal.
        state: What follows from it.
        searcher: A new one.
        judge: A new one.
        make_trial: Makes Tune's trial of an assignment.
    """
    replayed = Replayed()
    time_attr = judge.points.time_attr
    for event in events:
        number = event.get("trial", -1)
        if event["event"] == "trial":
            suggestion = searcher.ask_again(event["config"])
            trial = make_trial(next_attempt(state.trials[number], suggestion.config))
            replayed.unfinished[number] = trial
            judge.scheduler.on_trial_add(None, trial)  # type: ignore[arg-type]
        elif event["event"] == "result":
            trial = replayed.unfinished[number]
            request = judge.verdict(None, trial, event[time_attr], event["value"], event.get("due", True))
            if request is not None:
                replayed.verdicts[number] = request
        elif event["event"] == "stop" and event.get("status") != "paused":
            replayed.verdicts[number] = StopRequest(event["reason"], event["status"])
        elif event["event"] == "end":
            trial = replayed.unfinished.pop(number)
            replayed.verdicts.pop(number, None)
            value = event["metrics"].get(spec.metric)
            judge.ended(None, trial, event[time_attr], value, event.get("due", True))
            searcher.tell(number, outcome_of(state.trials[number], spec))
    return replayed


def next_attempt(record: TrialRecord, config: dict[str, object]) -> Assignment:
    """Returns what a trial is given to do when it is begun, or begun again."""
    return Assignment(record.number, record.seed, config, record.attempts, tuple(sorted(record.checkpoints)))
