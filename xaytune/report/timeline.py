"""When trials had a process, and where the time of a sweep went."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from xaytune.records.journal import Event
from xaytune.records.state import SweepState
from xaytune.records.uptime import timed
from xaytune.report.terms import Terms
from xaytune.report.text import duration

# Less than what tells two times of the journal apart: a thousandth of a second.
_MOMENT = 1e-4
# A trial is called slow where a unit of its training took so many times as long as that of the median trial.
_SLOW = 1.5


@dataclass(frozen=True)
class AttemptSpan:
    """A time that a trial had a process.

    Attributes:
        trial: Its number.
        node: Where that was.
        begun: Seconds since the first trial was started, without the time in which no trial could run.
        ended: Likewise.
        how: The status it ended with; ``running`` if it has not, ``cut off`` if the driver was lost meanwhile.
        value: The best value that the trial had reached until then.
        config: The configuration that it had, as the journal has it.
        pid: The process that it had.
        process: Which of the places for processes that had: no two processes had one at the same time.
        lane: Which of the places in its process it had, where that trains several trials; 0 where it does not.
    """

    trial: int
    node: str
    begun: float
    ended: float
    how: str
    value: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    pid: int = 0
    process: str = ""
    lane: int = 0

    @property
    def place(self) -> str:
        """Which of the places for trials it had: no two attempts had one at the same time."""
        return f"{self.process}, {self.lane}" if self.lane else self.process


@dataclass(frozen=True)
class Timeline:
    """When trials had processes.

    Attributes:
        attempts: In the order in which they were begun.
        start_up: Seconds before the first trial was started, in all runs of the sweep together.
        deciding: Seconds that trials waited for decisions, together.
    """

    attempts: list[AttemptSpan]
    start_up: float
    deciding: float

    @property
    def places(self) -> list[str]:
        """The places that trials had, those of a process together."""
        order = {a.place: (len(a.process), a.process, a.lane) for a in self.attempts}
        return sorted(order, key=lambda place: order[place])

    @property
    def processes(self) -> dict[str, str]:
        """The places that processes had, by the first of the places for trials in each."""
        first: dict[str, str] = {}
        by_place = {attempt.place: attempt.process for attempt in self.attempts}
        for place in self.places:
            first.setdefault(by_place[place], place)
        return {place: process for process, place in first.items()}

    @property
    def span(self) -> float:
        """Seconds from the first trial's beginning to the last one's end."""
        return max((attempt.ended for attempt in self.attempts), default=0.0)

    @property
    def busy(self) -> float:
        """Seconds that trials had processes, together."""
        return sum(attempt.ended - attempt.begun for attempt in self.attempts)

    @property
    def training_share(self) -> float:
        """The share of the span in which a place had a trial."""
        return self.busy / (len(self.places) * self.span) if self.span else 1.0

    def parts(self) -> dict[str, float]:
        """Returns how many of the sweep's seconds each part of it took, the longest first."""
        places = max(1, len(self.places))
        parts = {
            "starting up": self.start_up,
            "deciding, while the trial waited": self.deciding / places,
            "training": (self.busy - self.deciding) / places,
            "places without a trial": self.span - self.busy / places,
        }
        return dict(sorted(parts.items(), key=lambda part: -part[1]))


def timeline(events: Iterable[Event]) -> Timeline:
    """Returns when trials had which process.

    What a run of the sweep takes until its first trial is started (Ray, imports) counts as start-up.
    """
    found = _Found()
    for seconds, event in timed(events):
        found.take(seconds, event)
    return found.timeline()


class _Found:
    """What the events tell of attempts, in the order in which they happened."""

    def __init__(self) -> None:
        self._attempts: list[AttemptSpan] = []
        self._open: dict[int, tuple[Event, float]] = {}  # by trial: its start, and when that was
        self._configs: dict[int, Mapping[str, Any]] = {}
        self._values: dict[int, float] = {}
        self._judged: dict[int, float] = {}  # when trials that wait for a decision began to
        self._start_up = self._deciding = 0.0
        self._now = 0.0  # without the seconds of starting up
        self._newest = 0.0  # seconds of the sweep at the newest event
        self._starting_since: float | None = None  # when a run began that has started no trial yet
        self._fused = False

    def take(self, seconds: float, event: Event) -> None:
        """Takes in the next event, which came after so many seconds of the sweep."""
        number, kind = event.get("trial", -1), event["event"]
        if kind == "sweep" and event["state"] == "running":
            self._begin_run(event)
        if event.get("best"):
            self._values[number] = event["best"]["value"]
        if kind == "start":
            self._start(number, seconds, event)
        self._newest = seconds
        if self._starting_since is None:
            self._now = seconds - self._start_up
        if kind == "result":
            self._judged[number] = self._now
        elif kind == "verdict" and number in self._judged:
            self._deciding += self._now - self._judged.pop(number)
        elif number in self._open and (how := _ending(event)) is not None:
            self._end(number, how)
        if "config" in event:  # of a new trial, or of one that has just taken over another
            self._configs[number] = event["config"]

    def timeline(self) -> Timeline:
        """Returns what was found."""
        for number in list(self._open):
            self._end(number, "running")
        place = _placed_together if self._fused else _placed
        attempts = sorted(self._attempts, key=lambda attempt: attempt.begun)
        return Timeline(place(attempts), self._start_up, self._deciding)

    def _begin_run(self, event: Event) -> None:
        for number in list(self._open):
            self._end(number, "cut off")
        self._starting_since = self._newest
        self._fused = event["spec"].get("fused", 1) != 1

    def _start(self, number: int, seconds: float, event: Event) -> None:
        if self._starting_since is not None:
            self._start_up += seconds - self._starting_since
            self._starting_since = None
        self._open[number] = event, seconds - self._start_up

    def _end(self, number: int, how: str) -> None:
        start, begun = self._open.pop(number)
        config, value = self._configs.get(number, {}), self._values.get(number)
        ended = max(begun, self._now)
        self._attempts.append(AttemptSpan(number, start["node"], begun, ended, how, value, config, start["pid"]))


