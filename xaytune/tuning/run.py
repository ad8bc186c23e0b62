"""A trial's run: the recipe on a thread of its own, and the gate between it and the process's main thread."""

from __future__ import annotations

import contextlib
import queue
import threading
import traceback
from pathlib import Path

from xaytune.trainer.callbacks import CallbackManager, TrainState
from xaytune.tuning.recipe import resolve
from xaytune.tuning.report import Assignment, Report, StopRequest, Task
from xaytune.tuning.reporter import Reporter
from xaytune.tuning.trial import Trial

__all__ = ["TrialRun"]


class TrialRun:
    """Runs the recipe of one trial. All user code runs on its thread, in order.

    The methods are for the main thread.

    Args:
        task: What all trials of the sweep share.
        assignment: What is this trial's own.
    """

    def __init__(self, task: Task, assignment: Assignment) -> None:
        self._task, self._assignment = task, assignment
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._verdict_given = threading.Semaphore(0)
        self._waiting = False
        checkpoint_dir = Path(task.sweep_dir) / "checkpoints" / f"{assignment.number:05d}"
        self._callbacks = CallbackManager()
        self._reporter = Reporter(task.metric, task.maximize, task.points, checkpoint_dir, self._wait_for_verdict)
        self._trial = Trial(
            assignment.number, assignment.config, assignment.seed, self._callbacks, checkpoint_dir, task.points
        )
        # A daemon: a recipe that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"trial-{assignment.number}", daemon=True)

    def start(self) -> None:
        """Starts the recipe."""
        self._thread.start()

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
            return self._reporter.heartbeat()
        self._waiting = report.kind == "decision"
        return report

    def request_stop(self, request: StopRequest) -> None:
        """Asks the run to end through its own loop; the first request counts."""
        if self._reporter.stop_request is None:
            self._reporter.stop_request = request

    def join(self, timeout: float) -> bool:
        """Waits for the recipe's thread to end, and tells whether it has."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _wait_for_verdict(self, report: Report) -> None:
        self._reports.put(report)
        self._verdict_given.acquire()

    def _run(self) -> None:
        try:
            try:
                self._train()
            except BaseException as raised:
                self._end_after(raised)
                raise
            report = self._finished()
        except BaseException:
            report = self._failed(traceback.format_exc())
        self._reports.put(report)

    def _train(self) -> None:
        from xaytune.trainer.random_state import seed_everything

        seed_everything(self._assignment.seed)
        self._reporter.attach(self._callbacks)
        for reference in self._task.callbacks:
            resolve(reference)(self._trial, self._assignment.config)
        returned = resolve(self._task.recipe)(self._assignment.config, self._trial)
        if self._reporter.state is None and isinstance(returned, TrainState):
            self._reporter.state = returned
        self._fire_train_end()

    def _end_after(self, raised: BaseException) -> None:
        """Ends a run that raised as a Trainer would have, where its own loop did not."""
        state = self._reporter.state
        if state is None or self._reporter.ended:
            return
        try:
            if "error" not in state.metrics:
                state.metrics["error"] = f"{type(raised).__name__}: {raised}"
                self._callbacks.fire("error", state)
        finally:
            self._fire_train_end()

    def _fire_train_end(self) -> None:
        if self._reporter.state is not None and not self._reporter.ended:
            self._callbacks.fire("train_end", self._reporter.state)

    def _finished(self) -> Report:
        report = self._reporter.last_report()
        request, state = self._reporter.stop_request, self._reporter.state
        report.status = "completed"
        if state is not None and state.should_stop:
            if request is not None:
                report.status, report.reason = request.status, request.reason
            else:
                report.reason = f"a callback stopped it at step {state.global_step}"
        return report

    def _failed(self, error: str) -> Report:
        report = Report("end")
        with contextlib.suppress(Exception):
            report = self._reporter.last_report()
        report.status, report.error, report.reason = "failed", error, error.strip().splitlines()[-1]
        return report
