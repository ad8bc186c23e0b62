"""The process of many trials, as its actor sees it: talking to it, and telling how each of them ended."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from xaytune.messages import (
    FIRST_WIDTH,
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
from xaytune.trial.client.attempt import with_history
from xaytune.trial.client.forked import Forked
from xaytune.trial.client.template_client import Template
from xaytune.trial.common.exits import Exit

# Seconds between two looks whether a trial was assigned, where there is none.
IDLE_S = 0.05
# Seconds that a process that has nothing left to do is given to exit, beside the time of its threads.
_EXIT_S = 5.0


class FusedTrials:
    """The process of many trials.

    Args:
        template: What starts it.
        task: What all trials of the sweep share.
        environment: What it is to find in its environment.

    Attributes:
        pid: The process.
        notes: What to tell of how it was started.
        wanted: How many trials it wants at once, where it finds out; None where the spec says.

    Raises:
        TemplateError: The template cannot be started.
    """

    def __init__(self, template: Template, task: Task, environment: Mapping[str, str]) -> None:
        self._process = Forked(template)
        self.pid, self.notes = self._process.pid, self._process.notes
        self._process.put((task, None, environment))
        self._threads_s = task.threads_s
        self._latest: dict[int, Progress] = {}  # what each trial said last
        self._waiting: list[int] = []
        self._released: set[tuple[int, int]] = set()  # trials and attempts
        self.running, self.wanted = True, None if not task.finds_width else FIRST_WIDTH

    def assign(self, assignment: Assignment) -> None:
        """Gives the process a trial."""
        self._latest[assignment.trial] = Heartbeat(**assignment.sender)
        self._process.put(("assign", assignment))

    def request_stop(self, trial: int, request: StopRequest) -> None:
        """Asks a trial to end through its own loop."""
        self._process.put(("stop", trial, request))

    def release(self, trial: int) -> None:
        """Pauses a trial that waits; it says nothing more."""
        latest = self._latest.pop(trial, None)
        if latest is not None:
            self._released.add((trial, latest.attempt))
            self._waiting = [other for other in self._waiting if other != trial]
            self._process.put(("stop", trial, PAUSE))
            self._process.put(("go", [trial]))

    def next_messages(self, timeout: float) -> list[Message]:
        """Lets trials that wait train on, and returns what they say next.

        Args:
            timeout: Seconds; then there is nothing.
        """
        if self._waiting:
            self._process.put(("go", self._waiting))
            self._waiting = []
        if not self.running:
            time.sleep(min(timeout, IDLE_S))
            return []
        said = self._process.get(timeout if self._latest else IDLE_S)
        if isinstance(said, Exit):
            return self._lost(said)
        messages: list[Message] = []
        while said is not None and not isinstance(said, Exit):  # all at once: the way to the driver costs most
            self.wanted, packed = said
            messages += [message for one in packed for message in self._take(with_history(*one))]
            said = self._process.get(0)
        return messages

    def close(self) -> None:
        """Ends the process, if it runs."""
        if not self.running:
            return
        if not self._latest:
            self._process.put(("end",))
        self._end(0.0 if self._latest else self._threads_s + _EXIT_S)

    def _take(self, message: Message) -> list[Message]:
        if (message.trial, message.attempt) in self._released:
            return []
        if isinstance(message, Progress):
            self._latest[message.trial] = message
        if isinstance(message, DecisionDue):
            self._waiting.append(message.trial)
        elif isinstance(message, (Ended, Refused)):
            self._latest.pop(message.trial, None)
        return [message]

    def _end(self, timeout: float) -> None:
        self.running = False
        self._process.close(timeout)

    def _lost(self, exited: Exit) -> list[Message]:
        """Returns the ends of trials whose process has ended: of several, it is not known whose fault it was."""
        self._end(_EXIT_S)
        failure, several = exited.failure, len(self._latest)
        if several > 1:
            error = f"{failure.error}; {several} trials were trained in it"
            failure = dataclasses.replace(failure, kind="lost_with_others", error=error)
        lost: dict[str, Any] = {"status": "failed", "reason": failure.error, "failure": failure}
        ends: list[Message] = [Ended(**nothing_new(latest), **lost) for latest in self._latest.values()]
        self._latest, self._waiting = {}, []
        return ends
