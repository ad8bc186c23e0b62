"""Tracking: the handlers that give trackers what a trial measures, and close them however it ends."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xaytune.errors import Problem, SpecError
from xaytune.records.history import Row
from xaytune.sweep.spec import TrackerName
from xaytune.trainer.callbacks import CallbackManager, TrainState
from xaytune.trial.metrics import capture, materialize
from xaytune.trial.trackers.tracker import Point, TrackedTrial, Tracker

__all__ = ["FOLDERS", "Tracking", "begin", "missing", "prepare", "settings"]

# Where trackers keep files of their own in a sweep's folder.
FOLDERS = ("tensorboard", "wandb")

# Trackers are given what was measured so often, and at the end of each epoch.
_EVERY_S = 2.0
_CLASSES: Mapping[TrackerName, str] = {"tensorboard": "TensorBoard", "mlflow": "Mlflow", "wandb": "Wandb"}


def missing(trackers: Iterable[TrackerName]) -> list[Problem]:
    """Returns which trackers of a spec are not installed, and how to mend that."""
    return [
        Problem(
            ("trackers", index),
            f"{name} is not installed: pip install 'xaytune[{name}]', or name it in `requirements` on a cluster",
        )
        for index, name in enumerate(trackers)
        if not _is_installed(name)
    ]


def _is_installed(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    # Without an origin it is a folder of that name, such as the one that W&B writes its runs to.
    return spec is not None and spec.origin is not None


def settings(trackers: Iterable[TrackerName]) -> dict[str, str]:
    """Returns the variables of this process's environment that trackers are set up by."""
    prefixes = tuple(f"{name.upper()}_" for name in trackers)
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


def begin(trackers: Iterable[TrackerName], sweep: str) -> None:
    """Makes what the trials of a sweep share: they are not to race for it.

    Raises:
        SpecError: A tracker is not installed, cannot be reached, or refuses.
    """
    if problems := missing(trackers):
        raise SpecError(problems)
    if "mlflow" in trackers:
        from xaytune.trial.trackers.mlflow import make_experiment

        try:
            make_experiment(sweep)
        except Exception as error:
            raise SpecError([Problem(("trackers",), f"mlflow: {error}")]) from error


def prepare(trackers: Iterable[TrackerName], settings: Mapping[str, str]) -> None:
    """Imports trackers: what they start then belongs to the process, not to its first trial.

    Args:
        trackers: Their names.
        settings: What :func:`settings` returned where the sweep was started.
    """
    os.environ.update(settings)
    for name in trackers:
        importlib.import_module(f"xaytune.trial.trackers.{name}")


def _open(name: TrackerName, trial: TrackedTrial) -> Tracker:
    module = importlib.import_module(f"xaytune.trial.trackers.{name}")
    tracker: Tracker = getattr(module, _CLASSES[name])(trial)
    return tracker


class Tracking:
    """Gives the trackers of a trial what it measures.

    A metric of the training is given at every step; one that an evaluation sets, where it was set. A tracker that
    fails later than at its start is given up with a warning: the training goes on.

    Args:
        trackers: Their names.
        trial: The trial.
    """

    def __init__(self, trackers: Iterable[TrackerName], trial: TrackedTrial) -> None:
        self._trackers: list[Tracker] = []
        # When it was trained, a row, and the names of it that are left out. The row is the reporter's own.
        self._rows: list[tuple[float, Row, frozenset[str]]] = []
        self._seen: dict[str, Any] = {}  # metrics as the last step left them
        self._evaluated: frozenset[str] = frozenset()
        self._given = time.monotonic()
        self._failed = False
        try:
            for name in trackers:
                self._trackers.append(_open(name, trial))
        except Exception as error:
            self.close("failed", f"{name}: {error}", None)
            raise

    def attach(self, callbacks: CallbackManager, newest_row: Callable[[], Row]) -> None:
        """Registers the handlers, after all others.

        Args:
            callbacks: The trial's.
            newest_row: Returns the row of the last step.
        """
        callbacks.on("step_end", last=True)(functools.partial(self._on_step_end, newest_row))
        callbacks.on("eval_end", last=True)(self._on_evaluated)
        callbacks.on("epoch_end", last=True)(self._on_epoch_end)
        callbacks.on("error", last=True)(self._on_error)
        callbacks.on("train_end", last=True)(self._on_evaluated)

    def close(self, status: str, reason: str | None, best: float | None) -> None:
        """Gives the trackers what is left, and ends them."""
        self._give(lenient=True)
        self._tell(lambda tracker: tracker.close(status, reason, best))

    def _on_step_end(self, newest_row: Callable[[], Row], state: TrainState) -> None:
        self._seen = dict(state.metrics)
        self._rows.append((time.time(), newest_row(), self._evaluated))
        if time.monotonic() >= self._given + _EVERY_S:
            self._give()

    def _on_evaluated(self, state: TrainState) -> None:
        if self._failed:  # the step that failed is no step
            return
        new = {n: v for n, v in state.metrics.items() if n not in self._seen or v is not self._seen[n]}
        self._evaluated = self._evaluated | new.keys()
        self._seen = dict(state.metrics)
        if new:
            captured = {name: capture(name, value) for name, value in new.items()}
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
        for tracker in list(self._trackers):
            try:
                told(tracker)
            except Exception as error:
                self._trackers.remove(tracker)
                name, cause = type(tracker).__name__, f"{type(error).__name__}: {error}"
                warnings.warn(f"{name} takes no more of this trial, which goes on: {cause}", stacklevel=2)
