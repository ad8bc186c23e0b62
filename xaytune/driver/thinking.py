"""How long the search method thinks: results of other trials wait meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xaytune.records.clock import Clock

# Share of a sweep's time that may go into decisions.
_SHARE = 0.1
# Seconds that they must have taken in all for that to matter.
_SECONDS = 30.0


class Thinking:
    """Measures how long decisions take.

    Args:
        clock: Tells the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._began = clock, clock.monotonic()
        self._seconds = 0.0
        self._told = False

    @contextmanager
    def measured(self) -> Iterator[None]:
        """A context in which the method thinks."""
        began = self._clock.monotonic()
        try:
            yield
        finally:
            self._seconds += self._clock.monotonic() - began

    def too_long(self) -> str | None:
        """Returns, once, a message that says that decisions take too long; None while they do not."""
        elapsed = self._clock.monotonic() - self._began
        if self._told or self._seconds < _SECONDS or self._seconds < _SHARE * elapsed:
            return None
        self._told = True
        return f"decisions took {self._seconds:.0f} s of the first {elapsed:.0f} s"
