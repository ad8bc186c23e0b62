"""What a trial has not reported yet: the rows of its steps, its checkpoints and its best value."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xaytune.errors import nearest
from xaytune.records.history import Row
from xaytune.records.trial_record import Best
from xaytune.sweep.objective import Objective
from xaytune.trainer import checkpoint_files
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.checkpoint_files import step_of
from xaytune.trial.common.metrics import capture, materialize, readable
from xaytune.trial.run.epochs import Epochs

logger = logging.getLogger(__name__)


class Unreported:
    """What is not reported yet, and what every message repeats.

    Args:
        objective: The sweep's.
        checkpoint_dir: Where the trial's checkpoints are written.
        epochs: Those that are finished.

    Attributes:
        rows: Of the steps, the newest last. Their metrics may lie on a device still.
        checkpoints: Paths of those written, by step.
        damaged: Paths of those that were found to be, by step.
        resumed_at: The step that the attempt began at.
        best: Where the metric was best so far, of what was reported.
        epochs: Those that are finished.
    """

    def __init__(self, objective: Objective, checkpoint_dir: Path, epochs: Epochs) -> None:
        self.rows: list[Row] = []
        self.checkpoints: dict[int, str] = {}
        self.damaged: dict[int, str] = {}
        self.resumed_at: int | None = None
        self.epochs = epochs
        self._objective = objective
        self._checkpoint_dir = checkpoint_dir
        self._discarded: dict[int, str] = {}
        self.best: Best | None = None
        self._newest: tuple[dict[str, float], int] = {}, 0  # metrics and step of the newest row that was reported
        self._begun = time.monotonic()
        self._written_before: dict[Path, int | None] = {}
        self._row = Row(0, 0, 0, {})  # of the last step
        self._trained = False  # whether this attempt has a row
        self._evaluated = False  # whether it was evaluated
        self._notes: list[str] = []
        self._noted: set[str] = set()

    def find_checkpoints(self) -> None:
        """Learns which checkpoints there are before the attempt writes its own."""
        found = checkpoint_files.list_checkpoints(self._checkpoint_dir)
        self._written_before = {path: _written_at(path) for path in found}

    def resume_at(self, global_step: int) -> None:
        """Takes in at which step the attempt began."""
        told_again = bool(self.rows) and self._row.global_step == global_step
        if self.resumed_at != global_step and not told_again:
            self.resumed_at = global_step
            self._row = Row(0, 0, global_step, {})

    def waited(self, seconds: float) -> None:
        """Takes in that training stood still for a decision: that is no time of training."""
        self._begun += seconds

    def note(self, text: str) -> None:
        """Takes what whoever runs the sweep should know of its recipe, once."""
        if text not in self._noted:
            self._noted.add(text)
            self._notes.append(text)
            logger.warning(text)

    def take_notes(self) -> tuple[str, ...]:
        """Returns what was noted and not told yet."""
        notes, self._notes = tuple(self._notes), []
        return notes

    def add_step(self, state: TrainState) -> None:
        """Adds the row of a step: nothing is copied that need not be, and no device is waited for.

        Raises:
            ValueError: It is no new step.
        """
        if state.global_step <= self._row.global_step:
            raise ValueError(
                f"step_end was fired with state.global_step {state.global_step} after step "
                f"{self._row.global_step}: count each optimizer step (state.global_step += 1) before its step_end"
            )
        metrics = {k: v if type(v) is float else capture(v) for k, v in state.metrics.items()}
        self._row = Row(state.epoch, state.step, state.global_step, metrics)
        self.rows.append(self._row)
        self._trained = True

    def evaluated(self, state: TrainState) -> None:
        """Adds to the row of the last step what an evaluation has measured.

        A run that was broken off between a step and its evaluation makes that where it resumes: its row was told
        by the attempt before, and is told again. So is one that was told at the end of its epoch.
        """
        self._evaluated = True
        told = not self._trained or (not self.rows and self._row.epoch == state.epoch)
        if told and self._row.global_step == state.global_step > 0:
            self._row = Row(0, 0, state.global_step - 1, {})
            self.resumed_at = state.global_step - 1
        self.amend_step(state)

    def look_for_metric(self, state: TrainState) -> None:
        """Notes, at the end of an epoch, that evaluations do not give the metric of the sweep."""
        metric = self._objective.metric
        if self._evaluated and metric not in state.metrics:
            known = nearest(metric, state.metrics)
            self.note(f"an epoch was evaluated, and {metric!r} is not among its metrics; {known}")

    def newest_row(self) -> Row:
        """Returns the row of the last step, as it stood when the step ended."""
        return self._row

    def amend_step(self, state: TrainState, *, at_end: bool = False) -> None:
        """Adds to the row of the last step what was measured after it, or a row for steps without step_end.

        Args:
            state: The run.
            at_end: Whether the run has ended: the loop may have counted another epoch already.
        """
        if state.global_step > self._row.global_step:
            self.add_step(state)
        elif (
            self.rows and self._row.global_step == state.global_step and (at_end or self._row.epoch == state.epoch)
        ):
            metrics = {name: capture(value) for name, value in state.metrics.items()}
            self.rows[-1] = self.rows[-1]._replace(metrics=metrics)

    def saved(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return bool(checkpoint_files.list_checkpoints(self._checkpoint_dir))

    def add_checkpoint(self) -> None:
        """Adds the newest checkpoint of this attempt; where it began again, others may be of later steps."""
        found = checkpoint_files.list_checkpoints(self._checkpoint_dir)
        written = [path for path in found if _written_at(path) not in (None, self._written_before.get(path))]
        if written:
            self.checkpoints[step_of(written[-1])] = self._within_sweep(written[-1])

    def discard(self, path: Path) -> None:
        """Takes a checkpoint that is to be deleted as soon as it is not needed to resume from."""
        self.checkpoints.pop(step_of(path), None)
        self._discarded[step_of(path)] = self._within_sweep(path)

    def _within_sweep(self, path: Path) -> str:
        """Returns the path of a checkpoint within the sweep's folder, which may be moved."""
        return str(path.relative_to(self._checkpoint_dir.parents[1]))

    def take(
        self, state: TrainState | None, *, keep_last: bool, all_checkpoints: bool, lenient: bool = False
    ) -> tuple[dict[str, Any], list[Row]]:
        """Takes what is to be told.

        Args:
            state: Where training stands, if it stands still; else the newest row says how far it is.
            keep_last: Whether the last step's row stays: an evaluation may add to it.
            all_checkpoints: Whether checkpoints beyond the rows go along too. A resume must find a row of every
                step before a checkpoint.
            lenient: Leave out metrics that cannot be read: those on a device that has failed.

        Returns:
            The fields of a :class:`~xaytune.messages.Progress`, and the rows that go with it.
        """
        rows = self._take_rows(keep_last=keep_last, lenient=lenient)
        metrics, global_step = self._newest
        epoch = self.epochs.finished
        if state is None and self.rows:  # the row that stays may be the last of an epoch, which has ended then
            epoch = min(epoch, self.rows[-1].epoch)
        if state is not None:
            metrics, global_step = readable(state.metrics, lenient=lenient), state.global_step
            self._consider(metrics, state.epoch, global_step)
        checkpoints = _pop(self.checkpoints, math.inf if all_checkpoints else self._newest[1])
        fields = {
            "epoch": epoch,
            "global_step": global_step,
            "metrics": metrics,
            "best": self.best,
            "seconds": time.monotonic() - self._begun,
            "checkpoints": checkpoints,
            "discarded": _pop(self._discarded, max(checkpoints, default=0) - 1),
            "damaged": self.damaged,
            "resumed_at": self.resumed_at,
            "notes": self.take_notes(),
        }
        self.damaged, self.resumed_at = {}, None
        return fields, rows

    def _take_rows(self, *, keep_last: bool, lenient: bool) -> list[Row]:
        """Takes the rows, with numbers for what lies on a device, and learns from them what was best."""
        rows = self.rows[:-1] if keep_last else self.rows
        for name in materialize(rows, lenient=lenient) - {"error"}:
            self.note(f"the metric {name!r} is left out: a metric is a number, a tensor or an array of one number")
        self.rows = self.rows[-1:] if keep_last else []
        for row in rows:
            self._consider(row.metrics, row.epoch, row.global_step)
        if rows:
            self._newest = dict(rows[-1].metrics), rows[-1].global_step
        return rows

    def _consider(self, metrics: Mapping[str, float], epoch: int, global_step: int) -> None:
        """Takes a value of the metric as the best, if it is."""
        value = metrics.get(self._objective.metric)
        if value is None or not math.isfinite(value):
            return
        if self._objective.is_better(value, self.best.value if self.best is not None else None):
            self.best = Best(value, epoch + 1, global_step, dict(metrics))


def _written_at(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # the driver deletes what is not to be kept
        return None


def _pop(paths: dict[int, str], until: float) -> dict[int, str]:
    """Takes out the paths of the steps up to one."""
    return {step: paths.pop(step) for step in list(paths) if step <= until}
