"""The reporter: the handlers that turn the events of a trial into messages, and a driver's answers into stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from xaytune.records.history import Row
from xaytune.sweep.time_axis import LevelPoints
from xaytune.trainer.callbacks import CallbackManager, Pause, TrainState
from xaytune.trial.judging import Judging
from xaytune.trial.messages import (
    Assignment,
    DecisionDue,
    Ended,
    Failure,
    Heartbeat,
    Length,
    Message,
    StopRequest,
    Task,
)
from xaytune.trial.progress import Untold

__all__ = ["Link", "Reporter"]

# Between two looks whether there is something to read or to send, which cost more than a step's row.
_LOOK_S = 0.02
# Checkpoints are told of soon, for what is not recorded is lost with the process; but not more often than this.
_QUIET_S = 1.0
# So many rows at most are kept here.
_MAX_ROWS = 16_384


class Link(Protocol):
    """The way to the driver."""

    @property
    def busy(self) -> bool:
        """Whether a heartbeat would have to wait."""

    def tell(self, message: Message, rows: Sequence[Row]) -> None:
        """Sends a message, with the rows that are its history, and does not wait."""

    def ask(self, message: DecisionDue, rows: Sequence[Row]) -> StopRequest | None:
        """Sends a message, waits until training may go on, and returns the request to stop, if there is one."""

    def stop_request(self) -> StopRequest | None:
        """Returns a request to stop that has come unasked."""


class Reporter:
    """Keeps a row of every step, sends heartbeats, and asks at decision points.

    Its handlers run after all others of their event, on the thread that trains: there is no other.

    Args:
        task: What all trials of the sweep share.
        assignment: What is this trial's own.
        checkpoint_dir: Where the trial's checkpoints are written.
        link: The way to the driver.

    Attributes:
        stop_request: Why the run is to stop, once it is.
        state: The run's, once it has one.
        ended: Whether ``train_end`` was fired.
        save_checkpoint: Saves the run, if its loop gave the means to.
        untold: What was trained since the last message.
        points: When the trial is judged.
    """

    def __init__(self, task: Task, assignment: Assignment, checkpoint_dir: Path, link: Link) -> None:
        self.stop_request: StopRequest | None = assignment.stop
        self.state: TrainState | None = None
        self.ended = False
        self.save_checkpoint: Callable[[], Path] | None = None
        self.untold = Untold(task.objective, checkpoint_dir)
        self._sender: dict[str, Any] = {"trial": assignment.trial, "attempt": assignment.attempt}
        self._link = link
        self.points, self._heartbeat_s = task.points, task.heartbeat_s
        self._judging = Judging(task.objective.metric, task.points, assignment.judged_until)
        self._broken_off = False  # whether the current epoch ended before its last batch
        self._next_look = 0.0
        self._told = time.monotonic()

    def attach(self, callbacks: CallbackManager) -> None:
        """Registers the handlers, after all others but the first, which others that raise must not hide."""
        callbacks.on("train_end")(self._note_end)
        callbacks.on("train_start", last=True)(self._on_train_start)
        callbacks.on("step_end", last=True)(self._on_step_end)
        callbacks.on("eval_start", last=True)(self._judging.evaluation_starts)
        callbacks.on("eval_end", last=True)(self._on_eval_end)
        callbacks.on("epoch_end", last=True)(self._on_epoch_end)
        callbacks.on("checkpoint_saved", last=True)(lambda state: self.untold.add_checkpoint())
        callbacks.on("train_end", last=True)(self._on_train_end)

    def look(self, state: TrainState) -> None:
        """Takes a request to stop between two steps: the epoch is broken off there."""
        self._take(self._link.stop_request())
        if self.stop_request is not None and not state.should_stop:
            self._broken_off = True
            state.stop_training()

    def end(self, status: Any, reason: str | None, failure: Failure | None = None) -> tuple[Ended, list[Row]]:
        """Returns the message that tells how the run ended, with its rows.

        It is judged if it ended by itself at a decision point.

        Args:
            status: ``completed``, ``stopped``, ``paused`` or ``failed``.
            reason: Why, where there is more to say than that it was finished.
            failure: Why it failed, if it did: what it left in its state then does not matter.
        """
        state = self.state if failure is None else None
        due = False
        if state is not None and not state.should_stop and self._judging.is_fresh(state):
            if self.points.axis.by_step:
                due = self._judging.take_due(state.global_step)
            elif not self._broken_off:
                due = self._judging.take_due(self.untold.epochs)
        fields, rows = self.untold.take(state, keep_last=False, all_checkpoints=True, lenient=failure is not None)
        return Ended(**self._sender, **fields, status=status, reason=reason, due=due, failure=failure), rows

    # The hot path: nothing here leaves the process, or waits for a device.
    def _on_step_end(self, state: TrainState) -> None:
        self.untold.add_step(state)
        if self.state is None:
            self.untold.resumed_at = state.global_step - 1
        self.state = state
        if self._judging.step_reached(state.global_step):
            self._judge(state, state.global_step)
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_S
            self._look(now)
        if self.stop_request is not None:
            state.stop_training()
        self._broken_off = state.should_stop or 0 < state.max_steps <= state.global_step

    def _look(self, now: float) -> None:
        """Takes a request to stop that came meanwhile, and sends a heartbeat where one is due."""
        self._take(self._link.stop_request())
        quiet = now - self._told
        due = quiet >= self._heartbeat_s or (bool(self.untold.checkpoints) and quiet >= _QUIET_S)
        if (due and not self._link.busy) or len(self.untold.rows) >= _MAX_ROWS:
            self._told = now
            fields, rows = self.untold.take(None, keep_last=True, all_checkpoints=False)
            self._link.tell(Heartbeat(**self._sender, **fields), rows)

    def _take(self, request: StopRequest | None) -> None:
        """Takes a request to stop; the first one counts, but for one that only pauses."""
        if request is not None and (self.stop_request is None or self.stop_request.status == "paused"):
            self.stop_request = request

    def _on_train_start(self, state: TrainState) -> None:
        if self.ended:
            raise RuntimeError(
                "a trial is one run, and train_start was fired again after train_end: train what else there is "
                "to train, such as the other folds, with callbacks of its own"
            )
        self.state, self.untold.epochs = state, state.epoch
        self.untold.resumed_at = state.global_step
        if isinstance(self.points, LevelPoints):
            self._tell_length(state, self.points)
        if state.global_step > 0:
            self._judging.resume(state, self._reached(state))
        if self.stop_request is not None:
            state.stop_training()

    def _tell_length(self, state: TrainState, points: LevelPoints) -> None:
        """Says how long the run is to be: when it is judged follows from that."""
        length = max(0, points.axis.of(epoch=state.num_epochs, global_step=state.max_steps))
        if length and not points.milestones:
            self.points = points.of_length(length)
            self._judging.judge_at(self.points)
        self._link.tell(Length(**self._sender, length=length), [])

    def _on_eval_end(self, state: TrainState) -> None:
        self.untold.amend_step(state)
        self._judging.evaluation_ends(state)
        if self.points.axis.by_step:
            self._judge(state, state.global_step)

    def _on_epoch_end(self, state: TrainState) -> None:
        self.state = state
        if not self._broken_off:
            self.untold.epochs = state.epoch + 1
        self.untold.amend_step(state)
        if not self.points.axis.by_step or self.points.at_every_evaluation:
            self._judge(state, self._reached(state))
        # A run that is over is not to be paused: it would be resumed for nothing.
        if self.stop_request is not None and not (self.stop_request.status == "paused" and self._over(state)):
            state.stop_training()

    def _note_end(self, state: TrainState) -> None:
        self.ended = True

    def _on_train_end(self, state: TrainState) -> None:
        self.state = state
        self.untold.amend_step(state)

    def _judge(self, state: TrainState, at: int) -> None:
        """Asks for a decision where one is due.

        A run that is only to be paused is judged before: a decision must not be left out.

        Raises:
            Pause: The answer is that the run is to be paused, which was saved here.
        """
        stopping = self.stop_request is not None and self.stop_request.status != "paused"
        if stopping or self._over(state):
            return
        due = self._judging.decision_due(state, at)
        if due is None:
            return
        if self.points.pausing and self.save_checkpoint is not None:
            self.save_checkpoint()
        fields, rows = self.untold.take(state, keep_last=not self.points.pausing, all_checkpoints=False)
        answer = self._link.ask(DecisionDue(**self._sender, **fields, due=due), rows)
        self._told = time.monotonic()
        self._take(answer)
        if answer is not None and answer.status == "paused" and self.points.pausing:
            raise Pause
        if self.stop_request is not None:
            state.stop_training()

    def _reached(self, state: TrainState) -> int:
        return self.points.axis.of(epoch=self.untold.epochs, global_step=state.global_step)

    def _over(self, state: TrainState) -> bool:
        """Whether the loop ends here anyway: the last message speaks of it then."""
        return (
            state.should_stop
            or 0 < state.num_epochs <= self.untold.epochs
            or 0 < state.max_steps <= state.global_step
        )
