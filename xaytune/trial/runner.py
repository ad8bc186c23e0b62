"""A trial's run: the recipe with its handlers, from its first line to the message that tells how it ended."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from xaytune.errors import CheckpointError
from xaytune.records.checkpoints import CheckpointStore
from xaytune.records.place import Place
from xaytune.records.remote import RemoteFolder
from xaytune.records.results import dotted
from xaytune.trainer import checkpoint_files
from xaytune.trainer.callbacks import CallbackManager, Pause, TrainState
from xaytune.trainer.own_loop import set_current_trial
from xaytune.trial.failures import describe, failure_of
from xaytune.trial.messages import Assignment, Ended, Failure, Task
from xaytune.trial.output import file_of, last_lines
from xaytune.trial.recipe import resolve
from xaytune.trial.reporter import Link, Reporter
from xaytune.trial.trackers.tracker import TrackedTrial
from xaytune.trial.trackers.tracking import Tracking
from xaytune.trial.trial import Trial

__all__ = ["RecipeRun"]


class RecipeRun:
    """Runs the recipe of one trial, all of it on the calling thread.

    Args:
        task: What all trials of the sweep share.
        assignment: What is this trial's own.
        link: The way to the driver.
        shared: What the sweep's setup returned.

    Attributes:
        callbacks: The trial's own handlers.
        reporter: What turns its events into messages.
        raised: What the recipe raised, if it did.
    """

    def __init__(self, task: Task, assignment: Assignment, link: Link, shared: Any = None) -> None:
        self._task, self._assignment, self._link = task, assignment, link
        self._checkpoint_dir = Path(task.sweep_dir) / "checkpoints" / f"{assignment.trial:05d}"
        self._tracking: Tracking | None = None
        self.raised: BaseException | None = None
        self.callbacks = CallbackManager()
        self.reporter = Reporter(task, assignment, self._checkpoint_dir, link)
        self._trial = Trial(task, assignment, self.callbacks, self._checkpoint_dir, self.reporter, shared)
        set_current_trial(self._trial)

    def run(self) -> Ended:
        """Trains, tells how that ended, and returns it.

        However the recipe ends, but for a pause, ``train_end`` has been fired when this returns.
        """
        try:
            self._train()
        except Pause:
            request = self.reporter.stop_request
            return self._end("paused", request.reason if request is not None else None)
        except BaseException as error:
            self.raised = error
            # What handlers raise now changes nothing of how the run failed.
            with contextlib.suppress(BaseException):
                self._fire_error(error)
            return self._fail(error)
        return self._finish()

    def _train(self) -> None:
        self._settle_checkpoints()
        self._tracking = self._track()
        self._call_recipe()
        self._trial.finish()
        if self.reporter.state is not None and not self.reporter.ended:
            self.callbacks.fire("train_end", self.reporter.state)

    def _call_recipe(self) -> None:
        import torch

        from xaytune.trainer.random_state import seed_everything

        torch.set_num_threads(max(1, int(self._task.cpus)))
        seed_everything(self._assignment.seed)
        self.reporter.attach(self.callbacks)
        if self._tracking is not None:
            self._tracking.attach(self.callbacks, self.reporter.untold.newest_row)
        for reference in self._task.callbacks:
            resolve(reference)(self._trial, self._assignment.config)
        try:
            returned = resolve(self._task.recipe)(self._assignment.config, self._trial)
        except SystemExit as exit:
            if exit.code not in (None, 0):
                raise
            return  # as a script ends
        if self.reporter.state is None and isinstance(returned, TrainState):
            self.reporter.state = returned

    def _settle_checkpoints(self) -> None:
        """Leaves only checkpoints that an attempt can resume from: what was not recorded is trained again."""
        assignment, folder = self._assignment, Path(self._task.sweep_dir)
        remote = RemoteFolder(self._task.remote) if self._task.remote and assignment.checkpoints else None
        if self._task.remote is not None:  # what is here may be of another attempt
            shutil.rmtree(self._checkpoint_dir, ignore_errors=True)
        for path in checkpoint_files.list_checkpoints(self._checkpoint_dir):
            if checkpoint_files.step_of(path) not in assignment.checkpoints:
                checkpoint_files.delete(path)
        store = CheckpointStore(Place(folder, remote))
        for step, file in sorted(store.list(assignment.trial).items(), reverse=True):
            path = folder / file
            if step not in assignment.checkpoints:
                continue
            try:
                if remote is not None:
                    store.fetch(file, path)
                checkpoint_files.verify(path)
                return
            except CheckpointError:
                path.rename(path.with_suffix(".damaged"))
                self.reporter.untold.damaged[step] = file

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
        )
        return Tracking(self._task.trackers, trial)

    def _fire_error(self, raised: BaseException) -> None:
        """Ends a run that raised as a Trainer would have, where its own loop did not."""
        self._trial.finish(raised)
        state = self.reporter.state
        if state is None or self.reporter.ended:
            return
        try:
            if "error" not in state.metrics:
                state.metrics["error"] = describe(raised)
                self.callbacks.fire("error", state)
        finally:
            if not self.reporter.ended:
                self.callbacks.fire("train_end", state)

    def _finish(self) -> Ended:
        """Ends a run whose recipe returned."""
        request, state = self.reporter.stop_request, self.reporter.state
        if state is None or not state.should_stop:
            return self._end("completed", None)
        if request is not None:
            return self._end(request.status, request.reason)
        why = self._trial.stop_reason or f"a callback stopped it at step {state.global_step}"
        return self._end("completed", why)

    def _fail(self, error: BaseException) -> Ended:
        failure = failure_of(error)
        if isinstance(error, SystemExit):  # of a parser of arguments, for one, which has said why
            said = last_lines(Path(self._task.sweep_dir) / file_of(self._assignment.trial), 1)
            if said:
                failure = Failure(failure.kind, f"{failure.error}; it printed {said!r}", failure.traceback)
        return self._end("failed", failure.error, failure)

    def _end(self, status: str, reason: str | None, failure: Failure | None = None) -> Ended:
        try:
            ended, rows = self.reporter.end(status, reason, failure)
        except Exception as error:  # metrics that cannot be read, of a run that has finished
            failure = failure_of(error)
            ended, rows = self.reporter.end("failed", failure.error, failure)
        with contextlib.suppress(Exception):  # a device that failed keeps what trackers are still to be given
            self._close_tracking(ended)
        self._link.tell(ended, rows)
        return ended

    def _close_tracking(self, ended: Ended) -> None:
        tracking, self._tracking = self._tracking, None
        if tracking is not None:
            tracking.close(ended.status, ended.reason, ended.best.value if ended.best is not None else None)
