"""The reporter: the handlers that turn the events of a trial into messages, and a driver's answers into stops."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from xaytune.messages import (
    Assignment,
    DecisionDue,
    Ended,
    EndStatus,
    Failure,
    Heartbeat,
    Length,
    Task,
)
from xaytune.records.history import Row
from xaytune.sweep.time_axis import LevelPoints
from xaytune.trainer.callbacks import CallbackManager, Event, Handler, Pause, TrainState, may_be_late, metrics_only
from xaytune.trainer.handlers import forget
from xaytune.trial.common.link import Link
from xaytune.trial.run.epochs import Epochs
from xaytune.trial.run.judging import Judging
from xaytune.trial.run.stopping import Stopping
from xaytune.trial.run.unreported import Unreported

# Seconds between two looks whether there is something to read or to send, which cost more than a step's row.
_LOOK_S = 0.02
# Checkpoints are reported soon: what is not recorded is lost with the process; but not more often than this.
_QUIET_S = 1.0
# Rows that are kept here at most.
_MAX_ROWS = 16_384
_TRAINED_ON = (
    "a trial trained on after it was told to stop: what it trained then does not count; leave the loop where "
    "state.should_stop is True"
)
_BEGAN_AGAIN = (
    "a trial that has a checkpoint began again from its first step: let the recipe load trial.latest_checkpoint, "
    "or say what to keep (trial.keep(model=model, optimizer=optimizer))"
)


class Reporter:
    """Keeps a row of every step, sends heartbeats, and asks at decision points.

    Its handlers run after all others of their event, on the thread that trains: there is no other.

    Args:
        task: What all trials of the sweep share.
        assignment: What is this trial's own.
        checkpoint_dir: Where the trial's checkpoints are written.
        link: The way to the driver.

    Attributes:
        stopping: How the run is told to stop, once it is.
        state: The run's, once it has one.
        ended: Whether ``train_end`` was fired.
        error_fired: Whether ``error`` was.
        save_checkpoint: Saves the run, if its loop gave the means to.
        unreported: What was trained since the last message.
        points: When the trial is judged.
    """

    def __init__(self, task: Task, assignment: Assignment, checkpoint_dir: Path, link: Link) -> None:
        self.stopping = Stopping(assignment.stop)
        self.state: TrainState | None = None
        self.ended = self.error_fired = False
        self.save_checkpoint: Callable[[], Path] | None = None
        epochs = Epochs(0 if task.points.axis.by_step else assignment.last_judged, assignment.judged_step)
        self.unreported = Unreported(task.objective, checkpoint_dir, epochs)
        self._sender = assignment.sender
        self._link, self._process = link, os.getpid()
        self.points, self._heartbeat_s = task.points, task.heartbeat_s
        self._metric = task.objective.metric
        self._judging = Judging(task.objective.metric, task.points, assignment.last_judged)
        self._checkpoints, self._taken_over_at = assignment.checkpoints, assignment.taken_over_at
        self._begun = False  # whether a step, or an epoch without one, has ended in this attempt
        self._epoch_ended_at = -1  # the step after which one did, until it is evaluated again
        self._next_look = self._saved_told = 0.0
        self._told = time.monotonic()

    def attach(self, callbacks: CallbackManager) -> None:
        """Registers the handlers, after all others but the first, which others that raise must not hide."""
        self.unreported.find_checkpoints()  # those that the attempt is to resume from are there by now
        callbacks.on("error")(metrics_only(self._note_error))
        callbacks.on("train_end")(metrics_only(self._note_end))
        handlers: dict[Event, Handler] = {
            "train_start": self._on_train_start,
            "step_end": may_be_late(self._on_step_end),
            "eval_start": self._judging.evaluation_starts,
            "eval_end": self._on_eval_end,
            "epoch_end": self._on_epoch_end,
            "checkpoint_saved": self._on_checkpoint_saved,
            "train_end": self._on_train_end,
        }
        for event, handler in handlers.items():
            callbacks.on(event, last=True)(metrics_only(handler))

    def check_process(self) -> None:
        """Raises RuntimeError in a fork of the run's process: the way to the driver is not the fork's."""
        if os.getpid() != self._process:
            raise RuntimeError(
                f"process {os.getpid()} uses the trial of process {self._process}, of which it is a fork: a trial "
                "belongs to the process of its recipe; hand it there what was measured here, through a queue"
            )

    def look(self, state: TrainState) -> None:
        """Takes a request to stop between two steps: the epoch is broken off there."""
        self.stopping.take(self._link.stop_request())
        if self.stopping.request is not None and not state.should_stop:
            self.stopping.tell_after_step(state)

    def end(
        self, status: EndStatus, reason: str | None, failure: Failure | None = None
    ) -> tuple[Ended, list[Row]]:
        """Returns the message that tells how the run ended, with its rows.

        It is judged if it ended by itself at a decision point.

        Args:
            status: ``completed``, ``stopped``, ``paused`` or ``failed``.
            reason: Why, where there is more to say than that it was finished.
            failure: Why it failed, if it did: what it left in its state then does not matter.
        """
        self.check_process()
        state = self.state if failure is None else None
        due = False
        if state is not None and not state.should_stop and self._judging.is_fresh(state):
            if self.points.axis.by_step:
                due = self._judging.take_due(state.global_step)
            elif self.stopping.cut_at != state.global_step:
                due = self._judging.take_due(self.unreported.epochs.finished)
        if state is not None:
            self.unreported.amend_step(state, at_end=True)  # no value is told that has no row
        fields, rows = self.unreported.take(
            state, keep_last=False, all_checkpoints=True, lenient=failure is not None
        )
        return Ended(**self._sender, **fields, status=status, reason=reason, due=due, failure=failure), rows

    def is_finished(self, state: TrainState) -> bool:
        """Whether the run has trained all that it was to."""
        return 0 < state.num_epochs <= self.unreported.epochs.finished or 0 < state.max_steps <= state.global_step

    def train_on(self, state: TrainState) -> None:
        """Takes in that another loop begins, before its first body: the end of the one before was not the run's.

        Raises:
            Pause: The run is to be paused where it stands.
        """
        if isinstance(self.points, LevelPoints):
            self._tell_length(state, self.points)
        self._judge(state, self._reached(state))
        if not state.should_stop:
            self.stopping.tell(state)

    def ignored_pause(self, state: TrainState) -> bool:
        """Whether the run was to pause, and its loop trained on until it had trained all: that is no pause."""
        return self.stopping.pauses and self.is_finished(state) and self.stopping.cut_at != state.global_step

    # The hot path: nothing here leaves the process, or waits for a device.
    def _on_step_end(self, state: TrainState) -> None:
        if not self._begun:
            self._begin(state, by_step=True)
        if self.stopping.final is not None and self._overruns(state):
            return
        self.unreported.add_step(state)
        self.state = state
        if self._judging.step_reached(state.global_step):
            self._judge(state, state.global_step)
        now = time.monotonic()
        if now >= self._next_look:
            self._look(now)
        if self.stopping.request is not None or state.should_stop or 0 < state.max_steps <= state.global_step:
            self.stopping.tell_after_step(state)

    def _begin(self, state: TrainState, *, by_step: bool) -> None:
        """Takes in where the attempt begins, from the first step that it has trained, or epoch without one."""
        self._begun = True
        if by_step:
            before = max(0, state.global_step - 1)
        else:
            before = max((step for step in self._checkpoints if step <= state.global_step), default=0)
        if self.state is None or before in self._checkpoints:  # it was resumed later than train_start, if at all
            self.unreported.resume_at(before)
        before = self.unreported.newest_row().global_step
        if before == 0 and self._checkpoints and self.unreported.saved():
            self.unreported.note(_BEGAN_AGAIN)
        if self.unreported.epochs.begin(state, before, by_step=by_step):
            self._judging.take_due(self._reached(state))

    def _overruns(self, state: TrainState) -> bool:
        """Whether the loop has trained on after it was told to stop: that does not count, which is said."""
        if not self.stopping.overruns(state):
            return False
        self.state = self.stopping.final
        self.unreported.note(_TRAINED_ON)
        return True

    def _look(self, now: float) -> None:
        """Takes a request to stop that came meanwhile, and sends a heartbeat where one is due."""
        self.check_process()
        self._next_look = now + _LOOK_S
        self.stopping.take(self._link.stop_request())
        quiet = now - self._told
        due = quiet >= self._heartbeat_s or (bool(self.unreported.checkpoints) and quiet >= _QUIET_S)
        if (due and not self._link.busy) or len(self.unreported.rows) >= _MAX_ROWS:
            self._tell_progress(now, keep_last=True)

    def _tell_progress(self, now: float, *, keep_last: bool) -> None:
        self._told = now
        fields, rows = self.unreported.take(None, keep_last=keep_last, all_checkpoints=False)
        self._link.tell(Heartbeat(**self._sender, **fields), rows)

    def _tell_saved(self, state: TrainState) -> None:
        """Tells of a checkpoint at the end of an epoch: the next step, which may be one too, is not waited for."""
        now = time.monotonic()
        ends = state.should_stop or self.is_finished(state)  # which is told at once
        due = now - self._saved_told >= _QUIET_S and not self._link.busy
        if state.global_step in self.unreported.checkpoints and due and not ends:
            self._saved_told = now
            self._tell_progress(now, keep_last=False)

    def _on_train_start(self, state: TrainState) -> None:
        if self.ended:
            raise RuntimeError(
                "a trial is one run, and train_start was fired again after train_end: what else there is to "
                "train, such as a first phase or the other folds, has callbacks of its own, or a Trainer that is "
                "not given the trial"
            )
        if self._begun:
            raise RuntimeError(
                "train_start was fired after the first step or epoch of the run: fire it once, before all others; "
                "and a loop that fires its events itself does not call trial.report()"
            )
        if state.global_step == self._taken_over_at:
            forget(state.metrics, self._metric)  # what came with the checkpoint is what another trial was worth
        self.state = state
        self.unreported.epochs.resume(state)
        self.unreported.resume_at(state.global_step)
        if isinstance(self.points, LevelPoints):
            self._tell_length(state, self.points)
        if state.global_step > 0:
            self._judging.resume(state, self._reached(state))
        self.stopping.tell(state)

    def _tell_length(self, state: TrainState, points: LevelPoints) -> None:
        """Says how long the run is to be: when it is judged follows from that."""
        length = max(0, points.axis.of(epoch=state.num_epochs, global_step=state.max_steps))
        if length and not points.milestones:
            self.points = points.of_length(length)
            self._judging.judge_at(self.points)
        self._link.tell(Length(**self._sender, length=length), [])

    def _on_eval_end(self, state: TrainState) -> None:
        if self._overruns(state):
            return
        self._epoch_ended_at = -1
        self.unreported.evaluated(state)
        self._judging.evaluation_ends(state)
        if self.points.axis.by_step and self._judge(state, state.global_step):
            self.stopping.cut_by_evaluation_at = state.global_step
        elif self.stopping.final is not None:
            self.stopping.tell(state)  # it was told before, and this is its last evaluation

    def _on_epoch_end(self, state: TrainState) -> None:
        if not self._begun:
            self._begin(state, by_step=False)
        if not state.should_stop and self.unreported.epochs.are_without_step(state):
            state.step = 1  # in a loop without steps, an epoch is one
            state.global_step += 1
            self.unreported.add_step(state)
        if self._overruns(state):
            return
        self.state = state
        self.unreported.amend_step(state)
        self.unreported.look_for_metric(state)
        stopping = self.stopping
        stopped = stopping.cut_by_evaluation_at == state.global_step
        self.unreported.epochs.end(state, cut=stopping.cut_at == state.global_step, cut_by_evaluation=stopped)
        if not self.points.axis.by_step or self.points.at_every_evaluation:
            self._judge(state, self._reached(state))
        self._look(time.monotonic())
        # A run that is over is not to be paused: it would be resumed for nothing.
        if not (stopping.pauses and self.is_finished(state)):
            stopping.tell(state)
        self._epoch_ended_at = state.global_step
        self._tell_saved(state)

    def _on_checkpoint_saved(self, state: TrainState) -> None:
        if not self.stopping.overrun:
            self.unreported.add_checkpoint()
            if self._epoch_ended_at == state.global_step:
                self._tell_saved(state)

    def _note_error(self, state: TrainState) -> None:
        self.error_fired = True

    def _note_end(self, state: TrainState) -> None:
        self.ended = True

    def _on_train_end(self, state: TrainState) -> None:
        if not self.stopping.overrun:
            self.state = state
            self.unreported.amend_step(state)

    def _judge(self, state: TrainState, at: int) -> bool:
        """Asks for a decision where one is due, and tells whether it is to stop.

        A run that is only to be paused is judged before: a decision must not be left out.

        Raises:
            Pause: The answer is that the run is to be paused, which was saved here.
        """
        stopping = self.stopping.request is not None and not self.stopping.pauses
        if stopping or state.should_stop or self.is_finished(state):  # the last message speaks of it then
            return False
        due = self._judging.decision_due(state, at)
        if due is None:
            return False
        self.check_process()
        if self.points.pausing and self.save_checkpoint is not None:
            self.save_checkpoint()
        fields, rows = self.unreported.take(state, keep_last=not self.points.pausing, all_checkpoints=False)
        asked = time.monotonic()
        answer = self._link.ask(DecisionDue(**self._sender, **fields, due=due), rows)
        self._told = time.monotonic()
        self.unreported.waited(self._told - asked)
        self.stopping.take(answer)
        if answer is not None and answer.status == "paused" and self.points.pausing:
            raise Pause
        if self.stopping.request is None:
            return False
        self.stopping.tell(state)
        return True

    def _reached(self, state: TrainState) -> int:
        return self.points.axis.of(epoch=self.unreported.epochs.finished, global_step=state.global_step)
