"""The events of a journal as lines of a program's output, for whoever reads that instead of the journal."""

from __future__ import annotations

import json

from xaytune.records.journal import Event

# What JSON texts in a sequence begin with (RFC 7464): no other line of output does.
_MARK = "\x1e"


def as_line(event: Event) -> str:
    """Returns the line of an event."""
    return _MARK + json.dumps(event, separators=(",", ":"), allow_nan=False)


def event_in(line: str) -> Event | None:
    """Returns the event of a line; None if it is another line of output."""
    if not line.startswith(_MARK):
        return None
    try:
        event: Event = json.loads(line[len(_MARK) :])
    except ValueError:
        return None  # cut short: the program was killed
    return event
