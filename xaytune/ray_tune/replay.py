"""Replay: a searcher and a judge brought back to where a sweep's journal ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ray.tune.experiment import Trial as TuneTrial

from xaytune.ray_tune.judge import Exploit, Judge
from xaytune.ray_tune.source import outcome_of
from xaytune.records.journal import Event
from xaytune.records.state import SweepState, TrialRecord
from xaytune.search.searcher import Searcher
from xaytune.sweep.spec import SweepSpec
from xaytune.trial.messages import Assignment, StopRequest

__all__ = ["Replayed", "next_attempt", "replay"]


@dataclass
class Replayed:
    """What is left to do of a sweep.

    Attributes:
        unfinished: Trials to go on with, by number.
        verdicts: Why trials are to stop that were judged, but not told so any more.
        offers: Trials whose checkpoints were to be kept for others, and were not any more.
        exploits: Trials that were to take over a checkpoint, and did not any more.
    """

    unfinished: dict[int, TuneTrial] = field(default_factory=dict)
    verdicts: dict[int, StopRequest] = field(default_factory=dict)
    offers: dict[int, TuneTrial] = field(default_factory=dict)
    exploits: dict[int, Exploit] = field(default_factory=dict)


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
    events = list(events)
    reopened = {event["trial"]: index for index, event in enumerate(events) if event["event"] == "reopen"}
    time_attr = judge.points.time_attr
    for index, event in enumerate(events):
        number = event.get("trial", -1)
        if event["event"] == "trial":
            suggestion = searcher.ask_again(event["config"])
            trial = make_trial(next_attempt(state.trials[number], suggestion.config, time_attr))
            replayed.unfinished[number] = trial
            judge.add(None, trial)
        elif event["event"] == "result":
            trial = replayed.unfinished[number]
            trial.set_status(TuneTrial.RUNNING)
            request = judge.verdict(None, trial, event[time_attr], event["value"], event.get("due", True)).request
            if request is not None and request.status == "paused":
                trial.set_status(TuneTrial.PAUSED)
            elif request is not None:
                replayed.verdicts[number] = request
            replayed.verdicts |= {other.config["assignment"].number: stop for other, stop in judge.take_stops()}
            replayed.offers |= {other.config["assignment"].number: other for other in judge.take_offers()}
            replayed.exploits |= {exploit.number: exploit for exploit in judge.take_exploits()}
        elif event["event"] == "offer":
            replayed.offers.pop(number, None)
        elif event["event"] == "exploit":
            replayed.exploits.pop(number, None)
            trial = replayed.unfinished[number]
            trial.set_config({"assignment": next_attempt(state.trials[number], event["config"], time_attr)})
            judge.prepare(trial)
        elif event["event"] == "stop" and event.get("status") != "paused":
            replayed.verdicts[number] = StopRequest(event["reason"], event["status"])
        elif event["event"] == "end" and index > reopened.get(number, -1):
            trial = replayed.unfinished.pop(number)
            replayed.verdicts.pop(number, None)
            value = event["metrics"].get(spec.metric)
            judge.ended(None, trial, event[time_attr], value, event.get("due", True))
            trial.set_status(TuneTrial.TERMINATED)
            searcher.tell(number, outcome_of(state.trials[number], spec))
    for number, trial in replayed.unfinished.items():
        _make_ready(trial, replayed.verdicts.get(number), judge)
    return replayed


def _make_ready(trial: TuneTrial, stop: StopRequest | None, judge: Judge) -> None:
    """Lets a trial go on: one that waits for others stays paused, one that was judged where it waited ends."""
    if trial.status != TuneTrial.PAUSED or stop is not None:
        trial.set_status(TuneTrial.PENDING)
    if stop is not None and judge.points.pausing:
        assignment: Assignment = trial.config["assignment"]
        trial.set_config({"assignment": dataclasses.replace(assignment, stop=stop)})
        judge.prepare(trial)


def next_attempt(
    record: TrialRecord, config: dict[str, Any], time_attr: str, stop: StopRequest | None = None
) -> Assignment:
    """Returns what a trial is given to do when it is begun, or begun again.

    Args:
        record: What is known of it.
        config: Its configuration.
        time_attr: What time is counted in.
        stop: Why it is to end at once, if it is to.
    """
    return Assignment(
        number=record.number,
        seed=record.seed,
        config=config,
        attempt=record.attempts,
        checkpoints=tuple(sorted(record.checkpoints)),
        judged_until=record.results[-1][time_attr] if record.results else 0,
        stop=stop,
    )
