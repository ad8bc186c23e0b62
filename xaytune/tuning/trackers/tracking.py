"""Tracking: the handlers that give trackers what a trial measures, and close them however it ends."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Iterable, Mapping
from typing import Any

from xaytune.records.history import Row
from xaytune.sweep.errors import Problem
from xaytune.sweep.spec import TrackerName
from xaytune.trainer.callbacks import CallbackManager, TrainState
from xaytune.tuning.metrics import capture, materialize
from xaytune.tuning.trackers.tracker import Point, TrackedTrial, Tracker

__all__ = ["Tracking", "missing"]

# Trackers are given what was measured so often, and at the end of each epoch.
_EVERY_S = 2.0
_CLASSES: Mapping[TrackerName, str] = {"tensorboard": "TensorBoard", "mlflow": "Mlflow", "wandb": "Wandb"}


def missing(trackers: Iterable[TrackerName]) -> list[Problem]:
    """Returns which trackers of a spec are not installed, and how to mend that."""
    return [
        Problem(("trackers", index), f"{name} is not installed: pip install 'xaytune[{name}]'")
        for index, name in enumerate(trackers)
        if importlib.util.find_spec(name) is None
    ]


def prepare(trackers: Iterable[TrackerName]) -> None:
    """Imports trackers: what they start then belongs to the process, not to its first trial."""
    for name in trackers:
        importlib.import_module(f"xaytune.tuning.trackers.{name}")


def _open(name: TrackerName, trial: TrackedTrial) -> Tracker:
    module = importlib.import_module(f"xaytune.tuning.trackers.{name}")
    tracker: Tracker = getattr(module, _CLASSES[name])(trial)
    return tracker


class Tracking:
    """Gives the trackers of a trial what it measures.

    A metric of the training is given at every step; one that an evaluation sets, where it was set.

    Args:
        trackers: Their names.
        trial: The trial.
    """

    def __init__(self, trackers: Iterable[TrackerName], trial: TrackedTrial) -> None:
        self._trackers = [_open(name, trial) for name in trackers]
        self._rows: list[tuple[float, Row]] = []
        self._seen: dict[str, Any] = {}  # metrics as the last step left them
        self._evaluated: set[str] = set()
        self._given = time.monotonic()

    def attach(self, callbacks: CallbackManager) -> None:
        """Registers the handlers, after all others."""
        callbacks.on("step_end", last=True)(self._on_step_end)
        callbacks.on("eval_end", last=True)(self._on_evaluated)
        callbacks.on("epoch_end", last=True)(self._on_epoch_end)
        callbacks.on("train_end", last=True)(self._on_evaluated)

    def close(self, status: str, reason: str | None, best: float | None) -> None:
        """Gives the trackers what is left, and ends them."""
        self._give()
        for tracker in self._trackers:
            tracker.close(status, reason, best)

    def _on_step_end(self, state: TrainState) -> None:
        self._seen = dict(state.metrics)
        self._add(state, {name: value for name, value in state.metrics.items() if name not in self._evaluated})
        if time.monotonic() >= self._given + _EVERY_S:
            self._give()

    def _on_evaluated(self, state: TrainState) -> None:
        new = {n: v for n, v in state.metrics.items() if n not in self._seen or v is not self._seen[n]}
        self._evaluated |= new.keys()
        self._seen = dict(state.metrics)
        if new:
            self._add(state, new)

    def _on_epoch_end(self, state: TrainState) -> None:
        self._on_evaluated(state)
        self._give()

    def _add(self, state: TrainState, metrics: Mapping[str, Any]) -> None:
        captured = {name: capture(name, value) for name, value in metrics.items()}
        self._rows.append((time.time(), Row(state.epoch, state.step, state.global_step, captured)))

    def _give(self) -> None:
        self._given = time.monotonic()
        rows, self._rows = self._rows, []
        materialize([row for _, row in rows])
        points = [Point(row.global_step, at, row.metrics) for at, row in rows if row.metrics]
        for tracker in self._trackers:
            tracker.log(points)
