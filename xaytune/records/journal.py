"""The journal of a sweep: one JSON object a line, appended as things happen, and never changed.

Every line has ``event``, ``t`` (unix seconds), ``s`` (seconds since the process that writes it opened the journal,
by a monotonic clock) and, if it is about a trial, ``trial`` (its number). The first line that a process writes
also has ``journal``, the version of this format (2; journals without it are of version 1), and ``versions``: of
``python``, ``xaytune``, ``ray``, ``torch``, ``optuna``, and the git ``commit`` of the code.

===============  ====================================================================================
event            fields
===============  ====================================================================================
``sweep``        the sweep has started, is resumed, or has ended: ``state``. ``running`` comes with ``name``,
                 ``id``, ``spec``, ``num_trials`` (null: as many as the budget allows), ``folder`` (in which it was
                 started), ``host``, ``pid``; ``completed``, ``interrupted`` or ``failed`` with ``reason``
``trial``        a new trial: ``config``, ``seed``, and ``reason`` if its configuration has one
``start``        an attempt trains in a process: ``attempt`` (from 0), ``node``, ``pid``
``result``       at a decision point: ``due`` (whether the scheduler decides), ``epoch``, ``global_step``,
                 ``metrics``, ``value``, ``best``, ``checkpoints``, ``seconds``
``verdict``      the decision on that: ``decision`` (``continue``, ``stop``, ``pause``), ``reason``, ``cutoff``
                 (the value it was compared with), ``compared`` (of how many trials), ``details`` (further
                 numbers), ``epoch``, ``global_step``, ``value``
``progress``     how far a trial is, now and then: ``epoch``, ``global_step``, ``metrics``, ``best``,
                 ``seconds``
``stop``         the trial was asked to stop: ``reason``, the ``status`` that it is to end with, and ``of_sweep``
                 where that is because the sweep ends
``checkpoint``   a checkpoint was written: ``path`` (within the sweep's folder), ``global_step``
``damaged``      a checkpoint cannot be used: ``path``, ``global_step``
``deleted``      a checkpoint is no longer needed: ``path``, ``global_step``
``failure``      an attempt failed: ``kind`` (``error``, ``no_metric``, ``infeasible``, ``skipped``, ``stalled``,
                 ``lost``, ``lost_with_others`` (of its process), ``shared`` (it moves to a process of its own),
                 ``node_lost``, ``preempted``, ``not_started``), ``error``, ``traceback``, ``retried`` (whether
                 another attempt follows), and ``epoch``, ``global_step`` that it is known to have reached
``reopen``       the trial is restarted, though it failed: that was not its own fault, or this was asked for
``offer``        a donor checkpoint, for others to resume from: ``path``, ``global_step``
``exploit``      the trial resumes from the donor checkpoint of another: ``source``, its new ``config``,
                 ``path``, ``global_step``, ``reason``
``note``         something about the recipe that its author should know: ``text``
``max_t``        how many epochs or steps trials train, as the first one said: ``max_t``
``fall_back``    the search method was asked to decide by cheaper means: ``reason``
``pause``        the trial can be continued: ``reason``, and how far it was, as in ``end``, if it said so
``end``          the trial has ended: ``status`` (``completed``, ``stopped``, ``failed``), ``value``, ``reason``,
                 ``due``, ``epoch``, ``global_step``, ``metrics``, ``best``, ``checkpoints`` (the last ones, paths
                 by step), ``seconds``, and ``fused`` (with how many at once it was trained) if it was
===============  ====================================================================================

``config`` and the values of ``spec`` are written as :mod:`xaytune.sweep.values` says; everywhere else a number
that is not finite is ``null``. ``best`` is where the metric was best so far: ``value``, ``epoch``,
``global_step``, ``metrics``; ``value`` of an ``end`` is the best value that the metric reached. ``seconds`` is how
long the attempt has trained; of one that was lost, it follows from ``s`` of its ``failure``. Readers ignore events
and fields that they do not know.
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
from xaytune.records.clock import Clock, SystemClock
from xaytune.records.provenance import versions
from xaytune.sweep import values

FILE_NAME = "journal.jsonl"
VERSION = 2
Event = dict[str, Any]

# How version 1 called these kinds of failures.
_OLD_KINDS = {"node lost": "node_lost", "not begun": "not_started"}
_BLOCK = 1 << 16
# Seconds that a writer waits for its lock: `is_locked` takes it for a moment, to see whether there is a writer.
_LOOKED_AT_S = 0.5
# Seconds between two attempts to take it.
_AGAIN_S = 0.01
_PLAIN = frozenset((str, int, bool, type(None)))  # what JSON holds as it is
_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class Journal:
    """Appends events to a journal. Each is one write: it is there whole, or is dropped by the reader.

    Args:
        path: The file; it is made if missing. A half-written last line is cut off.
        clock: Tells the time; by default the machine's.

    Raises:
        JournalError: Another process is writing it.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        until = time.monotonic() + _LOOKED_AT_S
        while not self._is_own():
            if time.monotonic() > until:
                self._file.close()
                raise JournalError(f"{path.parent}: the sweep is running, in another process")
            time.sleep(_AGAIN_S)
        self._cut_half_line()
        self._clock = clock or SystemClock()
        self._opened = self._clock.monotonic()
        self._first = True

    def write(self, event: str, trial: int | None = None, **fields: Any) -> Event:
        """Appends an event, and returns it as a reader will see it.

        Raises:
            OSError: The file system refused; the journal stays as it was.
        """
        entry = self._entry(event, trial, fields)
        line = _JSON.encode(entry).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        if self._file.write(line) < len(line):  # the disk is full
            self._file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return entry

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _entry(self, event: str, trial: int | None, fields: dict[str, Any]) -> Event:
        clock, subject = self._clock, {} if trial is None else {"trial": trial}
        stamp = {"t": round(clock.now(), 3), "s": round(clock.monotonic() - self._opened, 3)}
        format_ = {"journal": VERSION, "versions": versions(Path.cwd())} if self._first else {}
        self._first = False
        return {
            "event": event,
            **stamp,
            **subject,
            **format_,
            **{name: value if type(value) in _PLAIN else _kept(name, value) for name, value in fields.items()},
        }

    def _is_own(self) -> bool:
        """Locks the file; tells whether nobody else has, or its file system has no locks."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def _cut_half_line(self) -> None:
        end = self._file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _BLOCK)
            self._file.seek(start)
            newline = self._file.read(end - start).rfind(b"\n")
            if newline >= 0:
                self._file.truncate(start + newline + 1)
                return
            end = start
        self._file.truncate(0)


def is_locked(path: Path) -> bool | None:
    """Tells whether a process is writing a journal; None where its file system has no locks."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
    return False


