"""The reporter: the handlers that turn the events of a trial into history and decisions."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from xaytune.records import history
from xaytune.records.history import Row
from xaytune.records.state import Best
from xaytune.trainer import checkpoint
from xaytune.trainer.callbacks import CallbackManager, TrainState
from xaytune.trial.messages import DecisionPoints, Report, StopRequest
from xaytune.trial.metrics import capture, materialize, numbers

__all__ = ["Reporter"]

# So many rows at most are kept as python objects; packed they take a tenth of the memory.
_MAX_ROWS = 16_384
# Checkpoints are told of at once, but not more often than this.
_QUIET_S = 1.0


class Reporter:
    """Keeps a row of every step in memory, and stops at decision points to ask for a verdict.

    Its handlers run on the training thread, after all others of their event. Only :meth:`heartbeat` is called
    from another thread, while training goes on.

    Args:
        metric: Name of the sweep's metric.
        maximize: Whether a larger value is better.
        points: When the trial is judged.
        checkpoint_dir: Where the trial's checkpoints are written.
        decide: Hands a report over and waits until training may go on.
        tell: Hands a report over while training goes on.
        judged_until: The newest time at which the trial was judged before it was begun again.
    """

    def __init__(
        self,
        metric: str,
        maximize: bool,
        points: DecisionPoints,
        checkpoint_dir: Path,
        decide: Callable[[Report], None],
        tell: Callable[[Report], None],
        judged_until: int = 0,
    ) -> None:
        self.stop_request: StopRequest | None = None
        self.damaged: dict[int, str] = {}  # checkpoints that were found so, not reported
        self.state: TrainState | None = None
        self.ended = False
        self._broken_off = False  # whether the current epoch ended before its last batch
        self._metric, self._maximize = metric, maximize
        self._checkpoint_dir = checkpoint_dir
        self._decide, self._tell = decide, tell
        self._quiet_until = 0.0
        # Appending and popping are atomic: the hot path shares the rows with the main thread without a lock.
        self._rows: deque[Row] = deque()
        self._packed: list[bytes] = []
        self._packing = threading.Lock()
        self._checkpoints: dict[int, str] = {}  # written, not reported
        self._discarded: dict[int, str] = {}  # no longer needed once a later one is reported
        self._begins_at: int | None = None  # not reported
        self.save_checkpoint: Callable[[], Path] | None = None
        self._best: Best | None = None
        self._epochs = 0
        self._by_step = points.time_attr == "global_step"
        self._points = points
        self._next_judgement = points.after(0)
        self._judged_at = 0
        self._judged_until = judged_until
        self._measured_by_evaluation = False
        self._fresh = False
        self._before_evaluation: Any = None
        self._restored: Any = None  # the metric as a resumed run found it
        self._latest: tuple[dict[str, float], int] = {}, 0  # metrics and step of the newest packed row

    def attach(self, callbacks: CallbackManager) -> None:
        """Registers the handlers, after all others but the first, which others that raise must not hide."""
        callbacks.on("train_end")(self._note_end)
        callbacks.on("train_start", last=True)(self._on_train_start)
        callbacks.on("step_end", last=True)(self._on_step_end)
        callbacks.on("eval_start", last=True)(self._on_eval_start)
        callbacks.on("eval_end", last=True)(self._on_eval_end)
        callbacks.on("epoch_end", last=True)(self._on_epoch_end)
        callbacks.on("checkpoint_saved", last=True)(self._on_checkpoint_saved)
        callbacks.on("train_end", last=True)(self._on_train_end)

    def heartbeat(self) -> Report:
        """Returns a report of training that goes on."""
        return self._report("heartbeat", None)

    def last_report(self) -> Report:
        """Returns the report of a run that is over; it is judged if it ended by itself at a decision point."""
        report, state = self._report("end", self.state), self.state
        if state is not None and not state.should_stop and self._is_fresh(state):
            if self._by_step:
                report.due = self._due(report.global_step)
            elif not self._broken_off:
                report.due = self._due(report.epoch)
        return report

    def discard(self, path: Path) -> None:
        """Takes a checkpoint that is to be deleted as soon as it is not needed to resume from."""
        with self._packing:
            self._checkpoints.pop(checkpoint.step_of(path), None)
            self._discarded[checkpoint.step_of(path)] = self.within_sweep(path)

    def within_sweep(self, path: Path) -> str:
        """Returns the path of a checkpoint within the sweep's folder, which may be moved."""
        return str(path.relative_to(self._checkpoint_dir.parents[1]))

    def report_of_failure(self) -> Report:
        """Returns the report of a run that raised, whatever it left in its state."""
        return self._report("end", None)

    # The hot path: nothing here leaves the process, takes a lock or waits for a device.
    def _on_step_end(self, state: TrainState) -> None:
        metrics = {k: v if type(v) is float else capture(k, v) for k, v in state.metrics.items()}
        if self.state is None:
            with self._packing:
                self._begins_at = state.global_step - 1
        self._rows.append(Row(state.epoch, state.step, state.global_step, metrics))
        self.state, self._fresh = state, False
        if self._by_step and state.global_step >= self._next_judgement:
            self._judge(state, state.global_step)
        if self.stop_request is not None:
            state.stop_training()
        self._broken_off = state.should_stop or 0 < state.max_steps <= state.global_step
        if self._checkpoints and time.monotonic() >= self._quiet_until:
            # A heartbeat may be long in coming: what is not recorded is lost with the process.
            self._quiet_until = time.monotonic() + _QUIET_S
            self._tell(self.heartbeat())
        if len(self._rows) >= _MAX_ROWS:
            with self._packing:
                self._pack(keep=1)

    def _on_train_start(self, state: TrainState) -> None:
        if self.ended:
            raise RuntimeError(
                "a trial is one run, and train_start was fired again after train_end: train what else there is "
                "to train, such as the other folds, with callbacks of its own"
            )
        self.state, self._epochs = state, state.epoch
        with self._packing:
            self._begins_at = state.global_step
        if state.global_step > 0:
            self._resume(state)
        if self.stop_request is not None:
            state.stop_training()

    def _resume(self, state: TrainState) -> None:
        """Takes what was reached before the resume as judged, and what was measured before it as old."""
        self._restored = state.metrics.get(self._metric)
        reached = state.global_step if self._by_step else self._epochs
        # Where it was not judged yet, the evaluation of this very step may still be to come.
        self._due(reached if not self._by_step or reached == self._judged_until else reached - 1)

    def _on_eval_start(self, state: TrainState) -> None:
        self._before_evaluation = state.metrics.get(self._metric)

    def _on_eval_end(self, state: TrainState) -> None:
        self._update_last_row(state)
        value = state.metrics.get(self._metric)
        if value is not None and value is not self._before_evaluation:
            self._measured_by_evaluation = True
        self._fresh = self._measured_by_evaluation
        if self._by_step:
            self._judge(state, state.global_step)

    def _on_epoch_end(self, state: TrainState) -> None:
        self.state = state
        if not self._broken_off:
            self._epochs = state.epoch + 1
        self._update_last_row(state)
        if not self._by_step:
            self._judge(state, self._epochs)
        elif self._points.at_every_evaluation:
            self._judge(state, state.global_step)
        # A run that is over is not to be paused: it would be resumed for nothing.
        if self.stop_request is not None and not (self.stop_request.status == "paused" and self._over(state)):
            state.stop_training()

    def _on_checkpoint_saved(self, state: TrainState) -> None:
        written = checkpoint.list_checkpoints(self._checkpoint_dir)
        if written:
            with self._packing:
                self._checkpoints[checkpoint.step_of(written[-1])] = self.within_sweep(written[-1])

    def _note_end(self, state: TrainState) -> None:
        self.ended = True

    def _on_train_end(self, state: TrainState) -> None:
        self.state = state
        self._update_last_row(state)

    def _judge(self, state: TrainState, at: int) -> None:
        """Asks for a verdict where one is due: at a time that is judged, or where the metric is not finite.

        A run that is only to be paused is judged before: a decision must not be left out.
        """
        stopping = self.stop_request is not None and self.stop_request.status != "paused"
        if stopping or self._over(state) or not self._is_fresh(state):
            return
        value = capture(self._metric, state.metrics[self._metric])
        if value is None:
            got = state.metrics[self._metric]
            raise TypeError(f"the metric of the sweep must be a number: {self._metric!r} is {got!r}")
        due = self._due(at)
        if not due and math.isfinite(value):
            return
        self._fresh = False
        if self._points.pausing and self.save_checkpoint is not None:
            self.save_checkpoint()
        report = self._report("decision", state)
        report.due = due
        self._decide(report)
        if self.stop_request is not None:
            state.stop_training()

    def _is_fresh(self, state: TrainState) -> bool:
        """Whether the metric is there, and was measured since the last step where evaluations measure it."""
        value = state.metrics.get(self._metric, self._restored)
        return value is not self._restored and (self._fresh or not self._measured_by_evaluation)

    def _due(self, at: int) -> bool:
        """Tells whether a time is judged, once for each time."""
        if self._points.at_every_evaluation:
            due = at > self._judged_at
            self._judged_at = at
            return due
        due = at >= self._next_judgement
        if due:
            self._next_judgement = self._points.after(at)
        return due

    def _over(self, state: TrainState) -> bool:
        """Whether the loop ends here anyway: the last report speaks of it then."""
        return (
            state.should_stop or 0 < state.num_epochs <= self._epochs or 0 < state.max_steps <= state.global_step
        )

    def _update_last_row(self, state: TrainState) -> None:
        """Adds to the row of the last step what was measured after it."""
        if self._rows and self._rows[-1].global_step == state.global_step:
            metrics = {name: capture(name, value) for name, value in state.metrics.items()}
            self._rows[-1] = self._rows[-1]._replace(metrics=metrics)

    def _report(self, kind: Literal["heartbeat", "decision", "end"], state: TrainState | None) -> Report:
        """Makes a report of the latest row or, where training stands still, of its state."""
        at = None if state is None else (numbers(state.metrics), state.epoch, state.global_step)
        with self._packing:
            # The last step's row stays until the next step: an evaluation may add to it.
            self._pack(keep=0 if kind == "end" or (kind == "decision" and self._points.pausing) else 1)
            packed, self._packed = self._packed, []
            # A checkpoint beyond the rows has to wait: a resume must find a row of every step before it.
            checkpoints = _take(self._checkpoints, math.inf if kind == "end" else self._latest[1])
            discarded = _take(self._discarded, max(checkpoints, default=0) - 1)
            begins_at, self._begins_at = self._begins_at, None
            damaged, self.damaged = self.damaged, {}
            metrics, global_step = self._latest
            if at is not None:
                metrics, epoch, global_step = at
                self._consider(metrics, epoch, global_step)
        return Report(
            kind=kind,
            begins_at=begins_at,
            epoch=self._epochs,
            global_step=global_step,
            metrics=metrics,
            best=self._best,
            history=b"".join(packed) or None,
            checkpoints=checkpoints,
            discarded=discarded,
            damaged=damaged,
        )

    def _pack(self, keep: int) -> None:
        """Packs the rows but the last `keep`."""
        rows = [self._rows.popleft() for _ in range(len(self._rows) - keep)]
        if not rows:
            return
        materialize(rows)
        for row in rows:
            self._consider(row.metrics, row.epoch, row.global_step)
        self._packed.append(history.pack(rows))
        self._latest = dict(rows[-1].metrics), rows[-1].global_step

    def _consider(self, metrics: Mapping[str, float], epoch: int, global_step: int) -> None:
        """Takes a value of the metric as the best, if it is."""
        value = metrics.get(self._metric)
        if value is None or not math.isfinite(value):
            return
        if self._best is not None:
            better = value > self._best.value if self._maximize else value < self._best.value
            if not better:
                return
        self._best = Best(value, epoch + 1, global_step, dict(metrics))


def _take(paths: dict[int, str], until: float) -> dict[int, str]:
    """Takes out the paths of the steps up to one."""
    return {step: paths.pop(step) for step in list(paths) if step <= until}
