"""Following a sweep on a cluster: its events and its other output, however often the connection is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from ray.job_submission import JobDetails

from xaytune.cluster.sweeps import ClusterSweep, is_printed
from xaytune.errors import ClusterError
from xaytune.records.journal import Event
from xaytune.records.state import SweepState
from xaytune.records.stream import event_in

# Seconds without a word of a job after which it is asked how it is.
_QUIET_S = 10.0
_AGAIN_S = 1.0
# Seconds after which a cluster that cannot be reached is given up; the sweep is not.
_PATIENCE_S = 300.0


def follow(
    sweep: ClusterSweep,
    show: Callable[[SweepState, Event], None],
    say: Callable[[str], None],
) -> tuple[SweepState | None, JobDetails]:
    """Follows a sweep until its job has ended.

    Args:
        sweep: The sweep.
        show: Called with its state and each event; what happened before is one event that says it runs.
        say: Called with each other line that it prints, and with what is to be known of the connection.

    Returns:
        The state, None if the sweep did not begin; and how the job ended.

    Raises:
        ClusterError: The cluster did not answer for minutes.
    """
    return asyncio.run(_Follower(sweep, show, say).follow())


class _CutError(Exception):
    """The connection to the cluster was lost."""


class _Follower:
    def __init__(
        self, sweep: ClusterSweep, show: Callable[[SweepState, Event], None], say: Callable[[str], None]
    ) -> None:
        self._sweep, self._show, self._say = sweep, show, say
        self._state: SweepState | None = None
        self._taken = 0  # characters of the job's output
        self._half_line = ""
        self._begun = 0.0  # Unix seconds; what a journal has from before is not shown again

    async def follow(self) -> tuple[SweepState | None, JobDetails]:
        self._begun = ((await self._details()).start_time or 0) / 1000
        self._catch_up()
        while True:
            whole = await self._tail()
            details = await self._details()
            if whole and details.status.is_terminal():
                if self._state is not None:
                    self._state.driver_gone()
                return self._state, details
            await asyncio.sleep(_AGAIN_S)

    def _catch_up(self) -> None:
        """Takes in what was printed before."""
        before = self._sweep.output()
        lines, _, _ = before.rpartition("\n")
        self._taken = len(lines) + 1 if lines else 0
        for event in filter(None, map(event_in, lines.split("\n"))):
            self._state = self._sweep.apply(event, self._state)
        if self._state is not None:
            self._show(self._state, {"event": "sweep", "state": "running"})
            return
        for line in filter(is_printed, lines.split("\n")):  # why it does not begin
            self._say(line)

    async def _details(self) -> JobDetails:
        """How the job is; waits while the cluster cannot be reached."""
        lost: float | None = None
        while True:
            try:
                details = await asyncio.to_thread(self._sweep.details)
            except ClusterError as error:
                if lost is None:
                    lost = time.monotonic()
                    self._say(
                        f"the cluster cannot be reached: the sweep continues there, this tries again ({error})"
                    )
                elif time.monotonic() > lost + _PATIENCE_S:
                    raise
                await asyncio.sleep(_AGAIN_S)
            else:
                return details

    async def _tail(self) -> bool:
        """Takes in what is printed, until the connection or the job ends; tells whether nothing was cut off."""
        chunks, at = self._sweep.connection.jobs.tail_job_logs(self._sweep.job), 0
        try:
            while (text := await self._next(chunks)) is not None:
                new, at = text[max(0, self._taken - at) :], at + len(text)
                self._taken = max(self._taken, at)
                self._take(new)
        except _CutError:
            return False
        return True

    async def _next(self, chunks: AsyncIterator[str]) -> str | None:
        """The next part of the output; None when the job has ended and nothing more comes.

        Raises:
            _CutError: The connection was lost.
        """
        coming = asyncio.ensure_future(anext(chunks, None))
        try:
            while not (await asyncio.wait({coming}, timeout=_QUIET_S))[0]:
                await asyncio.to_thread(self._sweep.details)  # a connection that was cut does not say so
            return coming.result()
        except Exception as error:  # Ray's and those of the libraries below it
            raise _CutError from error
        finally:
            coming.cancel()

    def _take(self, text: str) -> None:
        *lines, self._half_line = (self._half_line + text).split("\n")
        for line in lines:
            event = event_in(line)
            if event is not None:
                self._state = self._sweep.apply(event, self._state)
                if event["t"] >= self._begun:
                    self._show(self._state, event)
            elif is_printed(line):
                self._say(line)