def read_events(path: Path, until: int | None = None) -> Iterator[Event]:
    """Yields the events of a journal, oldest first; a half-written last line is dropped.

    Args:
        path: The file.
        until: So many bytes of it; by default all.

    Raises:
        JournalError: There is no such file, it was written by a later version, or a line before the last is no
            event.
    """
    return JournalTail(path).new(until)


class JournalTail:
    """Reads a journal that may still be written.

    Attributes:
        read: Bytes read so far.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.read = 0
        self._path = path
        self._lines = 0

    def new(self, until: int | None = None) -> Iterator[Event]:
        """Yields the events since the last call; a half-written last line is left for the next.

        Args:
            until: Bytes of the journal to read; by default all there are.

        Raises:
            JournalError: There is no such file, it was written by a later version, or a line before the last is no
                event.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self.read)
                for line in file:
                    if not line.endswith(b"\n") or (until is not None and self.read + len(line) > until):
                        return
                    self.read += len(line)
                    self._lines += 1
                    yield self._event(line)
        except OSError as error:
            raise JournalError(f"{self._path}: the journal cannot be read: {error.strerror}") from None

    def _event(self, line: bytes) -> Event:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or not {"event", "t"} <= event.keys():
            raise JournalError(f"{self._path}:{self._lines}: not an event of a journal (got {line[:80]!r})")
        if event.get("journal", VERSION) > VERSION:
            wrote = event.get("versions", {}).get("xaytune", "of a later version")
            raise JournalError(
                f"{self._path}: a journal of version {event['journal']}, written by xaytune {wrote}; this xaytune "
                f"reads versions up to {VERSION}: upgrade it"
            )
        if event["event"] == "failure":
            kind = event.get("kind", "error")
            event["kind"] = _OLD_KINDS.get(kind, kind)
        return event


class KnownEvents:
    """The events of a journal, parsed once for all who want them from its beginning.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.forget()

    def all(self) -> list[Event]:
        """Returns all events there are by now, oldest first.

        Raises:
            JournalError: As of :meth:`JournalTail.new`.
        """
        self._events.extend(self._tail.new())
        return self._events

    def forget(self) -> None:
        """Frees their memory; whoever asks again has them read again."""
        self._events: list[Event] = []
        self._tail = JournalTail(self._path)


def _kept(field: str, value: Any) -> Any:
    """The value of an event's field as JSON holds it; a spec is that already."""
    if field == "config":
        return values.write(value)
    return value if field == "spec" else _finite(value)


def _finite(value: Any) -> Any:
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(_finite, value), key=repr)
    if hasattr(value, "tolist"):  # a number or an array of numpy's, a tensor
        return _finite(value.tolist())
    return repr(value)
