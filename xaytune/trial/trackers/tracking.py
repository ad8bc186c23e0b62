"""Tracking: the handlers that give trackers what a trial measures, and close them however it ends."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from xaytune.errors import Problem, SpecError
from xaytune.records.history import Row
from xaytune.sweep.options import TRACKERS, TrackerSpec
from xaytune.trainer.callbacks import Event, Handler, TrainState, metrics_only
from xaytune.trial.common.metrics import capture, materialize
from xaytune.trial.common.recipe import resolve
from xaytune.trial.trackers.calling import Caller
from xaytune.trial.trackers.tracker import Point, TrackedTrial, Tracker

if TYPE_CHECKING:  # it imports torch, which the driver and actors do without
    from xaytune.trainer.own import OwnLoop

logger = logging.getLogger(__name__)

# Where trackers keep files of their own in a sweep's folder.
FOLDERS = ("tensorboard", "trackers", "wandb")

# Seconds after which trackers are given what was measured, as they are at the end of each epoch.
_EVERY_S = 2.0


def tracker_problems(trackers: Iterable[TrackerSpec]) -> list[Problem]:
    """Returns what is wrong with the trackers of a spec: they are not installed, not there, or no trackers."""
    found: list[Problem] = []
    for index, spec in enumerate(trackers):
        try:
            if spec.tracker in TRACKERS and not _is_installed(spec.name):
                how = f"pip install 'xaytune[{spec.name}]', or name it in `requirements` on a cluster"
                raise SpecError([Problem((), f"{spec.name} is not installed: {how}")])
            made(spec)
        except SpecError as error:
            found += [problem.below("trackers", index) for problem in error.problems]
    return found


def _is_installed(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    # Without an origin it is a folder of that name, such as the one that W&B writes its runs to.
    return spec is not None and spec.origin is not None


def made(spec: TrackerSpec) -> Tracker:
    """Makes the tracker that a spec names.

    Raises:
        SpecError: It names no tracker, or its options are wrong.
    """
    found = _class_of(spec)
    if not (isinstance(found, type) and issubclass(found, Tracker)):
        raise SpecError([Problem((), f"{spec.name} is no Tracker: inherit from xaytune.Tracker")])
    try:
        return found(**spec.options)
    except TypeError as error:
        raise SpecError([Problem((), f"{spec.name} cannot be made: {error}")]) from None


def _class_of(spec: TrackerSpec) -> Any:
    try:
        return resolve(TRACKERS.get(spec.name, spec.tracker))
    except ValueError as error:
        raise SpecError([Problem((), str(error))]) from None


def settings(trackers: Iterable[TrackerSpec]) -> dict[str, str]:
    """Returns the variables of this process's environment that trackers are set up by."""
    prefixes: tuple[str, ...] = ()
    for spec in trackers:
        known = spec.name in TRACKERS  # whose libraries need not be installed here
        prefixes += (f"{spec.name.upper()}_",) if known else getattr(_class_of(spec), "environment", ())
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


def begin(trackers: Iterable[TrackerSpec], sweep: str) -> None:
    """Makes what the trials of a sweep share: they are not to race for it.

    Raises:
        SpecError: A tracker is not installed, cannot be reached, or refuses.
    """
    if problems := tracker_problems(trackers):
        raise SpecError(problems)
    for index, spec in enumerate(trackers):
        try:
            made(spec).begin(sweep)
        except (Exception, SystemExit) as error:
            words = error if isinstance(error, Exception) else f"{type(error).__name__}: {error}"
            raise SpecError([Problem(("trackers", index), f"{spec.name}: {words}")]) from error


