"""Timing the first epoch, or steps, of one configuration, in this process: what a sweep may cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from xaytune.errors import Problem, SpecError
from xaytune.in_process.trying import try_configuration
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.time_axis import TimeAxis
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.own_loop import OwnLoop
from xaytune.trial.messages import Failure

__all__ = ["Timing", "time_training"]

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
        failure: Why it failed, if it did.
    """

    unit_s: float | None
    before_s: float
    units: int | None
    failure: Failure | None = None


def time_training(spec: SweepSpec) -> Timing:
    """Trains one epoch of the first configuration of a sweep; or steps, where the scheduler counts them.

    Raises:
        SpecError: The recipe cannot be called, or there is a command instead: nobody can stop a program within it.
        KeyboardInterrupt: The user ended it, through its own loop.
    """
    if spec.command is not None:
        raise SpecError(
            [Problem(("command",), "a program cannot be timed by --time: `xaytune try` runs it whole")]
        )
    stopwatch = _Stopwatch(spec.axis)
    timed = spec.model_copy(update={"callbacks": [*spec.callbacks, stopwatch.attach]})
    ended = try_configuration(timed, {}, on_start=lambda config: None, on_epoch_end=lambda state: None)
    return Timing(stopwatch.unit_s, stopwatch.before_s, stopwatch.units, ended.failure)


class _Stopwatch:
    """Times a run, and stops it when it knows enough."""

    def __init__(self, axis: TimeAxis) -> None:
        self.unit_s: float | None = None
        self.before_s = 0.0
        self.units: int | None = None
        self._axis = axis
        self._created = time.perf_counter()
        self._begun, self._begun_at = 0.0, 0

    def attach(self, trial: OwnLoop, config: dict[str, Any]) -> None:
        """Registers its handlers, after all others."""
        trial.callbacks.on("train_start", last=True)(self._start)
        if self._axis.by_step:
            trial.callbacks.on("step_end", last=True)(self._step)
        else:
            trial.callbacks.on("epoch_end", last=True)(self._stop)

    def _start(self, state: TrainState) -> None:
        self._begun = time.perf_counter()
        self.before_s = self._begun - self._created
        self.units = self._axis.of(epoch=state.num_epochs, global_step=max(0, state.max_steps)) or None

    def _step(self, state: TrainState) -> None:
        if state.global_step == _WARM_UP:
            self._begun, self._begun_at = time.perf_counter(), _WARM_UP
        elif state.global_step == _WARM_UP + _STEPS:
            self._stop(state)

    def _stop(self, state: TrainState) -> None:
        if self.unit_s is None:
            finished = self._axis.of(epoch=1, global_step=state.global_step - self._begun_at)
            self.unit_s = (time.perf_counter() - self._begun) / finished
        state.stop_training()
