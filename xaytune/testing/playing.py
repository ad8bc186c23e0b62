"""Sweeps that are played without training: curves are given, and workers take turns at random."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from xaytune.search.method import (
    Continue,
    Done,
    End,
    Exploit,
    KeepCheckpoint,
    NewTrial,
    Pause,
    Result,
    Resume,
    SearchMethod,
    Stop,
)
from xaytune.sweep.objective import Mode, Objective
from xaytune.sweep.values import problems

__all__ = ["Call", "Event", "Played", "play"]

Event = dict[str, Any]
Curve = Callable[[int, Mapping[str, Any], int], float | None]


@dataclass(frozen=True)
class Call:
    """One call of a method's: its name, its arguments, and what it answered."""

    name: str
    arguments: tuple[Any, ...]
    answer: Any

    def again(self, method: SearchMethod) -> Any:
        """Makes the same call of another method; returns its answer."""
        answer = getattr(method, self.name)(*self.arguments)
        return list(answer) if self.name in ("on_result", "on_end") else answer


@dataclass
class Played:
    """A sweep that was played.

    Attributes:
        calls: All that was asked of the method, in order.
        configs: The newest configuration of each trial.
        given: Every configuration that the method gave.
        ends: How each trial ended.
        paused: Trials that were paused when nothing ran any more.
    """

    calls: list[Call] = field(default_factory=list)
    configs: dict[int, dict[str, Any]] = field(default_factory=dict)
    given: list[dict[str, Any]] = field(default_factory=list)
    ends: dict[int, End] = field(default_factory=dict)
    paused: dict[int, int] = field(default_factory=dict)

    def decisions(self, kind: type[Any]) -> list[Any]:
        """Returns all actions of a kind."""
        judged = (call.answer for call in self.calls if call.name in ("on_result", "on_end"))
        return [action for answer in judged for action in answer if isinstance(action, kind)]

    def journal(self, count: int, *, carried_out: bool = True) -> list[Event]:
        """Returns what a sweep's journal holds after so many calls.

        Args:
            count: Calls.
            carried_out: Whether what was decided last was carried out.
        """
        events: list[Event] = []
        trials = itertools.count()
        for index, call in enumerate(self.calls[:count]):
            events += _events(call, trials)
            if carried_out or index < count - 1:
                events += _carried_out(call)
        return events


class _Players:
    """Plays a sweep, and checks that each answer can be carried out."""

    def __init__(
        self,
        method: SearchMethod,
        curve: Curve,
        objective: Objective,
        workers: int,
        end: int,
        rng: Random,
        faults: float,
        evaluated: Sequence[int],
    ) -> None:
        self.played = Played()
        self._method, self._curve, self._objective = method, curve, objective
        self._workers, self._end = workers, end
        self._rng, self._faults, self._evaluated = rng, faults, evaluated
        self._running: dict[int, int] = {}  # trials, and their age
        self._best: dict[int, float] = {}
        self._kept: dict[int, int] = {}  # ages of donor checkpoints

    def _call(self, name: str, *arguments: Any) -> Any:
        call = Call(name, arguments, None)
        answer = call.again(self._method)
        self.played.calls.append(Call(name, arguments, answer))
        return answer

    def run(self) -> Played:
        answer: Any = None
        while True:
            while len(self._running) < self._workers:
                answer = self._call("next")
                if not isinstance(answer, (NewTrial, Resume)):
                    break
                self._begin(answer)
            if not self._running:
                assert isinstance(answer, Done), f"nothing runs, and next() says {answer}"
                return self.played
            self._train(self._rng.choice(sorted(self._running)))

    def _begin(self, answer: NewTrial | Resume) -> None:
        played = self.played
        if isinstance(answer, NewTrial):
            number = len(played.configs)
            played.configs[number] = answer.config
            played.given.append(answer.config)
            self._running[number] = 0
        else:
            assert answer.trial in played.paused, f"trial {answer.trial} is resumed and is not paused"
            assert self._method.next() == answer, "next() says another trial before this one was resumed"
            self._running[answer.trial] = played.paused.pop(answer.trial)
            self._call("on_resume", answer.trial)

    def _train(self, trial: int) -> None:
        time = self._next_time(trial)
        if self._rng.random() < self._faults:
            self._finish(trial, self._rng.choice(["failed", "infeasible"]), None)
        elif time > self._end or (self._faults and self._rng.random() < self._faults):
            due = time == self._end
            value = self._value(trial, self._end)
            self._finish(trial, "completed", Result(self._end, value, due=due and value is not None))
        else:
            value = self._value(trial, int(time))
            self._running[trial] = int(time)
            self._follow(trial, self._call("on_result", trial, Result(int(time), value, {"m": value or 0.0})))
            if value is None:
                assert trial not in self._running, f"trial {trial} diverged and trains on"

    def _next_time(self, trial: int) -> float:
        """Returns the first evaluation of a trial at which it is judged."""
        points, age = self._method.points, self._running[trial]
        due = age + 1 if points.at_every_evaluation else points.after(age)
        every = self._evaluated[trial % len(self._evaluated)]
        return math.ceil(due / every) * every if math.isfinite(due) else due

    def _value(self, trial: int, time: int) -> float | None:
        value = self._curve(trial, self.played.configs[trial], time)
        if value is not None and self._objective.is_better(value, self._best.get(trial)):
            self._best[trial] = value
        return value

    def _follow(self, trial: int, actions: list[Any]) -> None:
        """Carries out what was decided on a trial that reported."""
        assert actions, "on_result() says nothing of the trial itself"
        assert not isinstance(actions[0], KeepCheckpoint)
        assert actions[0].trial == trial, f"the first decision is on trial {actions[0].trial}, not {trial}"
        stopped: list[Stop] = []
        for action in actions:
            self._carry_out(action, trial, stopped)
        for stop in stopped:
            self._finish(stop.trial, stop.status, None)

    def _carry_out(self, action: Any, reporting: int | None, stopped: list[Stop]) -> None:
        number, paused = action.trial, self.played.paused
        if isinstance(action, KeepCheckpoint):
            assert number in self._running or number in paused
            self._kept[number] = paused[number] if number in paused else self._running[number]
            return
        assert action.reason, f"{action} has no reason"
        refused = [str(problem) for problem in problems(dict(action.details))]
        assert not refused, f"the details of {action} would be kept as text only: {refused}"
        here = number == reporting
        assert here or number in paused, f"{action} is on a trial that neither reports nor is paused"
        if isinstance(action, Stop):
            paused.pop(number, None)
            stopped.append(action)
        elif isinstance(action, (Pause, Exploit)):
            assert self._method.points.pausing, f"{action}, where trials are not saved when they are judged"
            paused[number] = self._running.pop(number) if here else paused[number]
            if isinstance(action, Exploit):
                assert action.donor in self._kept, f"no checkpoint of trial {action.donor} was kept"
                paused[number] = self._kept[action.donor]
                self.played.configs[number] = action.config
                self.played.given.append(action.config)
        else:
            assert isinstance(action, Continue)
            assert here

    def _finish(self, trial: int, status: Any, last: Result | None) -> None:
        age = self._running.pop(trial, 0)
        last = last or Result(age, None, due=False)
        end = End(status, self._best.get(trial), last)
        assert trial not in self.played.ends, f"trial {trial} ended twice"
        self.played.ends[trial] = end
        stopped: list[Stop] = []
        for action in self._call("on_end", trial, end):
            self._carry_out(action, None, stopped)
        for stop in stopped:
            self._finish(stop.trial, stop.status, None)


