"""The clock of a sweep: nothing that decides or records asks the time elsewhere."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time. In a simulation it is virtual."""

    def now(self) -> float:
        """Returns unix seconds, for people: they jump when the machine's clock is set."""

    def monotonic(self) -> float:
        """Returns seconds from some moment on, for durations and deadlines."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Returns unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Returns seconds from some moment on, which nobody can set."""
        return time.monotonic()
