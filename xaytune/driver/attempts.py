"""Attempts: the trials that run, what each was asked to do, and which of them are overdue."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from xaytune.driver.orders import Kill
from xaytune.messages import Assignment, Progress, StopRequest
from xaytune.records.clock import Clock

# Seconds that a new process may import for before stall_timeout_s begins to count.
_TO_START_S = 120.0
# Seconds that a worker has to end a process that it is told to kill.
_TO_KILL_S = 20.0


@dataclass
class Attempt:
    """A trial that has a process, or is about to.

    Attributes:
        assignment: What it was given to do.
        begun: Whether a worker took it.
        node_id: The node that it runs on, once that is known.
        idle_since: When it or another one in its process trained the newest step, by the monotonic clock, or by
            when its process should be there; None until a worker took it.
        latest: What it reported last.
        stop: Why it was asked to stop, if it was.
        deadline: By when it must have ended after it was asked to stop; once it is killed, by when its end must
            have been reported.
        killed: What it ends as, if its process was killed for not stopping, or for hanging.
    """

    assignment: Assignment
    begun: bool = False
    node_id: str = ""
    idle_since: float | None = None
    latest: Progress | None = None
    stop: StopRequest | None = None
    deadline: float = 0.0
    killed: StopRequest | None = None


class Attempts:
    """The trials that run, by number.

    A trial that is to stop hears of it by an order to its process; where a worker has not taken it yet, once one
    has. Where it was judged while it was paused, it hears of it with its assignment too.

    Args:
        clock: Tells the time.
        stop_grace_s: Seconds that a trial has to end after it was asked to.
        delay_s: Seconds that it may take until it hears of that.
        stall_timeout_s: Seconds without a step after which a trial hangs; None: it never does.
    """

    def __init__(self, clock: Clock, stop_grace_s: float, delay_s: float, stall_timeout_s: float | None) -> None:
        self._clock = clock
        self._stop_grace_s, self._delay_s, self._stall_timeout_s = stop_grace_s, delay_s, stall_timeout_s
        self._running: dict[int, Attempt] = {}
        self._stopping: set[int] = set()

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._running))

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, trial: int) -> bool:
        return trial in self._running

    def __getitem__(self, trial: int) -> Attempt:
        return self._running[trial]

    def add(self, assignment: Assignment) -> None:
        """Takes in an attempt that is about to be started."""
        self._running[assignment.trial] = Attempt(assignment, stop=assignment.stop)
        if assignment.stop is not None:
            self._stopping.add(assignment.trial)

    def remove(self, trial: int) -> Attempt:
        """Drops an attempt that is over."""
        self._stopping.discard(trial)
        return self._running.pop(trial)

    def begin(self, trial: int) -> None:
        """Notes that a worker took the trial: it makes a process for it, which may have to import much before."""
        attempt = self._running[trial]
        attempt.begun, attempt.idle_since = True, self._clock.monotonic() + _TO_START_S
        self._set_deadline(attempt, _TO_START_S + self._stop_grace_s)

    def start(self, trial: int, node_id: str) -> None:
        """Notes that a process trains the trial."""
        attempt = self._running[trial]
        attempt.node_id, attempt.idle_since = node_id, self._clock.monotonic()
        if attempt.killed is None:
            self._set_deadline(attempt, self._stop_grace_s)

    def note_training(self, trial: int) -> None:
        """Notes that a trial's process has trained something, of this trial or another in it: it does not hang."""
        attempt = self._running[trial]
        if attempt.idle_since is not None:
            attempt.idle_since = max(attempt.idle_since, self._clock.monotonic())

    def note_progress(self, trial: int, message: Progress) -> None:
        """Notes how far a trial is."""
        attempt = self._running[trial]
        if attempt.latest is None or message.global_step != attempt.latest.global_step:
            attempt.idle_since = self._clock.monotonic()
        attempt.latest = message

    def request_stop(self, trial: int, request: StopRequest) -> bool:
        """Notes that a trial is to stop, and tells whether that is new to it: the first request counts.

        Only one to pause is replaced, by one to end.
        """
        attempt = self._running[trial]
        if attempt.stop is not None and attempt.stop.status != "paused":
            return False
        attempt.stop = request
        self._stopping.add(trial)
        if attempt.killed is None:
            self._set_deadline(attempt, self._stop_grace_s)
        return True

    def overdue(self) -> Iterator[Kill]:
        """Yields what must be killed now, each once: processes, and workers that did not kill theirs."""
        now = self._clock.monotonic()
        for trial in list(self._stopping if self._stall_timeout_s is None else self._running):
            attempt = self._running[trial]
            if not attempt.begun:
                continue
            if attempt.killed is not None:
                if now > attempt.deadline:
                    attempt.deadline = math.inf
                    yield Kill(trial, with_worker=True)
                continue
            if attempt.stop is not None and now > attempt.deadline:
                reason = f"killed: it did not end within {self._stop_grace_s:g} s of being asked to stop"
                attempt.killed = StopRequest(reason, attempt.stop.status)
            elif self._hangs(attempt, now):
                attempt.killed = StopRequest(
                    f"killed: it trained no step for {self._stall_timeout_s:g} s", "failed"
                )
            else:
                continue
            self._set_deadline(attempt, _TO_KILL_S)
            yield Kill(trial)

    def _set_deadline(self, attempt: Attempt, seconds: float) -> None:
        attempt.deadline = self._clock.monotonic() + self._delay_s + seconds

    def _hangs(self, attempt: Attempt, now: float) -> bool:
        timeout, since = self._stall_timeout_s, attempt.idle_since
        return timeout is not None and since is not None and now > since + timeout
