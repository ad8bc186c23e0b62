"""When things happened: in seconds that the sweep had run, without the time in which no driver ran."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xaytune.records.journal import Event
from xaytune.records.uptime import Uptime

__all__ = ["timed"]


def timed(events: Iterable[Event]) -> Iterator[tuple[float, Event]]:
    """Yields each event with the seconds that the sweep had run."""
    uptime = Uptime()
    for event in events:
        uptime.take(event)
        yield uptime.now, event
