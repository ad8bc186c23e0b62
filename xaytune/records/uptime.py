"""How long a sweep has run: without the time in which no driver ran, and whatever its clock was set to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xaytune.records.journal import Event


class Uptime:
    """Adds up what the runs of a sweep took, from its events.

    Attributes:
        now: Seconds that all runs together had taken at the newest event.
        latest: Unix seconds of the newest event.
    """

    def __init__(self) -> None:
        self.now = self.latest = 0.0
        self._before = 0.0  # in earlier runs
        self._opened: float | None = None  # unix seconds of the first event of this run

    def take(self, event: Event) -> None:
        """Takes in the time of an event."""
        begins_run = event["event"] == "sweep" and event["state"] == "running"
        if begins_run or self._opened is None:
            self._before, self._opened = self.now, event["t"]
        # Journals of version 1 have but the clock's time.
        seconds = event["s"] if "s" in event else event["t"] - self._opened
        self.now, self.latest = max(self.now, self._before + seconds), event["t"]


def timed(events: Iterable[Event]) -> Iterator[tuple[float, Event]]:
    """Yields each event with the seconds that the sweep had run."""
    uptime = Uptime()
    for event in events:
        uptime.take(event)
        yield uptime.now, event
