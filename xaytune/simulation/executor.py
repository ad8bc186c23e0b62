"""The simulated executor: workers that play curves in virtual time, and report to the driver what trials would."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from xaytune.driver.commands import Command, Release, RequestStop
from xaytune.driver.driver import Driver
from xaytune.records.state import Best
from xaytune.simulation.clock import VirtualClock
from xaytune.simulation.curves import Curve, Curves
from xaytune.sweep.objective import Objective
from xaytune.sweep.time_axis import DecisionPoints
from xaytune.trial.messages import Assignment, DecisionDue, Ended, Started, StopRequest

__all__ = ["Censored", "SimulatedExecutor"]


@dataclass
class Censored:
    """How many decisions rest on values that are not known.

    Attributes:
        decisions: Decisions taken, in all.
        missing: Times that a trial was to be judged after its curve was cut off: it ended there instead.
    """

    decisions: int = 0
    missing: int = 0


@dataclass
class _Play:
    """A trial as it plays its curve.

    Attributes:
        curve: The curve.
        time: How far it is.
        stop: Why it is to stop, if it is.
    """

    assignment: Assignment
    curve: Curve
    time: int = 0
    best: Best | None = None
    stop: StopRequest | None = None
    waiting: bool = field(default=False)


class SimulatedExecutor:
    """Plays the trials of a sweep.

    Args:
        driver: The driver.
        points: When trials are judged.
        objective: What is optimised.
        curves: What configurations are worth.
        workers: Trials at once.
        clock: The clock that the driver has, too.

    Attributes:
        censored: How many decisions rest on values that are not known.
    """

    def __init__(
        self,
        driver: Driver,
        points: DecisionPoints,
        objective: Objective,
        curves: Curves,
        workers: int,
        clock: VirtualClock,
    ) -> None:
        self.censored = Censored()
        self._driver, self._points, self._objective = driver, points, objective
        self._curves, self._workers, self._clock = curves, workers, clock
        self._plays: dict[int, _Play] = {}
        self._reached: dict[int, int] = {}  # where paused trials are
        self._events: list[tuple[float, int, int]] = []  # moment, order, trial
        self._order = itertools.count()

    def run(self) -> None:
        """Runs the sweep to its end."""
        self._start_all()
        while self._events:
            moment, _, trial = heapq.heappop(self._events)
            self._clock.set_forward(moment)
            self._perform(self._driver.tick())
            if trial in self._plays:
                self._advance(self._plays[trial])
            self._start_all()

    def _start_all(self) -> None:
        """Gives the free workers what the driver wants started."""
        while self._driver.running < self._workers and (assignment := self._driver.next()) is not None:
            curve = self._curves.of(assignment.trial, assignment.config)
            play = self._plays[assignment.trial] = _Play(assignment, curve, stop=assignment.stop)
            play.time = self._reached.pop(assignment.trial, 0)
            self._perform(self._driver.started(assignment.trial))
            self._perform(
                self._driver.receive(Started(trial=assignment.trial, attempt=assignment.attempt, node="simulated"))
            )
            self._schedule(play)

    def _schedule(self, play: _Play) -> None:
        """Lets a trial train until it has something to say."""
        until = play.time if play.stop is not None else self._next_time(play)
        delay = play.curve.seconds[until] - play.curve.seconds.get(play.time, 0.0) if until > play.time else 0.0
        play.time = until
        heapq.heappush(self._events, (self._clock.monotonic() + delay, next(self._order), play.assignment.trial))

    def _next_time(self, play: _Play) -> int:
        """When a trial is judged next, or its curve ends."""
        last = max(play.curve.values)
        if self._points.at_every_evaluation:
            return next((time for time in play.curve.values if time > play.time), last)
        after = self._points.after(play.time)
        diverged = next((t for t, value in play.curve.values.items() if t > play.time and value is None), last)
        return int(min(after, diverged, last))

    def _advance(self, play: _Play) -> None:
        """A trial is where it was to train to: it ends there, or is judged."""
        if play.stop is not None:
            self._end(play, play.stop.status, play.stop.reason)
            return
        last = max(play.curve.values)
        value = play.curve.values.get(play.time)
        due = self._points.at_every_evaluation or self._points.after(play.time - 1) == play.time
        if play.time >= last and play.curve.ends:
            self._end(play, "completed", None, due=due)
            return
        if value is None and play.time in play.curve.values:
            self._judge(play, due=due)  # it diverged
            return
        if play.time >= last and not due:
            self.censored.missing += 1
            self._end(play, "stopped", f"not known: the curve was cut off at {self._points.axis.at(last)}")
            return
        self._judge(play, due=due)

    def _judge(self, play: _Play, *, due: bool) -> None:
        self.censored.decisions += 1
        commands = self._driver.receive(DecisionDue(**self._progress(play), due=due))
        self._perform(commands)
        if play.assignment.trial not in self._plays:
            return
        if play.stop is None and play.time >= max(play.curve.values):
            self.censored.missing += 1
            last = self._points.axis.at(play.time)
            self._end(play, "stopped", f"not known: the curve was cut off at {last}")
            return
        self._schedule(play)

    def _end(self, play: _Play, status: str, reason: str | None, *, due: bool = False) -> None:
        del self._plays[play.assignment.trial]
        message = Ended(**self._progress(play), status=status, reason=reason, due=due)  # type: ignore[arg-type]
        self._perform(self._driver.receive(message))

    def _progress(self, play: _Play) -> dict[str, object]:
        known = {time: value for time, value in play.curve.values.items() if time <= play.time}
        at = max(known, default=0)
        value = known.get(at)
        number = math.nan if value is None else value
        metrics = {self._objective.metric: number}
        position = {"epoch": 0, "global_step": play.time} if self._points.axis.by_step else {
            "epoch": play.time,
            "global_step": play.time,
        }
        if value is not None and self._objective.is_better(value, None if play.best is None else play.best.value):
            play.best = Best(value, position["epoch"], position["global_step"], metrics)
        return {
            "trial": play.assignment.trial,
            "attempt": play.assignment.attempt,
            **position,
            "metrics": metrics,
            "best": play.best,
            "seconds": play.curve.seconds.get(play.time, 0.0),
        }

    def _perform(self, commands: Iterable[Command]) -> None:
        for command in commands:
            play = self._plays.get(command.trial)
            if play is None:
                continue
            if isinstance(command, RequestStop):
                play.stop = command.request
            elif isinstance(command, Release):
                self._reached[command.trial] = play.time
                del self._plays[command.trial]
