"""A trial's run: the recipe with its handlers, and the gate between its thread and the process's main thread."""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from xaytune.records.remote import RemoteFolder
from xaytune.records.results import dotted
from xaytune.records.state import Best
from xaytune.trainer import checkpoint
from xaytune.trainer.callbacks import CallbackManager, Pause, TrainState
from xaytune.trial.failures import format_error, kind_of
from xaytune.trial.messages import Assignment, Report, StopRequest, Task
from xaytune.trial.output import OutputFile
from xaytune.trial.recipe import resolve
from xaytune.trial.reporter import Reporter
from xaytune.trial.trackers.tracker import TrackedTrial
from xaytune.trial.trackers.tracking import FOLDERS, Tracking
from xaytune.trial.trial import Trial

__all__ = ["RecipeRun", "ThreadedRun"]


class RecipeRun:
    """Runs the recipe of one trial on the calling thread.

    Attributes:
        callbacks: The trial's own handlers.
        reporter: What turns its events into reports.

    Args:
        task: What all trials of the sweep share.
        assignment: What is this trial's own.
        decide: Gets the report of each decision point, and returns when training may go on.
        tell: Gets reports that nothing waits for.
    """

    def __init__(
        self,
        task: Task,
        assignment: Assignment,
        decide: Callable[[Report], None],
        tell: Callable[[Report], None],
    ) -> None:
        self._task, self._assignment = task, assignment
        self._checkpoint_dir = Path(task.sweep_dir) / "checkpoints" / f"{assignment.number:05d}"
        self._remote = RemoteFolder(task.remote) if task.remote is not None else None
        self._tracking: Tracking | None = None
        self.callbacks = CallbackManager()
        self.reporter = Reporter(
            task.metric, task.maximize, task.points, self._checkpoint_dir, decide, tell, assignment.judged_until
        )
        self.reporter.stop_request = assignment.stop
        self._trial = Trial(
            assignment.number,
            assignment.config,
            assignment.seed,
            self.callbacks,
            self._checkpoint_dir,
            task.points,
            self.reporter,
        )

    def train(self) -> Report:
        """Trains, and returns the last report.

        However the recipe ends, ``train_end`` has been fired when this returns or raises.

        Raises:
            Pause: It goes on later.
            BaseException: Whatever the recipe or a handler raised.
        """
        try:
            self._settle_checkpoints()
            self._tracking = self._track()
            self._call_recipe()
        except Pause:
            self._close_tracking("paused", None, None)
            raise
        except BaseException as raised:
            self._fire_error(raised)
            raise
        report = self._last_report()
        self._close_tracking(str(report.status), report.reason, report.best)
        return report

    def failed(self, error: BaseException) -> Report:
        """Returns the last report of a recipe that raised."""
        report = self.reporter.report_of_failure()
        report.status, report.error, report.failure = "failed", format_error(error), kind_of(error)
        first_line, *_ = str(error).splitlines() or [""]
        report.reason = f"{type(error).__name__}: {first_line}"
        if report.failure == "infeasible":
            report.reason = f"out of memory: {report.reason}"
        with contextlib.suppress(Exception):  # it may be what failed
            self._close_tracking("failed", report.reason, report.best)
        return report

    def _track(self) -> Tracking | None:
        if not self._task.trackers:
            return None
        assignment, sweep = self._assignment, self._task.sweep
        trial = TrackedTrial(
            sweep=sweep,
            id=f"{sweep}-{self._task.sweep_id}-{assignment.number:05d}",
            number=assignment.number,
            attempt=assignment.attempt,
            config=dotted(assignment.config),
            folder=Path(self._task.sweep_dir),
        )
        return Tracking(self._task.trackers, trial)

    def _close_tracking(self, status: str, reason: str | None, best: Best | None) -> None:
        tracking, self._tracking = self._tracking, None
        if tracking is None:
            return
        tracking.close(status, reason, best.value if best is not None else None)
        if self._remote is not None:
            self._move_tracked(self._remote)

    def _move_tracked(self, remote: RemoteFolder) -> None:
        """Moves the files of trackers to where they are kept."""
        folder = Path(self._task.sweep_dir)
        for tracked in FOLDERS:
            for path in sorted((folder / tracked).rglob("*")):
                if path.is_file():
                    remote.put(path.relative_to(folder).as_posix(), path.read_bytes())
            shutil.rmtree(folder / tracked, ignore_errors=True)

    def _settle_checkpoints(self) -> None:
        """Leaves only checkpoints that an attempt can go on from: what was not recorded is trained again."""
        if self._remote is not None:  # what is here may be of another attempt
            shutil.rmtree(self._checkpoint_dir, ignore_errors=True)
        for path in checkpoint.list_checkpoints(self._checkpoint_dir):
            if checkpoint.step_of(path) not in self._assignment.checkpoints:
                path.unlink()
        for step in sorted(self._assignment.checkpoints, reverse=True):
            path = checkpoint.path_for(self._checkpoint_dir, step)
            file = self.reporter.within_sweep(path)
            if not path.exists() and not (self._remote is not None and self._remote.fetch(file, path)):
                continue
            try:
                checkpoint.verify(path)
                return
            except checkpoint.CheckpointError:
                path.rename(path.with_suffix(".damaged"))
                self.reporter.damaged[step] = file

    def _call_recipe(self) -> None:
        from xaytune.trainer.random_state import seed_everything

        seed_everything(self._assignment.seed)
        self.reporter.attach(self.callbacks)
        if self._tracking is not None:
            self._tracking.attach(self.callbacks)
        for reference in self._task.callbacks:
            resolve(reference)(self._trial, self._assignment.config)
        returned = resolve(self._task.recipe)(self._assignment.config, self._trial)
        if self.reporter.state is None and isinstance(returned, TrainState):
            self.reporter.state = returned
        self._fire_train_end()

    def _fire_error(self, raised: BaseException) -> None:
        """Ends a run that raised as a Trainer would have, where its own loop did not."""
        state = self.reporter.state
        if state is None or self.reporter.ended:
            return
        try:
            if "error" not in state.metrics:
                state.metrics["error"] = f"{type(raised).__name__}: {raised}"
                self.callbacks.fire("error", state)
        finally:
            self._fire_train_end()

    def _fire_train_end(self) -> None:
        if self.reporter.state is not None and not self.reporter.ended:
            self.callbacks.fire("train_end", self.reporter.state)

    def _last_report(self) -> Report:
        report = self.reporter.last_report()
        request, state = self.reporter.stop_request, self.reporter.state
        report.status = "completed"
        if state is not None and state.should_stop:
            if request is not None:
                report.status, report.reason = request.status, request.reason
            else:
                report.reason = f"a callback stopped it at step {state.global_step}"
        return report


