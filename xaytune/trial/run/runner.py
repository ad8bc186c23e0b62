"""A trial's run: the recipe with its handlers, from its first line to the message that tells how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaytune.errors import SkipTrial
from xaytune.messages import Assignment, Ended, EndStatus, Failure, Task
from xaytune.sweep.command import Command
from xaytune.sweep.options import reference_name
from xaytune.sweep.space import dotted
from xaytune.trainer.callbacks import CallbackManager, Pause, TrainState, fire_end, words_of
from xaytune.trainer.current import set_current_trial
from xaytune.trial.common.link import Link
from xaytune.trial.common.output import file_of, last_lines
from xaytune.trial.common.recipe import resolve
from xaytune.trial.run.failures import ProgramFailedError, ProgramLostError, failure_of
from xaytune.trial.run.reporter import Reporter
from xaytune.trial.run.resumable_checkpoints import checkpoint_dir_of, settle_checkpoints
from xaytune.trial.run.returned_values import (
    nothing_reported,
    notice_tune_report,
    report_returned,
    tune_report_failure,
)
from xaytune.trial.run.trial import Trial
from xaytune.trial.trackers.tracker import TrackedTrial
from xaytune.trial.trackers.tracking import Tracking

if TYPE_CHECKING:
    from xaytune.trainer.run import Run

_KEEPS_NOTHING = (
    "no checkpoint is written, because the recipe does not say what to keep: a trial that is restarted begins "
    "from its first step, and the best one cannot be loaded; call trial.keep(model=model, optimizer=optimizer) "
    "before the loop"
)


class NeedsOwnProcessError(BaseException):
    """Unwinds a trial that is to be trained in a process of its own: it has not ended, and fires nothing more."""


class RecipeRun:
    """Runs the recipe of one trial, all of it on the calling thread.

    Args:
        task: What all trials of the sweep share.
        assignment: What is this trial's own.
        link: The way to the driver.
        shared: What the sweep's setup returned.
        recipe: What trains, instead of the task's recipe.
        damaged: Checkpoints that were found to be damaged, if its checkpoints are settled already.
        conductor: Trains the recipe's Trainers, if they are not to train by themselves; it may raise
            :class:`NeedsOwnProcessError`.

    Attributes:
        callbacks: The trial's own handlers.
        reporter: What turns its events into messages.
        raised: What the recipe raised, if it did.
        trial: The trial, as its recipe sees it.
    """

    def __init__(
        self,
        task: Task,
        assignment: Assignment,
        link: Link,
        shared: Any = None,
        *,
        recipe: Callable[..., Any] | None = None,
        damaged: Mapping[int, str] | None = None,
        conductor: Callable[[Run], None] | None = None,
    ) -> None:
        self._task, self._assignment, self._link = task, assignment, link
        self._recipe, self._damaged = recipe, damaged
        self._tracking: Tracking | None = None
        self.raised: BaseException | None = None
        self._returned: Any = None
        self.callbacks = CallbackManager()
        checkpoint_dir = checkpoint_dir_of(task, assignment)
        self.reporter = Reporter(task, assignment, checkpoint_dir, link)
        self.trial = Trial(task, assignment, self.callbacks, checkpoint_dir, self.reporter, shared)
        self.trial.conductor = conductor
        set_current_trial(self.trial)

    def run(self) -> Ended:
        """Trains, tells how that ended, and returns it.

        However the recipe ends, but for a pause, ``train_end`` has been fired when this returns.

        Raises:
            ProgramLostError: The recipe says that its program was lost, which is no end of the trial.
        """
        try:
            self.begin(seeded=True)
            self._call_recipe()
        except ProgramLostError:
            raise
        except BaseException as error:
            return self.end(error)
        return self.end(None)

    def begin(self, *, seeded: bool) -> None:
        """Prepares the trial for what trains.

        Args:
            seeded: Whether random numbers and threads are set here; the program of a command sets its own.
        """
        damaged = self._damaged
        self.reporter.unreported.damaged |= (
            settle_checkpoints(self._task, self._assignment) if damaged is None else damaged
        )
        self.trial.checkpoint_dir.mkdir(parents=True, exist_ok=True)  # recipes may write there, too
        self._tracking = self._track()
        if seeded:
            self._seed()
        self.reporter.attach(self.callbacks)
        if self._tracking is not None:
            reporter = self.reporter
            self._tracking.attach(self.trial, reporter.unreported.newest_row, lambda: reporter.stopping.overrun)
        for reference in self._task.callbacks:
            resolve(reference)(self.trial, self._assignment.config)

    def end(self, raised: BaseException | None) -> Ended:
        """Ends a run whose recipe has returned, or raised; tells how it ended, and returns that."""
        try:
            return self._end_as(raised)
        finally:
            with contextlib.suppress(OSError):
                self.trial.checkpoint_dir.rmdir()  # where nothing was written

    def _end_as(self, raised: BaseException | None) -> Ended:
        if raised is None:
            try:
                self.trial.finish()
                if self.reporter.state is None:
                    self._take_returned()
                if self.reporter.state is not None and not self.reporter.ended:
                    self.callbacks.fire("train_end", self.reporter.state)
            except BaseException as error:
                raised = error
        if isinstance(raised, Pause):
            if self._tracking is not None and self.reporter.state is not None:
                self._tracking.catch_up(self.trial, self.reporter.state)
            request = self.reporter.stopping.request
            return self._end("paused", request.reason if request is not None else None)
        if isinstance(raised, NeedsOwnProcessError):
            return self._end("failed", str(raised), Failure("shared", str(raised)))
        if raised is None:
            return self._finish()
        self.raised = raised
        # What handlers raise now changes nothing of how the run failed.
        with contextlib.suppress(BaseException):
            self._fire_error(raised)
        return self._skip(raised) if isinstance(raised, SkipTrial) else self._fail(raised)

    def _seed(self) -> None:
        import torch

        from xaytune.trainer.random_state import seed_everything

        torch.set_num_threads(max(1, int(self._task.cpus)))
        seed_everything(self._assignment.seed)

    def _call_recipe(self) -> None:
        notice_tune_report()
        try:
            recipe = self._recipe or resolve(self._task.recipe)
            self._returned = recipe(self._assignment.config, self.trial)
        except SystemExit as exit:  # as a script ends
            if exit.code not in (None, 0):
                raise

    def _take_returned(self) -> None:
        """Takes what a recipe returned that has reported nothing."""
        if isinstance(self._returned, TrainState):
            self.reporter.state = self._returned
            self._returned.global_step = max(1, self._returned.global_step)
        else:
            report_returned(self._returned, self._task.objective.metric, self.callbacks)

    def _track(self) -> Tracking | None:
        if not self._task.trackers:
            return None
        assignment, sweep = self._assignment, self._task.sweep
        trial = TrackedTrial(
            sweep=sweep,
            id=f"{sweep}-{self._task.sweep_id}-{assignment.trial:05d}",
            number=assignment.trial,
            attempt=assignment.attempt,
            config=dotted(assignment.config),
            folder=Path(self._task.sweep_dir),
            global_step=max(assignment.checkpoints, default=0),
        )
        return Tracking(self._task.trackers, trial, self._task.tracker_timeout_s, self.reporter.unreported.note)

    def _fire_error(self, raised: BaseException) -> None:
        """Ends a run that raised as a Trainer would have, where its own loop did not."""
        self.trial.finish(raised)
        state = self.reporter.state
        if state is not None and not self.reporter.ended:
            fire_end(self.callbacks, state, None if self.reporter.error_fired else raised)

    def _finish(self) -> Ended:
        """Ends a run whose recipe returned."""
        request, state = self.reporter.stopping.request, self.reporter.state
        if state is not None and self.reporter.ignored_pause(state):
            state.should_stop = False
        if request is not None and (state is None or state.should_stop):
            return self._end(request.status, request.reason)
        if state is None and not isinstance(self._task.recipe, Command):
            name = reference_name(self._task.recipe)
            failure = nothing_reported(name, self._returned, self._task.objective.metric)
            return self._end("failed", failure.error, failure)
        if state is None or not state.should_stop:
            return self._end("completed", None)
        why = self.trial.stop_reason or f"a callback stopped it at step {state.global_step}"
        return self._end("completed", why)

    def _fail(self, error: BaseException) -> Ended:
        failure = error.failure if isinstance(error, ProgramFailedError) else failure_of(error)
        failure = tune_report_failure(error, self._task.objective.metric) or failure
        if isinstance(error, SystemExit):  # of a parser of arguments, for one, which has said why
            said = last_lines(Path(self._task.sweep_dir) / file_of(self._assignment.trial), 1)
            if said:
                failure = Failure(failure.kind, f"{failure.error}; it printed {said!r}", failure.traceback)
        return self._end("failed", failure.error, failure)

    def _skip(self, skipped: SkipTrial) -> Ended:
        """Ends a run whose recipe refuses its configuration: it has no value, and did not fail."""
        reason = f"skipped: {words_of(skipped) or 'the recipe gave no reason'}"
        return self._end("stopped", reason, Failure("skipped", reason))

    def _end(self, status: EndStatus, reason: str | None, failure: Failure | None = None) -> Ended:
        unreported = self.reporter.unreported
        if self.trial.keeps_nothing and unreported.newest_row().global_step > 1 and not unreported.saved():
            unreported.note(_KEEPS_NOTHING)
        try:
            ended, rows = self.reporter.end(status, reason, failure)
        except Exception as error:  # metrics that cannot be read, of a run that has finished
            failure = failure_of(error)
            ended, rows = self.reporter.end("failed", failure.error, failure)
        with contextlib.suppress(Exception):  # a device that failed keeps what trackers are still to be given
            self._close_tracking(ended)
        notes = (*ended.notes, *unreported.take_notes())  # of trackers, in the end
        ended = dataclasses.replace(ended, notes=notes)
        self._link.tell(ended, rows)
        return ended

    def _close_tracking(self, ended: Ended) -> None:
        tracking, self._tracking = self._tracking, None
        if tracking is not None:
            tracking.close(ended.status, ended.reason, ended.best.value if ended.best is not None else None)