class Tracking:
    """Gives the trackers of a trial what it measures.

    A metric of the training is given at every step; what an evaluation sets, where it was set. Which of them set a
    value is known by which object it is, or by what was reported; where neither tells, a value is given again
    rather than lost. A tracker that fails, or does not answer, is given up with a warning: the trial trains on.

    Args:
        trackers: What names them.
        trial: The trial.
        timeout_s: Seconds that one is waited for, whatever it is to do.
        note: Takes what whoever runs the sweep should know.
    """

    def __init__(
        self,
        trackers: Iterable[TrackerSpec],
        trial: TrackedTrial,
        timeout_s: float,
        note: Callable[[str], None] = logger.warning,
    ) -> None:
        self._callers: list[Caller] = []
        self._trackers: list[tuple[str, Caller, Tracker]] = []
        self._failing: list[tuple[Caller, Tracker]] = []  # that were given up, but for those that do not answer
        self._note = note
        # When it was trained, a row, and the names of it that are left out. The row is the reporter's own.
        self._rows: list[tuple[float, Row, frozenset[str]]] = []
        self._seen: dict[str, Any] = {}  # metrics as the last step, or evaluation, left them
        # What an evaluation has measured, or came with the checkpoint, until a step sets it.
        self._held: dict[str, Any] = {}
        self._of_steps: set[str] = set()  # names that a step has set
        self._reported: set[str] = set()  # names that were reported, so that it is known when they are set
        self._step = 0
        self._given = time.monotonic()
        self._failed = False
        for spec in trackers:
            try:
                tracker, caller = made(spec), Caller(timeout_s)
            except Exception as error:
                self._give_up(spec.name, error)
                continue
            self._callers.append(caller)
            self._trackers.append((spec.name, caller, tracker))
            self._call(self._trackers[-1], lambda tracker: tracker.open(trial))

    def attach(self, trial: OwnLoop, newest_row: Callable[[], Row], overruns: Callable[[], bool]) -> None:
        """Registers the handlers, after all others.

        Args:
            trial: The trial.
            newest_row: Returns the row of the last step.
            overruns: Tells whether the loop trains on after it was told to stop: that does not count.
        """

        def unless_it_overruns(handler: Handler) -> Handler:
            return lambda state: None if overruns() else handler(state)

        handlers: dict[Event, Handler] = {
            "train_start": self._on_start,
            "step_end": functools.partial(self._on_step_end, newest_row),
            "eval_end": functools.partial(self._on_eval_end, trial),
            "epoch_end": self._on_epoch_end,
            "error": self._on_error,
            "train_end": self._on_evaluated,
        }
        for event, handler in handlers.items():
            trial.callbacks.on(event, last=True)(metrics_only(unless_it_overruns(handler)))

    def catch_up(self, trial: OwnLoop, state: TrainState) -> None:
        """Takes what a run had measured when it was paused where it is judged: its event got no further."""
        self._on_evaluated(state, trial.evaluating)

    def close(self, status: str, reason: str | None, best: float | None) -> None:
        """Gives the trackers what is left, and ends them."""
        self._give(lenient=True)
        failing = list(self._failing)
        self._tell(lambda tracker: tracker.close(status, reason, best))
        for caller, tracker in failing:  # their runs are not to stay open
            with contextlib.suppress(Exception):
                caller.call(functools.partial(tracker.close, status, reason, best))
        for caller in self._callers:
            caller.end()

    def _on_start(self, state: TrainState) -> None:
        self._seen = self._held = dict(state.metrics)

    def _on_step_end(self, newest_row: Callable[[], Row], state: TrainState) -> None:
        metrics = state.metrics
        self._of_steps |= self._new(metrics).keys()
        self._seen, self._step = dict(metrics), state.global_step
        self._held = {n: v for n, v in self._held.items() if metrics.get(n) is v}
        # Of small integers there is one object each: those that a step has set it may have set again.
        left_out = {n for n, v in self._held.items() if not (isinstance(v, int) and n in self._of_steps)}
        self._rows.append((time.time(), newest_row(), frozenset(left_out)))
        if time.monotonic() >= self._given + _EVERY_S:
            self._give()

    def _new(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the metrics that were set since a step, or an evaluation, as far as the objects tell."""
        return {n: v for n, v in metrics.items() if n not in self._seen or v is not self._seen[n]}

    def _on_eval_end(self, trial: OwnLoop, state: TrainState) -> None:
        self._reported |= trial.evaluating
        self._on_evaluated(state, trial.evaluating or self._held.keys() - self._reported)

    def _on_evaluated(self, state: TrainState, again: Collection[str] = ()) -> None:
        """Gives what was measured.

        Args:
            state: The run.
            again: What may have been measured once more, with the same object.
        """
        if self._failed and state.global_step == self._step:  # nothing was measured since
            return
        new = self._new(state.metrics)
        new |= {n: v for n, v in state.metrics.items() if n in again and n in self._held}
        new.pop("error", None)
        self._held = self._held | new
        self._seen = dict(state.metrics)
        if new:
            captured = {name: capture(value) for name, value in new.items()}
            self._rows.append(
                (time.time(), Row(state.epoch, state.step, state.global_step, captured), frozenset())
            )

    def _on_error(self, state: TrainState) -> None:
        self._failed = True

    def _on_epoch_end(self, state: TrainState) -> None:
        self._on_evaluated(state)
        self._give()

    def _give(self, *, lenient: bool = False) -> None:
        self._given = time.monotonic()
        rows, self._rows = self._rows, []
        materialize([row for _, row, _ in rows], lenient=lenient)
        points = []
        for at, row, left_out in rows:
            metrics = {name: value for name, value in row.metrics.items() if name not in left_out}
            if metrics:
                points.append(Point(row.global_step, at, metrics))
        self._tell(lambda tracker: tracker.log(points))

    def _tell(self, told: Callable[[Tracker], None]) -> None:
        for known in list(self._trackers):
            self._call(known, told)

    def _call(self, known: tuple[str, Caller, Tracker], told: Callable[[Tracker], None]) -> None:
        name, caller, tracker = known
        try:
            caller.call(functools.partial(told, tracker))
        except Exception as error:
            self._trackers.remove(known)
            self._give_up(name, error)
            if not isinstance(error, TimeoutError):
                self._failing.append((caller, tracker))

    def _give_up(self, name: str, error: Exception) -> None:
        logger.warning("%s: %s: %s", name, type(error).__name__, error)
        self._note(f"{name} is given up by a trial, which trains on: {type(error).__name__}, see its output")