class ThreadedRun:
    """Runs the recipe of one trial on a thread of its own; all user code runs there, in order.

    The methods are for the main thread.

    Args:
        task: What all trials of the sweep share.
        assignment: What is this trial's own.
    """

    def __init__(self, task: Task, assignment: Assignment) -> None:
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._verdict_given = threading.Semaphore(0)
        self._waiting = False
        self._paused = False
        self._run = RecipeRun(task, assignment, self._wait_for_verdict, self._reports.put)
        self._folder = Path(task.sweep_dir)
        self._remote = RemoteFolder(task.remote) if task.remote is not None else None
        self._output_file = f"output/{assignment.number:05d}.txt"
        # A daemon: a recipe that hangs must not keep the process from ending.
        self.thread = threading.Thread(target=self._train, name=f"trial-{assignment.number}", daemon=True)

    def start(self) -> None:
        """Starts the recipe."""
        self.thread.start()

    @property
    def started(self) -> bool:
        """Whether the recipe was started."""
        return self.thread.ident is not None

    def next_report(self, timeout: float) -> Report:
        """Lets a waiting recipe go on, and returns its next report; a heartbeat if none came in time.

        Args:
            timeout: Seconds.
        """
        if self._waiting:
            self._waiting = False
            self._verdict_given.release()
        try:
            report = self._reports.get(timeout=timeout)
        except queue.Empty:
            report = self._run.reporter.heartbeat()
        self._waiting = report.kind == "decision"
        if self._remote is not None:
            try:
                self._upload(report, self._remote)
            except OSError as error:
                return Report("end", status="failed", failure="storage", reason=str(error), clean=False)
        return report

    def request_stop(self, request: StopRequest) -> None:
        """Asks the run to end through its own loop; the first request counts, but for one that only pauses."""
        before = self._run.reporter.stop_request
        if before is None or before.status == "paused":
            self._run.reporter.stop_request = request

    def pause(self) -> None:
        """Unwinds a run that waits for a verdict: it goes on later, from the checkpoint it wrote there."""
        self._paused = True
        self._verdict_given.release()

    def join(self, timeout: float) -> None:
        """Waits for the recipe's thread to end, if it was started.

        Args:
            timeout: Seconds.
        """
        if self.started:
            self.thread.join(timeout)

    def _upload(self, report: Report, remote: RemoteFolder) -> None:
        """Copies what a report speaks of to where it is kept: it counts only when it is there."""
        files = [*report.checkpoints.values(), *([self._output_file] if report.kind == "end" else [])]
        for file in files:
            path = self._folder / file
            if path.exists():
                remote.put(file, path.read_bytes())
        if report.kind == "end":
            shutil.rmtree(self._folder / "checkpoints", ignore_errors=True)

    def _wait_for_verdict(self, report: Report) -> None:
        self._reports.put(report)
        self._verdict_given.acquire()
        if self._paused:
            raise Pause

    def _train(self) -> None:
        output = OutputFile(self._folder / self._output_file)
        try:
            with contextlib.closing(output), redirect_stdout(output), redirect_stderr(output):
                report = self._run.train()
        except Pause:
            return
        except BaseException as error:
            report = self._run.failed(error)
        self._reports.put(report)
