"""When a trial is judged: at which times, once each, and only by a value that was measured for that time."""

from __future__ import annotations

import math
from typing import Any

from xaytune.sweep.time_axis import DecisionPoints
from xaytune.trainer.callbacks import TrainState
from xaytune.trial.common.metrics import capture


class Judging:
    """Follows a run, and tells whether a decision is due.

    Args:
        metric: Name of the sweep's metric.
        points: When trials are judged.
        last_judged: The newest time at which another attempt of the trial was judged.
    """

    def __init__(self, metric: str, points: DecisionPoints, last_judged: int) -> None:
        self._metric = metric
        self._last_judged = last_judged
        self.judge_at(points)
        self._judged_at = 0
        self._measured_by_evaluation = False
        self._fresh = False  # whether an evaluation has measured the metric since the last step
        self._before_evaluation: Any = None
        self._restored: Any = None  # the metric as a resumed run found it

    def judge_at(self, points: DecisionPoints) -> None:
        """Learns when the trial is judged, which may not be known before it starts."""
        self._points, self._next = points, points.after(0)
        self._by_step = points.axis.by_step

    def resume(self, state: TrainState, reached: int) -> None:
        """Takes what was reached before the resume as judged, and what was measured before it as old."""
        if (restored := capture(state.metrics.get(self._metric))) is not None:
            # An object of its own: a small integer that is measured anew would be the one that was restored.
            state.metrics[self._metric] = self._restored = restored * 1.0
        # Where it was not judged yet, the evaluation of this very step may still be to come.
        self.take_due(reached if not self._by_step or reached == self._last_judged else reached - 1)

    def step_reached(self, global_step: int) -> bool:
        """Takes in that a step was trained, and tells whether it may be judged, if steps are."""
        self._fresh = False
        return self._by_step and global_step >= self._next

    def evaluation_starts(self, state: TrainState) -> None:
        """Takes in that an evaluation begins."""
        self._before_evaluation = state.metrics.get(self._metric)

    def evaluation_ends(self, state: TrainState) -> None:
        """Takes in that an evaluation has ended, which may have measured the metric."""
        value = state.metrics.get(self._metric)
        if value is not None and value is not self._before_evaluation:
            self._measured_by_evaluation = True
        self._fresh = self._measured_by_evaluation

    def is_fresh(self, state: TrainState) -> bool:
        """Whether the metric is there, and was measured since the last step where evaluations measure it."""
        value = state.metrics.get(self._metric, self._restored)
        return value is not self._restored and (self._fresh or not self._measured_by_evaluation)

    def decision_due(self, state: TrainState, at: int) -> bool | None:
        """Tells whether a decision is asked for now.

        Args:
            state: The run.
            at: The time that it has reached.

        Returns:
            True at a decision point, False where the metric is not finite between two; None if nothing is asked.

        Raises:
            TypeError: The metric is no number.
        """
        if not self.is_fresh(state):
            return None
        value = capture(state.metrics[self._metric])
        if value is None:
            got = state.metrics[self._metric]
            raise TypeError(f"the metric of the sweep must be a number: {self._metric!r} is {got!r}")
        due = self.take_due(at)
        if not due and math.isfinite(value):
            return None
        self._fresh = False
        return due

    def take_due(self, at: int) -> bool:
        """Tells whether a time is judged, once for each time."""
        if self._points.at_every_evaluation:
            due = at > self._judged_at
            self._judged_at = at
            return due
        due = at >= self._next
        if due:
            self._next = self._points.after(at)
        return due
