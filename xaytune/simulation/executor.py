"""The simulated executor: workers that play curves in virtual time, and report to the driver what trials would."""

from __future__ import annotations

import bisect
import functools
import heapq
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xaytune.driver.driver import Driver
from xaytune.driver.orders import Order, Release, RequestStop
from xaytune.messages import (
    Assignment,
    DecisionDue,
    Ended,
    EndStatus,
    Heartbeat,
    Length,
    Started,
    StopRequest,
)
from xaytune.records import history
from xaytune.records.state import SIMULATED
from xaytune.records.trial_record import Best
from xaytune.search.method import SearchMethod
from xaytune.simulation.clock import VirtualClock
from xaytune.simulation.curves import Curve, Curves
from xaytune.sweep.objective import Objective
from xaytune.sweep.time_axis import DecisionPoints, LevelPoints


@dataclass
class _Play:
    """A trial as it plays its curve.

    Attributes:
        curve: The curve.
        begun: Where it began.
        time: How far it is; while it trains, where it is judged or ends next.
        judged: Where it was judged last.
        told: Where it was when it reported last, or began.
        resumed_at: Where it began, until it has reported that.
        best: Where its metric was best since then.
        stop: Why it is to stop, if it is.
    """

    assignment: Assignment
    curve: Curve
    begun: int
    stop: StopRequest | None = None
    best: Best | None = None

    def __post_init__(self) -> None:
        self.time = self.judged = self.told = self.begun
        self.resumed_at: int | None = self.begun

    @functools.cached_property
    def times(self) -> list[int]:
        """When something is known of it, ascending."""
        return sorted(self.curve.values)


