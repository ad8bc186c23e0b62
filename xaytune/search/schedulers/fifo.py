"""No scheduler: every trial trains to its end."""

from __future__ import annotations

from collections.abc import Sequence

from xaytune.search.method import Action, Result
from xaytune.search.schedulers.scheduler import Scheduler
from xaytune.sweep.algorithms import FifoSpec
from xaytune.sweep.numbers import written
from xaytune.sweep.time_axis import DecisionPoints


class FifoScheduler(Scheduler):
    """Lets every trial train to its end, in the order in which they come."""

    options_model = FifoSpec
    options: FifoSpec

    @property
    def points(self) -> DecisionPoints:
        """Trials are never judged."""
        return DecisionPoints(milestones=())

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        """Lets the trial continue."""
        assert result.value is not None
        return self.keep_training(trial, f"{self.axis.at(result.time)}: {written(result.value)}")
