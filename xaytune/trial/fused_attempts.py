"""The process of many trials, as its actor sees it: talking to it, and telling how each of them ended."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Mapping
from typing import Any

from xaytune.trial.attempt import unpack
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
from xaytune.trial.template_client import Template, words_for_exit
from xaytune.trial.width import FIRST_WIDTH

__all__ = ["FusedTrials"]

# A process that was killed, or has ended, is given so long to be gone.
_EXIT_S = 5.0
# Where there is no trial, it is soon looked whether one was assigned.
_IDLE_S = 0.05


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
        self._template = template
        self.pid, self.notes, self._channel = template.start_trial(environment)
        self._channel.put((task, None))
        self._latest: dict[int, Progress] = {}  # what each trial said last
        self._waiting: list[int] = []
        self._released: set[tuple[int, int]] = set()  # trials and attempts
        self.running, self.wanted = True, None if not task.finds_width else FIRST_WIDTH

    def assign(self, assignment: Assignment) -> None:
        """Gives the process a trial."""
        self._latest[assignment.trial] = Heartbeat(trial=assignment.trial, attempt=assignment.attempt)
        self._put(("assign", assignment))

    def request_stop(self, trial: int, request: StopRequest) -> None:
        """Asks a trial to end through its own loop."""
        self._put(("stop", trial, request))

    def release(self, trial: int) -> None:
        """Pauses a trial that waits; it says nothing more."""
        latest = self._latest.pop(trial, None)
        if latest is not None:
            self._released.add((trial, latest.attempt))
            self._waiting = [other for other in self._waiting if other != trial]
            self._put(("stop", trial, StopRequest("paused", "paused")))
            self._put(("go", [trial]))

    def next_messages(self, timeout: float) -> list[Message]:
        """Lets trials that wait train on, and returns what they say next.

        Args:
            timeout: Seconds; then there is nothing.
        """
        if self._waiting:
            self._put(("go", self._waiting))
            self._waiting = []
        if not self.running:
            time.sleep(min(timeout, _IDLE_S))
            return []
        deadline = time.monotonic() + (timeout if self._latest else _IDLE_S)
        while True:
            exited = self._exit()  # asked before the channel is read: what it said before is there
            try:
                received = self._channel.get(0)
            except EOFError:
                received, exited = None, exited or self._exit(_EXIT_S)
            if received is not None:
                self.wanted, packed = received
                return [message for one in packed for message in self._take(unpack(*one))]
            if exited is not None:
                return self._lost(*exited)
            if (left := deadline - time.monotonic()) <= 0:
                return []
            poll = select.poll()
            for end in (self._channel, self._template):
                poll.register(end, select.POLLIN)
            poll.poll(left * 1000)

    def close(self) -> None:
        """Ends the process, if it runs."""
        if not self.running:
            return
        if not self._latest:
            self._put(("end",))
        if self._latest or not self._exit(_EXIT_S):
            self._template.kill_trial()
            self._exit(_EXIT_S)
        self._end()

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

    def _put(self, message: object) -> None:
        with contextlib.suppress(OSError):  # it has ended: its trials are lost
            self._channel.put(message)

    def _exit(self, timeout: float = 0.0) -> tuple[int, bool] | None:
        return self._template.exit_of_trial(self.pid, timeout)

    def _end(self) -> None:
        self.running = False
        self._channel.close()

    def _lost(self, status: int, out_of_memory: bool) -> list[Message]:
        """Words the ends of trials whose process has ended: of several, it is not known whose fault it was."""
        self._end()
        code = os.waitstatus_to_exitcode(status)
        several = len(self._latest) > 1
        kind: FailureKind = "lost_with_others" if several else "lost" if code < 0 else "error"
        error = f"its process ended before the recipe did: {words_for_exit(code)}"
        if out_of_memory:
            error = "out of memory: the kernel killed its process"
            kind = kind if several else "infeasible"
        if several:
            error += f"; {len(self._latest)} trials were trained in it"
        lost: dict[str, Any] = {"status": "failed", "reason": error, "failure": Failure(kind, error)}
        ends: list[Message] = [Ended(**nothing_new(latest), **lost) for latest in self._latest.values()]
        self._latest, self._waiting = {}, []
        return ends
