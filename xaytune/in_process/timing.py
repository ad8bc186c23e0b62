"""Timing the first epoch, or steps, of one configuration, in this process: what a sweep may cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from xaytune.errors import Problem, SpecError
from xaytune.in_process.trying import try_configuration
from xaytune.messages import Failure
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.time_axis import STEPS, TimeAxis
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.own import OwnLoop

# The first steps load what later ones find loaded.
_WARM_UP = 10
_STEPS = 50


@dataclass(frozen=True)
class Timing:
    """How long a trial takes.

    Attributes:
        unit_s: Seconds of an epoch, its evaluation included, or of a step; None where none was finished.
        before_s: Seconds before its training starts.
        units: Epochs or steps that it trains if it is not stopped; None where its loop does not say.
        axis: Whether it was timed by epochs or by steps.
        failure: Why it failed, if it did.
    """

    unit_s: float | None
    before_s: float
    units: int | None
    axis: TimeAxis
    failure: Failure | None = None


def time_training(spec: SweepSpec) -> Timing:
    """Trains one epoch of the first configuration of a sweep; or some steps, where those are what is counted.

    What is counted is said by the scheduler, or else by the run: one that has a number of steps, and no epochs, is
    one by steps; so is a loop of ``trial.steps(N)`` alone. Where both are limits, it is timed by epochs.

    Raises:
        SpecError: The recipe cannot be called, or there is a command instead: nobody can stop a program within it.
        KeyboardInterrupt: The user ended it, through its own loop.
    """
    if spec.command is not None:
        raise SpecError(
            [Problem(("command",), "a program cannot be timed by --time: `xaytune try` runs it whole")]
        )
    time_attr = getattr(spec.scheduler, "time_attr", None)
    stopwatch = _Stopwatch(TimeAxis(time_attr) if time_attr is not None else None)
    timed = spec.model_copy(update={"callbacks": [*spec.callbacks, stopwatch.attach]})
    ended = try_configuration(timed, {}, on_start=lambda config: None, on_epoch_end=lambda state: None)
    return Timing(stopwatch.unit_s, stopwatch.before_s, stopwatch.units, stopwatch.axis, ended.failure)


class _Stopwatch:
    """Times a run, and stops it when it knows enough.

    Args:
        axis: What is timed; None leaves that to the run.
    """

    def __init__(self, axis: TimeAxis | None) -> None:
        self.unit_s: float | None = None
        self.before_s = 0.0
        self.units: int | None = None
        self.axis = axis or TimeAxis()
        self._chosen = axis is not None
        self._created = time.perf_counter()
        self._begun, self._begun_at = 0.0, 0
        self._own: TrainState | None = None  # that of the trial's own loop

    def attach(self, trial: OwnLoop, config: dict[str, Any]) -> None:
        """Registers its handlers, after all others."""
        self._own = trial.state
        trial.callbacks.on("train_start", last=True)(self._start)
        trial.callbacks.on("step_end", last=True)(self._step)
        trial.callbacks.on("epoch_end", last=True)(self._epoch)

    def _start(self, state: TrainState) -> None:
        self._begun = time.perf_counter()
        self.before_s = self._begun - self._created
        # A loop of trial.steps(N) is one epoch, and ends after N steps; another run may end with the epoch.
        by_steps = state.num_epochs == 0 or (state.num_epochs == 1 and state is self._own)
        if not self._chosen and by_steps and state.max_steps > _WARM_UP + _STEPS:
            self.axis = STEPS
        self.units = self.axis.of(epoch=state.num_epochs, global_step=max(0, state.max_steps)) or None

    def _step(self, state: TrainState) -> None:
        if not self.axis.by_step:
            return
        if state.global_step >= _WARM_UP + _STEPS:
            self._stop(state)
        elif state.global_step >= _WARM_UP and not self._begun_at:
            self._begun, self._begun_at = time.perf_counter(), state.global_step

    def _epoch(self, state: TrainState) -> None:
        if not self.axis.by_step:
            self._stop(state)

    def _stop(self, state: TrainState) -> None:
        if self.unit_s is None:
            finished = self.axis.of(epoch=1, global_step=state.global_step - self._begun_at)
            self.unit_s = (time.perf_counter() - self._begun) / finished
        state.stop_training()
