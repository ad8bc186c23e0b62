"""Replay: a search method brought to where a sweep's journal ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xaytune.search.method import (
    Action,
    Continue,
    Decision,
    End,
    Exploit,
    KeepCheckpoint,
    Pause,
    Result,
    SearchMethod,
    Stop,
)
from xaytune.sweep import values

Event = Mapping[str, Any]


@dataclass
class Replayed:
    """What the journal leaves open: trials that have not ended, and decisions not carried out.

    Attributes:
        unfinished: Configurations of the trials that have not ended, by number.
        paused: Those of them that the method has paused: they wait until it says that they resume.
        stops: Why trials are to stop that were judged so, and have not ended yet.
        keeps: Trials whose checkpoints were to be kept for others, and were not any more.
        exploits: Trials that were to take over a checkpoint, and did not any more.
    """

    unfinished: dict[int, dict[str, Any]] = field(default_factory=dict)
    paused: set[int] = field(default_factory=set)
    stops: dict[int, Stop] = field(default_factory=dict)
    keeps: set[int] = field(default_factory=set)
    exploits: dict[int, Exploit] = field(default_factory=dict)


def replay(method: SearchMethod, events: Iterable[Event], metric: str) -> Replayed:
    """Gives a method the events of a journal, in their order.

    What the journal tells counts: where it was written by another version, and the method would decide otherwise
    now, the method learns of it (:meth:`SearchMethod.recall`).

    Args:
        method: A new one.
        events: The journal, oldest first.
        metric: The sweep's metric.

    Returns:
        What is left to do.
    """
    events = list(events)
    replaying = _Replaying(method, metric)
    reopened = {event["trial"]: index for index, event in enumerate(events) if event["event"] == "reopen"}
    for index, event in enumerate(events):
        handle = getattr(replaying, f"on_{event['event']}", None)
        # A trial that was restarted had not ended.
        if handle is not None and not (event["event"] == "end" and index < reopened.get(event["trial"], -1)):
            handle(event)
    return replaying.left


class _Replaying:
    """Gives a method one event after another, and keeps what it decides that is not carried out yet."""

    def __init__(self, method: SearchMethod, metric: str) -> None:
        self.left = Replayed()
        self._method, self._metric = method, metric
        self._decided: dict[int, Decision] = {}  # on the newest result of each trial
        self._failures: dict[int, str] = {}

    def on_trial(self, event: Event) -> None:
        config = values.read(event["config"])
        self._method.adopt(config)
        self.left.unfinished[event["trial"]] = config

    def on_result(self, event: Event) -> None:
        trial = event["trial"]
        self._trains(trial)
        self._not_taken_over(trial)
        self._take(self._method.on_result(trial, self._result(event, event["value"])))

    def on_verdict(self, event: Event) -> None:
        """What was decided then: it stands where it would be otherwise now."""
        trial, decision = event["trial"], event["decision"]
        decided = self._decided.get(trial)
        kind = {known.word: known for known in (Continue, Stop, Pause)}[decision]
        # That a trial takes over another's checkpoint has an event of its own.
        if isinstance(decided, (kind, Exploit)):
            return
        told = {name: event[name] for name in ("cutoff", "compared", "details") if name in event}
        self._recall(kind(trial=trial, reason=event["reason"], **told))

    def on_start(self, event: Event) -> None:
        self._trains(event["trial"])

    def on_fall_back(self, event: Event) -> None:
        self._method.fall_back(event["reason"])

    def on_max_t(self, event: Event) -> None:
        self._method.set_max_t(event["max_t"])

    def on_offer(self, event: Event) -> None:
        self.left.keeps.discard(event["trial"])

    def on_exploit(self, event: Event) -> None:
        trial, config = event["trial"], values.read(event["config"])
        decided = self.left.exploits.pop(trial, None)
        if decided is None or (decided.donor, decided.config) != (event["source"], config):
            self._recall(Exploit(trial=trial, reason="", donor=event["source"], config=config))
            self.left.exploits.pop(trial, None)
        self.left.unfinished[trial] = config

    def on_stop(self, event: Event) -> None:
        status = event.get("status", "stopped")
        if status != "paused" and not event.get("of_sweep"):
            self.left.stops[event["trial"]] = Stop(trial=event["trial"], reason=event["reason"], status=status)

    def on_failure(self, event: Event) -> None:
        self._failures[event["trial"]] = event.get("kind", "error")

    def on_reopen(self, event: Event) -> None:
        self._failures.pop(event["trial"], None)

    def on_end(self, event: Event) -> None:
        trial = event["trial"]
        self._not_taken_over(trial)
        status = "infeasible" if self._failures.pop(trial, None) in ("infeasible", "skipped") else event["status"]
        last = self._result(event, event["metrics"].get(self._metric))
        actions = self._method.on_end(trial, End(status, event["value"], last))  # type: ignore[arg-type]
        for known in (self.left.unfinished, self.left.stops, self._decided):
            known.pop(trial, None)
        self.left.paused.discard(trial)
        self.left.keeps.discard(trial)
        self._take(actions)

    def _result(self, event: Event, value: float | None) -> Result:
        time = self._method.points.axis.in_event(event)
        return Result(time, value, event["metrics"], event.get("seconds"), event.get("due", True))

    def _take(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, KeepCheckpoint):
                self.left.keeps.add(action.trial)
                continue
            trial = action.trial
            self._decided[trial] = action
            for known in (self.left.stops, self.left.exploits):
                known.pop(trial, None)
            if isinstance(action, (Pause, Exploit)):
                self.left.paused.add(trial)
            if isinstance(action, Stop):
                self.left.stops[trial] = action
                self.left.paused.discard(trial)
            if isinstance(action, Exploit):
                self.left.exploits[trial] = action

    def _recall(self, decision: Decision) -> None:
        self._method.recall(decision)
        self.left.paused.discard(decision.trial)
        self._take([decision])  # type: ignore[list-item]

    def _trains(self, trial: int) -> None:
        """A trial that was paused trains again."""
        if trial in self.left.paused and trial not in self.left.exploits:
            self.left.paused.discard(trial)
            self._method.on_resume(trial)

    def _not_taken_over(self, trial: int) -> None:
        """A trial trained on that would take over a checkpoint now."""
        decided = self.left.exploits.pop(trial, None)
        if decided is not None:
            self._recall(Continue(trial=trial, reason=decided.reason))
