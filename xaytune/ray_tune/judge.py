"""A judge: one of Ray Tune's schedulers, asked for a verdict and its reason in words and numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler

from xaytune.sweep.spec import SweepSpec
from xaytune.trial.messages import DecisionPoints, StopRequest, Verdict

__all__ = ["Comparison", "Exploit", "Judge"]

# What a metric that is not finite counts as: worse than every other, and still a number to compute with.
_WORST = 1e300


@dataclass(frozen=True)
class Exploit:
    """A trial that is to go on from the checkpoint of another, with a configuration of its own."""

    trial: TuneTrial
    source: int
    config: dict[str, Any]

    @property
    def number(self) -> int:
        """The trial's number."""
        number: int = self.trial.config["assignment"].number
        return number


@dataclass(frozen=True)
class Comparison:
    """What a trial is compared with.

    Attributes:
        place: Where, in words.
        cutoff: The value that decides; None where there is none yet.
        trials: How many trials that is of.
    """

    place: str
    cutoff: float | None = None
    trials: int = 0


class Judge:
    """Asks one of Ray's schedulers about a trial.

    Attributes:
        points: When trials are to be judged.
        scheduler: Ray's scheduler, which keeps what it saw of every trial.
    """

    def __init__(self, spec: SweepSpec, scheduler: TrialScheduler, points: DecisionPoints) -> None:
        self.points = points
        self.scheduler = scheduler
        self._metric, self._maximize = spec.metric, spec.mode == "max"

    def prepare(self, trial: TuneTrial) -> None:
        """Lets the scheduler find in a trial's configuration what it may change."""

    def add(self, controller: Any, trial: TuneTrial) -> None:
        """Takes in a new trial."""
        self.scheduler.on_trial_add(controller, trial)

    def choose(self) -> TuneTrial | None:
        """Returns the trial to run next; None leaves it to Tune, which runs them in the order they came."""
        return None

    def take_stops(self) -> list[tuple[TuneTrial, StopRequest]]:
        """Returns the paused trials that a verdict on another one stopped, and why."""
        return []

    def take_offers(self) -> list[TuneTrial]:
        """Returns the trials whose newest checkpoints others may take over."""
        return []

    def take_exploits(self) -> list[Exploit]:
        """Returns the trials that take over a checkpoint of another."""
        return []

    def verdict(self, controller: Any, trial: TuneTrial, time: int, value: float | None, due: bool) -> Verdict:
        """Judges a trial at a decision point.

        Args:
            controller: Tune's.
            trial: The trial.
            time: Epochs or steps finished.
            value: The metric; None where it is not finite.
            due: Whether the scheduler judges here.
        """
        if value is None or not math.isfinite(value):
            if due:
                worst = -_WORST if self._maximize else _WORST
                self.scheduler.on_trial_result(controller, trial, self._result(time, worst))
            return self._diverged(time)
        against = self._compare(trial, time)
        decision = self.scheduler.on_trial_result(controller, trial, self._result(time, value))
        reason = self._reason(against, time, value, stops=decision == TrialScheduler.STOP)
        request = StopRequest(reason, self._status(time)) if decision == TrialScheduler.STOP else None
        return Verdict(reason, request, against.cutoff, against.trials)

    def ended(self, controller: Any, trial: TuneTrial, time: int, value: float | None, due: bool) -> None:
        """Takes in that a trial ended: a run that was finished at a decision point counts there."""
        if due and value is not None and math.isfinite(value):
            self.scheduler.on_trial_complete(controller, trial, self._result(time, value))
        else:
            self.scheduler.on_trial_remove(controller, trial)

    def _compare(self, trial: TuneTrial, time: int) -> Comparison:
        """Finds what the scheduler will compare the trial with, before it takes its value in."""
        return Comparison(self._at(time))

    def _reason(self, against: Comparison, time: int, value: float, *, stops: bool) -> str:
        """Words why the scheduler let the trial go on or stopped it."""
        return f"{against.place}: {value:.4g}"

    def _status(self, time: int) -> Literal["completed", "stopped"]:
        """Returns how a trial ends that the scheduler stops at a time."""
        return "stopped"

    def _side(self, *, stops: bool) -> str:
        """Words on which side of a cut-off a trial is."""
        if stops:
            return "is below" if self._maximize else "is above"
        return "is not below" if self._maximize else "is not above"

    def _diverged(self, time: int) -> Verdict:
        # The journal knows no more of such a value: a verdict reads the same when it is replayed.
        reason = f"diverged: {self._metric} is not finite at {self._at(time)}"
        return Verdict(reason, StopRequest(reason))

    def _at(self, time: int) -> str:
        return f"{'epoch' if self.points.time_attr == 'epoch' else 'step'} {time}"

    def _result(self, time: int, value: float) -> dict[str, Any]:
        return {self.points.time_attr: time, self._metric: value}
