"""The process of one attempt of a trial, as its actor sees it: talking to it, and telling how it ended."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xaytune.messages import (
    PAUSE,
    Assignment,
    DecisionDue,
    Ended,
    Heartbeat,
    Message,
    Progress,
    Refused,
    StopRequest,
    Task,
    nothing_new,
)
from xaytune.records import history
from xaytune.records.history import Row
from xaytune.trial.client.forked import Forked
from xaytune.trial.client.template_client import Template
from xaytune.trial.common.exits import Exit
from xaytune.trial.common.link import TRAIN_ON, Imported
from xaytune.trial.common.output import file_of, last_lines

# Seconds that a process has to exit after its trial has told its end, or, beside the time of its threads, after it
# was told to pause; then it is killed.
_END_S = 5.0


class AttemptProcess:
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
        self._process = Forked(template)
        self.pid, self.notes = self._process.pid, self._process.notes
        self._process.put((task, assignment, environment))
        self._last: Progress = Heartbeat(**assignment.sender)
        self._heard = time.monotonic()
        self._waiting = False
        self._running = True

    def request_stop(self, request: StopRequest) -> None:
        """Asks the trial to end through its own loop; the first request counts, but for one that only pauses."""
        if self._running:
            self._process.put(request)

    def next_message(self, timeout: float) -> Message:
        """Lets a trial that waits train on, and returns its next message.

        Args:
            timeout: Seconds; then a heartbeat that brings nothing new is returned.
        """
        if self._waiting:
            self._waiting = False
            self._process.put(TRAIN_ON)
        said = self._process.get(timeout)
        if isinstance(said, Imported):  # it has ended, which it says next
            self._template.imported(said)
            said = self._process.get(timeout)
        if said is None:
            return Heartbeat(**self._known())
        if isinstance(said, Exit):
            self._running = False
            return self._lost(said)
        message = with_history(*said)
        if isinstance(message, Progress):
            self._last, self._heard = message, time.monotonic()
        self._waiting = isinstance(message, DecisionDue)
        if isinstance(message, (Ended, Refused)):
            self._running = False
            if self._process.get(_END_S) is None:
                self._template.kill_trial()
        return message

    def kill(self) -> None:
        """Kills the process: its end is told by what :meth:`next_message` returns."""
        self._template.kill_trial()

    def close(self) -> None:
        """Ends the process, if it runs: one that waits is paused, another is killed. It is gone after this."""
        if self._running and self._waiting:
            self.request_stop(PAUSE)
            deadline = time.monotonic() + self._task.threads_s + _END_S
            while self._running and time.monotonic() < deadline:
                self.next_message(max(0.0, deadline - time.monotonic()))
        self._process.close(0.0 if self._running else _END_S)
        self._running = False

    def _lost(self, exited: Exit) -> Ended:
        """Returns the end of a process that has not reported it."""
        said = last_lines(Path(self._task.sweep_dir) / file_of(self._assignment.trial))
        failure = dataclasses.replace(exited.failure, traceback=said)
        return Ended(**self._known(), status="failed", reason=failure.error, failure=failure)

    def _known(self) -> dict[str, Any]:
        """Returns what is known of the trial's progress, and nothing new."""
        return {**nothing_new(self._last), "seconds": self._last.seconds + time.monotonic() - self._heard}


def with_history(message: Message, rows: list[tuple[Any, ...]]) -> Message:
    """Returns a message with its rows packed: here, so that the trial's process is spared what that takes."""
    if not rows:
        return message
    return dataclasses.replace(message, history=history.pack([Row(*row) for row in rows]))  # type: ignore[call-arg]