def play(
    method: SearchMethod,
    curve: Curve,
    *,
    mode: Mode = "max",
    workers: int = 3,
    end: int = 9,
    seed: int = 0,
    faults: float = 0.0,
    evaluated: Sequence[int] = (1,),
) -> Played:
    """Plays a sweep to its end.

    Args:
        method: A new one.
        curve: Gives the value of a trial, from its number, configuration and age; None is not finite.
        mode: Whether a larger or a smaller value is better.
        workers: Trials that run at once.
        end: The age at which trials end by themselves.
        seed: Of the order in which they report.
        faults: How likely a trial fails, or ends by itself, in the place of each report.
        evaluated: After how many epochs or steps each a trial is evaluated; trials take these in turn.

    Raises:
        AssertionError: An answer of the method cannot be carried out, or it waits for ever.
    """
    return _Players(method, curve, Objective("m", mode), workers, end, Random(seed), faults, evaluated).run()


def _events(call: Call, trials: Iterator[int]) -> list[Event]:
    """Returns the events of the journal that make a call known; new trials take the next of the numbers."""
    if isinstance(call.answer, NewTrial):
        return [{"event": "trial", "trial": next(trials), "config": call.answer.config, "seed": 0}]
    if call.name == "on_resume":
        return [{"event": "start", "trial": call.arguments[0]}]
    if call.name == "on_result":
        trial, result = call.arguments
        return [{"event": "result", "trial": trial, "due": result.due, **_place(result), "value": result.value}]
    if call.name == "on_end":
        trial, end = call.arguments
        status = "failed" if end.status == "infeasible" else end.status
        ended = {"status": status, "value": end.best, "due": end.last.due, **_place(end.last)}
        failure = {"event": "failure", "trial": trial, "kind": end.status if end.status != "failed" else "error"}
        return [*([failure] if status == "failed" else []), {"event": "end", "trial": trial, **ended}]
    return []


def _carried_out(call: Call) -> list[Event]:
    if call.name not in ("on_result", "on_end"):
        return []
    events: list[Event] = []
    kinds = {Continue: "continue", Stop: "stop", Pause: "pause", Exploit: "continue"}
    for action in call.answer:
        subject = {"trial": action.trial}
        if isinstance(action, KeepCheckpoint):
            events.append({"event": "offer", **subject})
            continue
        if call.name == "on_result" and action.trial == call.arguments[0]:
            events.append(
                {"event": "verdict", **subject, "decision": kinds[type(action)], "reason": action.reason}
            )
        if isinstance(action, Exploit):
            events.append({"event": "exploit", **subject, "source": action.donor, "config": action.config})
        if isinstance(action, Stop):
            events.append({"event": "stop", **subject, "reason": action.reason, "status": action.status})
    return events


def _place(result: Result) -> Event:
    metrics = {} if result.value is None else {"m": result.value}
    return {"epoch": result.time, "global_step": result.time, "metrics": metrics}