def _ending(event: Event) -> str | None:
    """The status that an attempt ends with by an event; None where it does not end by it."""
    if event["event"] == "failure":  # one that is not retried is followed by the end of its trial
        moves = event.get("kind") == "shared"
        return ("paused" if moves else "failed") if event.get("retried") else None
    return {"end": event.get("status"), "pause": "paused", "exploit": "paused"}.get(event["event"])


def _placed(attempts: list[AttemptSpan]) -> list[AttemptSpan]:
    """Gives each attempt a place on its node: the first that is free."""
    free_from: dict[str, list[float]] = {}
    placed = []
    for attempt in attempts:
        place = _first_free(free_from.setdefault(attempt.node, []), attempt)
        placed.append(replace(attempt, process=f"{attempt.node} #{place}"))
    return placed


def _placed_together(attempts: list[AttemptSpan]) -> list[AttemptSpan]:
    """Gives each process a place on its node, and each attempt one in its process: the first that are free."""
    alive: dict[tuple[str, int], AttemptSpan] = {}
    for attempt in attempts:
        known = alive.setdefault((attempt.node, attempt.pid), attempt)
        alive[attempt.node, attempt.pid] = replace(known, ended=max(known.ended, attempt.ended))
    processes = {(one.node, one.pid): one.process for one in _placed(list(alive.values()))}
    free_from: dict[tuple[str, int], list[float]] = {}
    placed = []
    for attempt in attempts:
        process = attempt.node, attempt.pid
        lane = _first_free(free_from.setdefault(process, []), attempt)
        placed.append(replace(attempt, process=processes[process], lane=lane))
    return placed


def _first_free(free_from: list[float], attempt: AttemptSpan) -> int:
    """Takes the first place that is free for an attempt, and returns its number, from 1."""
    begun = attempt.begun + _MOMENT
    place = next((index for index, ended in enumerate(free_from) if ended <= begun), len(free_from))
    if place == len(free_from):
        free_from.append(0.0)
    free_from[place] = attempt.ended
    return place + 1


def slowest_words(line: Timeline, sweep: SweepState, terms: Terms) -> list[str]:
    """Says in sentences what took the time: the slowest part, the slowest trial, and the last one."""
    whole = line.start_up + line.span
    if not whole or not line.attempts:
        return []
    part, seconds = next(iter(line.parts().items()))
    sentences = [f"The slowest part was {part}: {duration(seconds)}, {seconds / whole:.0%} of {duration(whole)}."]
    sentences += _slow_trial(sweep, terms)
    last = max(line.attempts, key=lambda attempt: attempt.ended)
    others = [attempt.ended for attempt in line.attempts if attempt.trial != last.trial]
    alone = line.span - max([last.begun, *others])
    if others and len(line.places) > 1 and alone > 0.1 * line.span:
        sentences.append(f"For the last {duration(alone)} only trial {last.trial} had a process.")
    return sentences


def _slow_trial(sweep: SweepState, terms: Terms) -> list[str]:
    """The trial whose epochs (or steps) took longest, where that is much longer than usual."""
    paces = {
        trial.number: trial.seconds / done
        for trial in sweep.trials.values()
        if (done := terms.told_in.reached_by(trial)) and trial.seconds
    }
    if len(paces) < 3:
        return []
    usual, slowest = statistics.median(paces.values()), max(paces, key=lambda number: paces[number])
    if paces[slowest] < _SLOW * usual:
        return []
    config = terms.configuration(sweep.trials[slowest].config)
    unit = terms.told_in.unit
    article = "an" if unit == "epoch" else "a"
    return [
        f"The slowest trial was {slowest}, with {paces[slowest]:.3g} s {article} {unit} where the median trial "
        f"takes {usual:.3g} s: {config}."
    ]
