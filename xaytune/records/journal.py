"""The journal of a sweep: one JSON object a line, appended as things happen, and never changed.

Every line has ``event`` and ``t`` (unix seconds), and ``trial`` (the trial's number) where it speaks of one:

==============  =====================================================================================
event           fields
==============  =====================================================================================
``sweep``       ``state``: first, and again whenever it is resumed, ``running`` with ``name``, ``id``,
                ``spec``, ``num_trials``, ``folder`` (that it was run from), ``host``, ``pid``; last ``completed``,
                ``interrupted`` or ``failed`` with ``reason``
``trial``       ``config``, ``seed``
``start``       an attempt trains in a process: ``attempt`` (from 0), ``node``, ``pid``
``result``      at a decision point: ``due`` (whether the scheduler judged), ``epoch``, ``global_step``,
                ``metrics``, ``value``, ``best``, ``checkpoints``
``verdict``     on that: ``decision`` (``continue``, ``stop``, ``pause``), ``reason``, ``cutoff`` (the value it was
                compared with) and ``compared`` (of how many trials), ``epoch``, ``global_step``, ``value``
``progress``    how far a trial is, now and then: ``epoch``, ``global_step``, ``metrics``, ``best``
``stop``        the trial was told to stop: ``reason``, and the ``status`` it is to end with
``checkpoint``  ``path`` (within the sweep's folder), ``global_step``
``damaged``     a checkpoint cannot be used: ``path``, ``global_step``
``deleted``     a checkpoint is no longer needed: ``path``, ``global_step``
``failure``     ``kind`` (``error``, ``infeasible``, ``stalled``, ``lost``, ``node lost``, ``preempted``,
                ``not begun``), ``error``, ``traceback``, ``retried`` (whether another attempt follows)
``reopen``      the trial is begun again, though it failed: no trial had trained a step
``offer``       others may take over a checkpoint of the trial: ``path``, ``global_step``
``exploit``     the trial takes over a checkpoint of another: ``source``, its new ``config``, ``path``,
                ``global_step``
``pause``       the trial can be continued: ``reason`` and, if it was waited for, its place as in ``end``
``end``         ``status`` (``completed``, ``stopped``, ``failed``), ``value``, ``reason``, ``due``, ``epoch``,
                ``global_step``, ``metrics``, ``best``, ``checkpoints`` (the last, paths by step)
==============  =====================================================================================

A number that is not finite is ``null``. ``best`` is where the metric was best so far: ``value``, ``epoch``,
``global_step``, ``metrics``; ``value`` of an ``end`` is the best value the metric reached.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xaytune.errors import JournalError

__all__ = ["FILE_NAME", "Event", "Journal", "JournalError", "JournalTail", "is_locked", "read_events"]

FILE_NAME = "journal.jsonl"
Event = dict[str, Any]


class Journal:
    """Appends events to a journal. Each is one write: it is there whole, or is dropped by the reader.

    Args:
        path: The file; it is made if missing. A half-written last line is cut off.

    Raises:
        JournalError: Another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(f"{path.parent}: the sweep is running, in another process") from None
        except OSError:
            pass  # a file system without locks
        self._file.truncate(path.read_bytes().rfind(b"\n") + 1)

    def write(self, event: str, trial: int | None = None, **fields: Any) -> Event:
        """Appends an event, and returns it as a reader will see it.

        Raises:
            OSError: The file system refused; the journal stays as it was.
        """
        subject = {} if trial is None else {"trial": trial}
        entry = {"event": event, "t": round(time.time(), 3), **subject, **_finite(fields)}
        line = json.dumps(entry, separators=(",", ":"), allow_nan=False, default=str).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        if self._file.write(line) < len(line):  # the disk is full
            self._file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return entry

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def is_locked(path: Path) -> bool:
    """Tells whether a process is writing a journal."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False  # a file system without locks
    return False


def read_events(path: Path) -> Iterator[Event]:
    """Yields the events of a journal, oldest first; a half-written last line is dropped.

    Raises:
        JournalError: There is no such file, or a line before the last is no event.
    """
    return JournalTail(path).new()


class JournalTail:
    """Reads a journal that may still be written.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0  # bytes
        self._lines = 0

    def new(self) -> Iterator[Event]:
        """Yields the events since the last call; a half-written last line is left for the next.

        Raises:
            JournalError: There is no such file, or a line before the last is no event.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                text = file.read()
        except OSError as error:
            raise JournalError(f"{self._path}: the journal cannot be read: {error.strerror}") from None
        *lines, _half_written = text.split(b"\n")
        for line in lines:
            self._read += len(line) + 1
            self._lines += 1
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            if not isinstance(event, dict) or "event" not in event:
                raise JournalError(f"{self._path}:{self._lines}: not an event of a journal (got {line[:80]!r})")
            yield event


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