class SimulatedExecutor:
    """Plays the trials of a sweep.

    Args:
        driver: The driver.
        method: The search method of the driver.
        objective: What is optimised.
        curves: What configurations are worth.
        workers: Trials at once.
        clock: The clock that the driver has, too.
        budgeted: Whether the sweep has a budget: its trials report each epoch or step, so that it ends in time.

    Attributes:
        decisions: Decisions that were taken.
        censored: Trials that would have trained on where nothing more is known of them: they ended there.
    """

    def __init__(
        self,
        driver: Driver,
        method: SearchMethod,
        objective: Objective,
        curves: Curves,
        workers: int,
        clock: VirtualClock,
        *,
        budgeted: bool = False,
    ) -> None:
        self.decisions = self.censored = 0
        self._driver, self._method, self._objective = driver, method, objective
        self._curves, self._workers, self._clock = curves, workers, clock
        self._budgeted = budgeted
        self._plays: dict[int, _Play] = {}
        self._reached: dict[int, int] = {}  # where paused trials are
        self._events: list[tuple[float, int, int]] = []  # moment, order, trial
        self._order = itertools.count()

    @property
    def _points(self) -> DecisionPoints:
        return self._method.points

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
            saved = assignment.last_judged if self._points.pausing else 0
            begun = self._reached.pop(assignment.trial, saved)
            play = _Play(assignment, curve, begun, assignment.stop)
            self._plays[assignment.trial] = play
            self._perform(self._driver.started(assignment.trial))
            self._perform(self._driver.receive(Started(**assignment.sender, node=SIMULATED)))
            if isinstance(self._points, LevelPoints) and curve.length is not None:
                self._perform(self._driver.receive(Length(**assignment.sender, length=curve.length)))
            if curve.values:
                self._schedule(play)
            else:
                self._cut_off(play)

    def _schedule(self, play: _Play) -> None:
        """Lets a trial train until it has something to say; one that is to stop ends where it is."""
        curve, now = play.curve, self._clock.monotonic()
        if play.stop is not None:
            moment = curve.ended if curve.ended is not None and play.time == play.times[-1] else now
        else:
            until = self._next_time(play)
            began = now - curve.seconds.get(play.time, 0.0) if curve.began is None else curve.began
            moment, play.time = began + curve.seconds[until], until
        heapq.heappush(self._events, (max(moment, now), next(self._order), play.assignment.trial))

    def _next_time(self, play: _Play) -> int:
        """When a trial is judged next, reports, diverges, or is at the end of what is known of it."""
        times, next_one = play.times, bisect.bisect(play.times, play.time)
        if self._points.at_every_evaluation or self._budgeted:
            return times[min(next_one, len(times) - 1)]
        due, values = self._points.after(play.judged), play.curve.values
        return next((time for time in times[next_one:] if time >= due or values[time] is None), times[-1])

    def _advance(self, play: _Play) -> None:
        """A trial is where it was to train to: it is judged, or ends there."""
        points, value = self._points, play.curve.values.get(play.time)
        due = points.at_every_evaluation or play.time >= points.after(play.judged)
        if play.stop is not None:
            self._end(play, play.stop.status, play.stop.reason)
        elif play.time == play.times[-1] and play.curve.ends and value is not None:
            self._end(play, "completed", None, due=due)
        elif due or value is None:
            self._judge(play, due=due)
        elif play.time < play.times[-1]:
            self._perform(self._driver.receive(Heartbeat(**self._take_progress(play))))
            self._schedule(play)
        else:
            self._cut_off(play)

    def _judge(self, play: _Play, *, due: bool) -> None:
        self.decisions += 1
        play.judged = play.time
        self._perform(self._driver.receive(DecisionDue(**self._take_progress(play), due=due)))
        if play.assignment.trial not in self._plays:
            return  # it was paused
        if play.stop is None and play.time == play.times[-1]:
            self._cut_off(play)
        else:
            self._schedule(play)

    def _cut_off(self, play: _Play) -> None:
        """A trial would train on, and what it would be worth is not known."""
        self.censored += 1
        where = self._points.axis.at(play.time)
        self._end(play, "stopped", f"censored: the earlier sweep knows it to {where} only")

    def _end(self, play: _Play, status: EndStatus, reason: str | None, *, due: bool = False) -> None:
        del self._plays[play.assignment.trial]
        message = Ended(**self._take_progress(play), status=status, reason=reason, due=due)
        self._perform(self._driver.receive(message))

    def _take_progress(self, play: _Play) -> dict[str, Any]:
        """Takes what a trial reports: where it is, and all values since it reported last."""
        passed = play.times[bisect.bisect(play.times, play.told) : bisect.bisect(play.times, play.time)]
        rows = [self._row(time, play.curve.values[time]) for time in passed]
        for row in rows:
            value = row.metrics[self._objective.metric]
            if math.isfinite(value) and self._objective.is_better(value, play.best.value if play.best else None):
                play.best = Best(value, self._epochs(row.global_step), row.global_step, row.metrics)
        resumed_at, play.resumed_at, play.told = play.resumed_at, None, play.time
        return {
            **play.assignment.sender,
            "epoch": self._epochs(play.time),
            "global_step": play.time,
            "metrics": self._metrics(play.curve.values.get(play.time)),
            "best": play.best,
            "seconds": play.curve.seconds.get(play.time, 0.0),
            "history": history.pack(rows) if rows else None,
            "resumed_at": resumed_at,
        }

    def _row(self, time: int, value: float | None) -> history.Row:
        by_step = self._points.axis.by_step
        return history.Row(0 if by_step else time - 1, time - 1 if by_step else 0, time, self._metrics(value))

    def _metrics(self, value: float | None) -> dict[str, float]:
        return {self._objective.metric: math.nan if value is None else value}

    def _epochs(self, time: int) -> int:
        return 0 if self._points.axis.by_step else time

    def _perform(self, orders: Iterable[Order]) -> None:
        for order in orders:
            play = self._plays.get(order.trial)
            if play is None:
                continue
            if isinstance(order, RequestStop):
                play.stop = order.request
            elif isinstance(order, Release):
                self._reached[order.trial] = play.time
                del self._plays[order.trial]
