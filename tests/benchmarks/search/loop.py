"""A sweep in virtual time: workers train known curves epoch by epoch, and a search method decides."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.benchmarks.search.curves import Curve, Task, Trouble, seed_of, troubled
from xaytune.search.method import (
    Continue,
    End,
    KeepCheckpoint,
    NewTrial,
    Pause,
    Result,
    Resume,
    SearchMethod,
    Stop,
)


@dataclass
class Outcome:
    """What a sweep gave.

    Attributes:
        trace: Each time the best value seen was a new one: epochs spent, regret of what that configuration is
            worth in full, and regret of the value that was reached.
        full: Trials that were trained in full.
        trials: Trials.
        model_seconds: CPU seconds that the method took.
        slowest: The longest that it took for one event.
        handed_over: Regret of the trial to train again: the best at the end, once three reached it; before that
            the one of the best value seen.
    """

    trace: list[tuple[int, float, float]] = field(default_factory=list)
    full: int = 0
    trials: int = 0
    model_seconds: float = 0.0
    slowest: float = 0.0
    handed_over: float = float("nan")

    def regret_after(self, epochs: float) -> float:
        """Returns the regret of the configuration that is best after so many epochs, trained in full."""
        return self._after(epochs)[1]

    def reached_after(self, epochs: float) -> float:
        """Returns the regret of what was reached after so many epochs."""
        return self._after(epochs)[2]

    def _after(self, epochs: float) -> tuple[int, float, float]:
        return next((entry for entry in reversed(self.trace) if entry[0] <= epochs), self.trace[0])


@dataclass
class _Trial:
    curve: Curve
    epoch: int = 0


class _Sweep:
    """The state of a sweep that is played."""

    def __init__(self, method: SearchMethod, task: Task, trouble: Trouble | None, seed: int) -> None:
        self.method, self.task, self.trouble, self.seed = method, task, trouble, seed
        self.outcome = Outcome()
        self.trials: list[_Trial] = []
        self.due: list[tuple[float, int]] = []
        self._scale = task.scale()
        self._sign = 1 if task.mode == "max" else -1
        self._best = -np.inf
        self._full: list[tuple[float, float]] = []

    def start(self, now: float) -> bool:
        """Begins a trial, where the method has one, or resumes one that was paused."""
        action = self._timed(self.method.next)
        if isinstance(action, Resume):
            self._timed(self.method.on_resume, action.trial)
            self._schedule(action.trial, now)
            return True
        if not isinstance(action, NewTrial):
            return False
        curve = self.task.curve(action.config)
        if self.trouble is not None:
            curve = troubled(curve, self.trouble, seed_of(self.task.name, self.seed, action.config))
        self.trials.append(_Trial(curve))
        self._schedule(len(self.trials) - 1, now)
        return True

    def train(self, spent: int) -> tuple[float, bool]:
        """Finishes the next epoch of a trial. Returns when that is, and whether its worker is free."""
        now, number = heapq.heappop(self.due)
        trial = self.trials[number]
        trial.epoch += 1
        value = float(trial.curve.to(trial.epoch).values[trial.epoch - 1])
        self._record(trial, value, spent)
        points = self.method.points
        finite, last = np.isfinite(value), trial.epoch == self.task.max_t
        is_due = points.at_every_evaluation or points.after(trial.epoch - 1) == trial.epoch
        result = Result(trial.epoch, value if finite else None, due=is_due)
        stopped = paused = False
        if is_due or not finite:
            for action in self._timed(self.method.on_result, number, result):
                assert isinstance(action, (Continue, Stop, Pause, KeepCheckpoint))
                if isinstance(action, Stop) and action.trial != number:  # it is paused
                    self._timed(self.method.on_end, action.trial, End("stopped"))
                else:
                    stopped = stopped or isinstance(action, Stop)
                    paused = paused or isinstance(action, Pause)
        if paused:
            return now, True
        if not (stopped or last):
            self._schedule(number, now)
            return now, False
        status: Any = "completed" if last else "stopped" if finite else "failed"
        self._timed(self.method.on_end, number, End(status, last=None if stopped else result))
        return now, True

    def _record(self, trial: _Trial, value: float, spent: int) -> None:
        if not np.isfinite(value):
            return
        score = self._sign * value
        reached = self._regret(trial.curve.to(trial.epoch).true[trial.epoch - 1])
        if score > self._best:
            self._best = score
            regret = self._regret(self.task.worth(trial.curve.to(self.task.max_t)))
            self.outcome.trace.append((spent, regret, reached))
            if len(self._full) < 3:
                self.outcome.handed_over = regret
        if trial.epoch == self.task.max_t:
            self.outcome.full += 1
            self._full.append((score, reached))
            if len(self._full) >= 3:
                self.outcome.handed_over = max(self._full)[1]

    def _regret(self, true: float) -> float:
        zero, one = self._scale
        return float((zero - true) / (zero - one))

    def _schedule(self, number: int, now: float) -> None:
        trial = self.trials[number]
        seconds = trial.curve.to(trial.epoch + 1).seconds[trial.epoch]
        heapq.heappush(self.due, (now + float(seconds), number))

    def _timed(self, call: Any, *args: Any) -> Any:
        started = time.process_time()
        result = call(*args)
        taken = time.process_time() - started
        self.outcome.model_seconds += taken
        self.outcome.slowest = max(self.outcome.slowest, taken)
        return result


def play(
    method: SearchMethod, task: Task, *, workers: int, epochs: int, trouble: Trouble | None, seed: int
) -> Outcome:
    """Runs a sweep until its trials have trained so many epochs together, or the method has no more.

    Args:
        method: Decides; it is new.
        task: What is trained.
        workers: Trials that run at once.
        epochs: The budget.
        trouble: What makes the curves harder to read; None where they are as they were measured.
        seed: Of the noise.
    """
    sweep = _Sweep(method, task, trouble, seed)
    now, idle = 0.0, workers
    for spent in range(1, epochs + 1):
        while idle and sweep.start(now):
            idle -= 1
        if not sweep.due:
            break
        now, free = sweep.train(spent)
        idle += free
    sweep.outcome.trials = len(sweep.trials)
    return sweep.outcome
