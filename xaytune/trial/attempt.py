"""The process of one attempt of a trial, as its actor sees it: talking to it, and telling how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xaytune.records import history
from xaytune.records.history import Row
from xaytune.trial.messages import (
    Assignment,
    DecisionDue,
    Ended,
    Failure,
    FailureKind,
    Heartbeat,
    Message,
    Progress,
    Refused,
    StopRequest,
    Task,
    nothing_new,
)
from xaytune.trial.output import file_of, last_lines
from xaytune.trial.template_client import Template, words_for_exit
from xaytune.trial.trial_process import TRAIN_ON

__all__ = ["TrialProcess", "unpack"]

# A process that has reported its end is given so long to exit, and one that was killed to be gone.
_EXIT_S = 5.0


class TrialProcess:
    """The process of one attempt of a trial.

    Args:
        template: What starts it.
        task: What all trials of the sweep share.
        assignment: What is this trial's own.
        environment: What it is to find in its environment.

    Raises:
        TemplateError: The template cannot be started.
    """

    def __init__(
        self, template: Template, task: Task, assignment: Assignment, environment: Mapping[str, str]
    ) -> None:
        self._template, self._task, self._assignment = template, task, assignment
        self.pid, self.notes, self._channel = template.start_trial(environment)
        self._channel.put((task, assignment))
        self._last: Progress = Heartbeat(trial=assignment.trial, attempt=assignment.attempt)
        self._heard = time.monotonic()
        self._waiting = False
        self._running = True

    def request_stop(self, request: StopRequest) -> None:
        """Asks the trial to end through its own loop; the first request counts, but for one that only pauses."""
        if self._running:
            with contextlib.suppress(OSError):
                self._channel.put(request)

    def next_message(self, timeout: float) -> Message:
        """Lets a trial that waits train on, and returns its next message.

        Args:
            timeout: Seconds; then a heartbeat that brings nothing new is returned.
        """
        if self._waiting:
            self._waiting = False
            with contextlib.suppress(OSError):
                self._channel.put(TRAIN_ON)
        message = self._await_message(timeout)
        if message is None:
            return Heartbeat(**self._known())
        if isinstance(message, Progress):
            self._last, self._heard = message, time.monotonic()
        self._waiting = isinstance(message, DecisionDue)
        if isinstance(message, (Ended, Refused)):
            self._await_exiting()
        return message

    def close(self) -> None:
        """Ends the process, if it runs: one that waits is paused, another is killed. It is gone after this."""
        if self._running and self._waiting:
            self.request_stop(StopRequest("paused", "paused"))
            deadline = time.monotonic() + _EXIT_S
            while self._running and time.monotonic() < deadline:
                self.next_message(max(0.0, deadline - time.monotonic()))
        if self._running:
            self._running = False
            self._template.kill_trial()
        if not self._has_exited(_EXIT_S):
            self._template.kill_trial()
            self._has_exited(_EXIT_S)
        self._channel.close()

    def _await_message(self, timeout: float) -> Message | None:
        deadline = time.monotonic() + timeout
        while True:
            exited = self._has_exited()  # asked before the channel is read: what the process sent before is there
            try:
                received = self._channel.get(0)
            except EOFError:
                received, exited = None, exited or self._has_exited(_EXIT_S)
            if isinstance(received, list):
                self._template.imported(received)
            elif received is not None:
                return unpack(*received)
            elif exited:
                return self._lost()
            elif (left := deadline - time.monotonic()) > 0:
                poll = select.poll()
                for end in (self._channel, self._template):
                    poll.register(end, select.POLLIN)
                poll.poll(left * 1000)
            else:
                return None

    def _has_exited(self, timeout: float = 0.0) -> bool:
        return self._template.exit_of_trial(self.pid, timeout) is not None

    def _await_exiting(self) -> None:
        """Waits until a process whose trial has ended has only to be gone; kills it if that takes too long."""
        self._running = False
        try:
            exiting = self._channel.get(_EXIT_S) is not None
        except EOFError:
            exiting = True
        if not exiting:
            self._template.kill_trial()

    def _lost(self) -> Ended:
        """Words the end of a process that has not reported it."""
        status, out_of_memory = self._template.exit_of_trial(self.pid) or (signal.SIGKILL, False)
        code = os.waitstatus_to_exitcode(status)
        kind: FailureKind = "lost" if code < 0 else "error"
        error = f"its process ended before the recipe did: {words_for_exit(code)}"
        if out_of_memory:
            kind, error = "infeasible", "out of memory: the kernel killed its process"
        said = last_lines(Path(self._task.sweep_dir) / file_of(self._assignment.trial))
        return Ended(**self._known(), status="failed", reason=error, failure=Failure(kind, error, said))

    def _known(self) -> dict[str, Any]:
        """Returns what is known of the trial's progress, and nothing new."""
        return {**nothing_new(self._last), "seconds": self._last.seconds + time.monotonic() - self._heard}


def unpack(message: Message, rows: list[tuple[Any, ...]]) -> Message:
    """Packs the rows of a message here: the trial's process is spared what that takes."""
    if not rows:
        return message
    return dataclasses.replace(message, history=history.pack([Row(*row) for row in rows]))  # type: ignore[call-arg]
